# SPDX-License-Identifier: Apache-2.0
"""`pmlkit record`, `simulate` and `ingest`: the commands that make traces on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import (
    DURATION,
    MEMORY,
    PATH,
    SETTING,
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
from pmlkit.cli.show import show, show_trace
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from typing import Any

REARM = Choice(["round", "flush", "never"])
EXAMPLES = example(
    "pmlkit record --list",
    "pmlkit record hotcold --memory 256 -o h.trace",
    "pmlkit record ./mine.c --window 10Minsn -o mine.trace",
)


@click.command(epilog=EXAMPLES)
@click.argument(
    "workload", required=False, shell_complete=names("pmlkit.sources.guest.workload:names")
)
@output("NAME.trace", "The trace to write.")
@option("--list", "list_them", is_flag=True, help="List the workloads, or WORKLOAD's parameters.")
@option("--memory", "memory_mib", type=MEMORY, help="The guest's memory: 256, 1G.")
@option("--window", default="10ms", help="Length of a round: guest time, or 10Minsn.")
@option("--clock", default="guest", type=Choice(["guest", "host"]), help="guest: time counts its "
        "instructions, 8 ns each, and two runs are equal; host: wall time.")  # fmt: skip
@option("--icount-shift", default=3, type=IntRange(0, 10), help="By the guest's clock an "
        "instruction lasts 2**N ns: 0 is 1,000 million a second, 3 is 125.")  # fmt: skip
@option("--deterministic", is_flag=True, default=None, help="The same as --clock guest.")
@option("--cmdline", default="", help="Add to the guest kernel's command line.")
@option("--set", "settings", type=SETTING, multiple=True, help="Set a workload's parameter.")
@option("--rounds", type=IntRange(1, 999), help="Kit guests: how many rounds they run. [8]")
@option("--boot", is_flag=True, help="Record the guest's boot, too.")
@option("--swap", "swap_mib", type=MEMORY, default=0, help="Give it a swap disk, and record that.")
@option("--time-limit", type=DURATION, default="30min", help="A guest hangs that takes longer.")
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

    For each round: which it reads, writes and executes, in order of first use.

    WORKLOAD is a name of --list, a static executable, a C file, or a folder with a workload.yaml;
    or a bare-metal guest of the lab (`pmlkit lab run --list`), whose own rounds are recorded.
    Ctrl-C ends the recording early and leaves a valid, shorter trace.
    """
    if list_them:
        return _list_workloads(workload, as_json)
    if workload is None or output is None:
        raise UsageError("name a WORKLOAD (`pmlkit record --list` has them) and -o NAME.trace")
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
            raise UsageError(f"--rounds is for the lab's bare-metal guests, and {workload} is none")
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


@click.command(epilog=example("pmlkit simulate data/hotcold.trace -o pml.trace --buffers 2"))
@trace_argument
@output("PML.trace", "The PML trace to write.", required=True)
@option("--buffer", default=512, type=IntRange(1, 2**20), help="Entries of a buffer.")
@option("--buffers", default=1, type=IntRange(1, 2), help="With 2, one drains as the other fills.")
@option("--rearm", default="round", type=REARM, help="When a logged page may be logged again.")
@option("--rounds", default=1, type=IntRange(1), help="Rounds of TRACE that make one of PML.trace.")
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
    """Run a software PML over the access trace TRACE.

    It is switched on at --start and off at --end; the log keeps the recording's times.
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
    """Make a trace of the spool that an interrupted collection left.

    What is missing is a note in the trace. It ends before the first frame that is not understood,
    which is named: keep the spool then, and ingest it again after an update of pmlkit.
    """
    from pmlkit.cli import console
    from pmlkit.sources import ingest

    with console.busy("reading the spool", quiet=as_json):
        faults: list[str] = []
        trace = ingest.ingest(spool, output, overwrite, faults.append)
    for line in faults:
        say(f"{line}: keep {spool}, and ingest it again after an update of pmlkit")
    show_trace(as_json, trace)
