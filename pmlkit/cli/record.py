# SPDX-License-Identifier: Apache-2.0
"""`pmlkit record`, `simulate` and `ingest`: the commands that make traces on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import (
    RECORDING,
    as_json,
    example,
    names,
    option,
    output,
    overwrite,
    say,
    span,
    trace_argument,
)
from pmlkit.cli.parameters import DURATION, MEMORY, MEMORY_OR_0, PATH, SETTING
from pmlkit.cli.show import show, show_trace
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from typing import Any

REARM = Choice(["round", "flush", "never"])


@click.command(epilog=RECORDING)
@click.argument(
    "workload", required=False, shell_complete=names("pmlkit.sources.guest.workload:names")
)
@output("NAME.trace", "The trace to write.")
@option(
    "--list", "list_them", is_flag=True, help="List the workloads, or the parameters of WORKLOAD."
)
@option("--memory", "memory_mib", type=MEMORY, help="The guest's memory, such as 256 or 1G.")
@option(
    "--window",
    default="10ms",
    help="Length of a round, in guest time or in instructions (10Minsn).",
)
@option("--clock", default="guest", type=Choice(["guest", "host"]),
        help="The guest's clock counts instructions of 8 ns each, and two runs are equal (guest); "
             "or it is wall time (host).")  # fmt: skip
@option("--icount-shift", default=3, type=IntRange(0, 10),
        help="Length of an instruction on the guest's clock, 2**N ns. 0 is 1,000 million per "
             "second, 3 is 125 million.")  # fmt: skip
@option("--deterministic", is_flag=True, default=None, help="The same as --clock guest.")
@option("--cmdline", default="", help="Append this to the guest kernel's command line.")
@option("--set", "settings", type=SETTING, multiple=True, help="Set a parameter of the workload.")
@option("--rounds", type=IntRange(1, 999), help="Number of rounds of a kit guest. [8]")
@option("--boot", is_flag=True, help="Also record the guest's boot.")
@option(
    "--swap",
    "swap_mib",
    type=MEMORY_OR_0,
    default=0,
    help="Add a swap disk, and record its requests.",
)
@option(
    "--time-limit",
    type=DURATION,
    default="30min",
    help="Stop the guest if it runs longer than this.",
)
@overwrite
@as_json
def record(
    workload: str | None,
    output: str | None,
    list_them: bool,
    settings: tuple[tuple[str, str], ...],
    rounds: int | None,
    time_limit: int,
    as_json: bool,
    **how: Any,
) -> None:
    """Record the frames that a real Linux guest uses.

    Each round lists the frames that it reads, writes and executes, in order of first use.

    WORKLOAD is a name from --list, a static executable, a C file, or a folder with a workload.yaml.
    It can also be a bare-metal guest of the lab (`pmlkit lab run --list`), whose own rounds are
    recorded. Ctrl-C stops the recording early and leaves a valid, shorter trace.
    """
    if list_them:
        return _list_workloads(workload, as_json)
    if workload is None or output is None:
        raise UsageError("name a WORKLOAD (`pmlkit record --list` lists them) and -o NAME.trace")
    from pmlkit.cli import console
    from pmlkit.sources.guest.workload import load
    from pmlkit.sources.recorder import kit as recorder_kit
    from pmlkit.sources.recorder.record import record as record_workload
    from pmlkit.sources.recorder.recording import RecordOptions

    options = RecordOptions(time_limit_s=time_limit / 1e9, **how)
    with console.recording(quiet=as_json) as progress:
        if recorder_kit.is_kit_guest(workload):
            rounds = rounds or recorder_kit.ROUNDS
            trace = recorder_kit.record_kit(
                workload, output, options, dict(settings), rounds, progress
            )
        elif rounds:
            raise UsageError(
                f"--rounds is for the lab's bare-metal guests, and {workload} is not one of them"
            )
        else:
            loaded = load(workload).with_parameters(dict(settings))
            trace = record_workload(loaded, output, options, progress)
    show_trace(as_json, trace)


def _list_workloads(workload: str | None, as_json: bool) -> None:
    from pmlkit.cli import console
    from pmlkit.sources.guest.workload import list_workloads, load

    workloads = [load(workload)] if workload else list_workloads()
    render = console.parameters if workload else console.workloads
    show(as_json, [console.workload_dict(w) for w in workloads], render, workloads)


@click.command(epilog=example("pmlkit simulate hotcold -o pml.trace --buffers 2"))
@trace_argument
@output("PML.trace", "The PML trace to write.", required=True)
@option("--buffer", default=512, type=IntRange(1, 2**20), help="Number of entries in a buffer.")
@option(
    "--buffers",
    default=1,
    type=IntRange(1, 2),
    help="Number of buffers. With 2, one drains while the other fills.",
)
@option("--rearm", default="round", type=REARM, help="When a logged page is re-armed.")
@option(
    "--rounds",
    default=1,
    type=IntRange(1),
    help="Number of rounds of TRACE in one round of PML.trace.",
)
@span
@overwrite
@as_json
def simulate(
    trace: str,
    output: str,
    buffer: int,
    buffers: int,
    rearm: str,
    rounds: int,
    start: int | None,
    end: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run a software PML on the access trace TRACE.

    PML is on from --start to --end; the log keeps the recording's times.
    """
    from pmlkit.cli import console
    from pmlkit.sources import simulator

    model = simulator.PmlModel(buffer, buffers, rearm, rounds)
    with console.busy("simulating", quiet=as_json):
        log = simulator.simulate(trace, output, model, overwrite, start, end)
    show_trace(as_json, log)


@click.command(epilog=example("pmlkit ingest x.trace.spool -o x.trace"))
@click.argument("spool", type=PATH)
@output("NAME.trace", "The trace to write.", required=True)
@overwrite
@as_json
def ingest(spool: str, output: str, overwrite: bool, as_json: bool) -> None:
    """Convert the spool of an interrupted collection to a trace.

    A note in the trace states what is missing. The trace ends before the first unknown frame, which
    the output names. In this case, keep the spool and ingest it again after an update of pmlkit.
    """
    from pmlkit.cli import console
    from pmlkit.sources import ingest

    with console.busy("reading the spool", quiet=as_json):
        faults: list[str] = []
        trace = ingest.ingest(spool, output, overwrite, faults.append)
    for line in faults:
        say(f"{line}: keep {spool}, and ingest it again after an update of pmlkit")
    show_trace(as_json, trace)
