# SPDX-License-Identifier: Apache-2.0
"""`pmlkit period` and `pmlkit calibrate`: the choice of T, and the costs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmlkit.cli.options import (
    as_json,
    drawing,
    echo,
    example,
    only_answer,
    option,
    output,
    span,
    trace_argument,
)
from pmlkit.cli.parameters import ABOVE_0, DURATION, NAME, NUMBER, PATH, SHARE
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from pmlkit.period.advice import Advice
    from pmlkit.period.costs import Constants
    from pmlkit.trace.reader import Trace


_PERIOD = example(
    "pmlkit period redis",
    "pmlkit period redis --summary",
    "pmlkit period x.trace --overhead 0.5% -o f/period --json",
)
_CALIBRATE = example(
    "pmlkit calibrate -o here.json",
    "pmlkit calibrate --domain web1 --host root@dom0 -o dom0.json",
)


@click.command(epilog=_PERIOD)
@trace_argument
@option("--overhead", default="1%", type=SHARE, metavar="SHARE",
        help="Share of its time that the guest may lose, in percent.")  # fmt: skip
@option("--accuracy", default="5%", type=SHARE, metavar="SHARE",
        help="Share by which the working set may grow if T doubles, in percent.")  # fmt: skip
@option("--ns-per-insn", default=None, type=ABOVE_0,
        help="Length of an instruction on the host of TRACE, or of --calibration. It converts "
             "between times and instructions.")  # fmt: skip
@option("--transition", default=3000, type=NUMBER,
        help="Assumed number of instructions that a processor could execute while it leaves and "
             "re-enters a guest.")  # fmt: skip
@option("--stall", default="100ms", type=DURATION,
        help="Assumed longest time in which dom0 does not drain the ring.")  # fmt: skip
@option("--calibration", type=PATH, metavar="FILE", help="The file that `pmlkit calibrate` wrote.")
@drawing("Draw the trade-off")
@span
@only_answer
@as_json
def period(
    trace: Trace,
    overhead: float,
    accuracy: float,
    ns_per_insn: float | None,
    transition: float,
    stall: int,
    calibration: str | None,
    output: str | None,
    only_answer: bool,
    as_json: bool,
    **span: None,
) -> None:
    """Recommend a period T, a ring and a re-arm policy.

    The answer is the shortest T at which logging costs at most --overhead and beyond which the
    working set hardly depends on T. The output includes the numbers and the formula. T is time of
    the trace's machine. An emulator executes far fewer instructions per second than a host.
    """
    from pmlkit import period as periods
    from pmlkit.cli import console
    from pmlkit.period import costs as calibrate
    from pmlkit.trace.reader import Trace

    opened = Trace.open(trace)
    base = calibrate.load(calibration) if calibration else calibrate.base_of(opened, transition)
    constants = calibrate.from_trace(opened, base)
    with console.busy("measuring W(T)", quiet=as_json):
        advice = periods.advise(
            opened,
            overhead,
            accuracy,
            constants,
            stall,
            **span,
            ns_per_insn=ns_per_insn,
        )
    if output:
        from pmlkit import figures

        figures.save(figures.period_trade_off(opened, advice), output)
    if only_answer:
        return show(as_json, {"summary": advice.summary}, console.answer, [advice.answer])
    lines = [advice.answer, advice.words[0]]
    show(as_json, advice.as_dict, console.answer, lines, lambda: _print(advice))


def _print(advice: Advice) -> None:
    import pandas as pd

    from pmlkit.cli import console
    from pmlkit.units import format_bytes, format_ns, format_share

    rows = advice.table
    table = {
        "T": [format_ns(int(ns)) for ns in rows["period_ns"]],
        "W written": [format_bytes(int(size)) for size in rows["bytes"]],
        "exits/s": rows["exits_per_s"].map("{:,.1f}".format),
        "guest loses": [format_share(x) for x in rows["guest_overhead"]],
        "host spends": [format_share(x) if x == x else "not known" for x in rows["host_overhead"]],
        "W if T doubles": [f"+{format_share(x)}" for x in rows["sensitivity"]],
    }
    chosen = ["*" if ns == advice.period_ns else "" for ns in rows["period_ns"]]
    sheet = pd.DataFrame({"": chosen, **table})
    console.sheet(sheet, "The cost of each period T (* the answer)", right=range(1, 7))
    console.answer(["", *advice.words[1:], "", *advice.constants.lines()])


@click.command(epilog=_CALIBRATE)
@output("FILE.json", "Write the constants, for `pmlkit period --calibration`.")
@option(
    "--domain",
    type=NAME,
    help="Log this domain during the measurement, for the constants of a real Xen host.",
)
@option("--host", type=NAME, metavar="USER@DOM0", help="The host of that domain.")
@option(
    "--state", default="/run/pmlkit", help="Folder in dom0 with a mark for each running collection."
)
@option("--for", "length", default="20s", type=DURATION, help="Length of the measurement.")
@as_json
def calibrate(
    output: str | None, domain: str | None, host: str | None, state: str, length: int, as_json: bool
) -> None:
    """Measure the cost of collecting, here or on a Xen host.

    With --domain, that domain is logged during the measurement. Without it, only the costs that
    need no Xen are measured (bitmaps, spool), and the others are assumed. Each constant states its
    source.
    """
    from pmlkit.cli import console
    from pmlkit.errors import UsageError
    from pmlkit.period import costs as calibration

    if host and not domain:
        raise UsageError("--host is the host of a domain: name the domain with --domain")
    with console.busy("measuring", quiet=as_json):
        constants = calibration.measure(length / 2e9 if domain else length / 1e9)
        if domain:
            constants = _on_host(domain, host, state, length / 1e9, constants)
    if output:
        calibration.save(constants, output)
    show(as_json, constants.as_dict, lambda: echo("\n".join(constants.lines())))


def _on_host(
    domain: str, host: str | None, state: str, seconds: float, base: Constants
) -> Constants:
    """Log a domain in short rounds; return the constants of its trace."""
    from pathlib import Path

    from pmlkit.files import scratch_folder
    from pmlkit.period import costs as calibration
    from pmlkit.sources.host.collection import Collection

    with scratch_folder() as folder:
        out, options = Path(folder) / "calibration.trace", calibration.rounds(seconds, state)
        run = Collection(domain, out, options, host)
        return calibration.from_trace(run.run(), base)
