# SPDX-License-Identifier: Apache-2.0
"""`pmlkit reads`: the working set with the reads that PML does not log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice

from pmlkit.cli.options import as_json, example, only_answer, option, span, trace_argument
from pmlkit.cli.parameters import PATH, WINDOW
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from pmlkit.reads.calibration import Calibration
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json


METHODS = ("written", "leaves", "present", "accessed", "density", "sample", "harvest")


@click.command(
    epilog=example(
        "pmlkit reads rrww-lab",
        "pmlkit reads rrww-lab --method density --summary",
        "pmlkit reads x.trace --method density --one-in 32 --json",
        "pmlkit reads x.trace --compare",
        "pmlkit reads x.trace --aging x.csv",
    )
)
@trace_argument
@option("--method", default="accessed", type=Choice(METHODS), help="The method of estimation.")
@option("--window", type=WINDOW, default="1r", help="T, as a time (250ms) or in rounds (5r).")
@option("--one-in", type=click.IntRange(1),
        help="Sample one frame in N (density, sample). [the harvested sample, or 16]")  # fmt: skip
@option(
    "--bounds",
    is_flag=True,
    help="Print certain bounds instead of intervals calibrated on guests of the lab.",
)
@option("--aging", type=PATH, metavar="FILE",
        help="Use the counts of `collect --mode lru-gen` from the same time; the log and the page "
             "tables give the bounds.")  # fmt: skip
@option("--compare", is_flag=True, help="Compare all methods with the harvest, phase by phase.")
@span
@only_answer
@as_json
def reads(
    trace: Trace,
    method: str,
    one_in: int | None,
    bounds: bool,
    aging: str | None,
    compare: bool,
    only_answer: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Estimate the working set of TRACE, including reads.

    The reads are derived from the page tables in its PML log.

    The methods are written (PML alone), leaves (512 pages for each leaf table in the log), and
    present and accessed (the entries of their snapshots). density is the used part of these, from
    a sample of accessed flags. sample is the sample without the tables. harvest is all accessed
    flags, which are the truth. With --aging, the host's own count of touched pages (from Linux 6.12
    on) gives the number. The log and its tables then give the pages.

    Each row has an interval, and a reason if something is unknown.
    """
    from pmlkit import answers
    from pmlkit import reads as estimates
    from pmlkit.cli import console
    from pmlkit.cli.console import busy
    from pmlkit.reads import calibration, sampled
    from pmlkit.trace.reader import Trace

    with busy("counting pages", quiet=as_json):
        opened = Trace.open(trace)
        calibrated = None if bounds else calibration.bundled()
        if aging is not None:
            table = _aged(opened, aging, how)
        elif compare:
            table = _compared(opened, one_in, calibrated, how)
        elif method in ("density", "sample"):
            how["tables"] = method == "density"
            table = sampled.estimate(opened, one_in=one_in, **how)
        else:
            table = estimates.estimate(opened, method, calibration=calibrated, **how)
    if compare:
        summary = answers.closest_method(table)
        lines = [summary["answer"]]
    else:
        answer = answers.reads(opened, table, "aging" if aging else method)
        summary, lines = answer.as_dict(), answer.lines
    if only_answer:
        return show(as_json, {"summary": summary}, console.answer, lines)
    rows = lambda: table.to_dict("records")  # noqa: E731
    show(as_json, rows, console.answer, lines, lambda: console.reads(table))


def _aged(trace: Trace, table: str, how: Json) -> pd.DataFrame:
    from pmlkit.reads import aging

    context = click.get_current_context()
    for name in ("method", "window", "one_in", "bounds", "compare"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            flag = name.replace("_", "-")
            raise UsageError(f"--aging has its own intervals and bounds: leave out --{flag}")
    return aging.estimate(trace, aging.read(table), how["start"], how["end"])


def _compared(
    trace: Trace, one_in: int | None, calibrated: Calibration | None, how: Json
) -> pd.DataFrame:
    from pmlkit.reads import judge
    from pmlkit.selection import rounds_of, times_ns

    context = click.get_current_context()
    for name in ("method", "window"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise UsageError(f"--compare uses all methods, round by round: leave out --{name}")
    first, stop = rounds_of(trace, *times_ns(trace, how["start"], how["end"]))
    methods = [m for m in METHODS if m != "harvest"]
    rows = judge.compare(trace, methods, calibrated, one_in)
    return judge.by_phase(rows[rows["round"].between(first, stop - 1)])
