# SPDX-License-Identifier: Apache-2.0
"""Record a real Linux guest: every frame that it reads, writes and executes, round by round.

QEMU emulates the guest's processor, and our plugin (recorder_plugin.c) watches it. What the plugin
says goes frame by frame into a spool, ``NAME.trace.spool/``, and at the end the spool becomes
``NAME.trace``. A recording that is cut short leaves the spool: `pmlkit ingest` makes a trace of it.

What is not seen: the processor's own walks of the guest's page tables, and DMA (the guest has no
network card, and a disk only to swap to, if it is asked for: its requests are in `Trace.disk`).
`Trace.pml` holds what an emulated PML of 512 entries logged.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
from dataclasses import InitVar, asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import signals
from pmlkit.errors import OutputExists, PmlkitError, UnknownName, UsageError, output_error
from pmlkit.files import refuse_inside_trace
from pmlkit.sources import qemu
from pmlkit.sources.host import command
from pmlkit.sources.messages import Message
from pmlkit.sources.recording import Recording
from pmlkit.spool import FRAMES_FILE, folder_of
from pmlkit.spool_reader import holds_frames, make_way

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.signals import Noted
    from pmlkit.sources.guest import GuestImage
    from pmlkit.sources.qemu import Period
    from pmlkit.sources.workload import Workload
    from pmlkit.trace import Trace
    from pmlkit.types import Json, PathLike


CLOCKS = ("guest", "host")
_IDLE = frozenset({Message.HELLO, Message.MARK, Message.TOTALS, Message.HOST})  # of no page
DETERMINISTIC_CMDLINE = "pmlkit.spin"  # never idle: the clock is the instruction count


@dataclass(frozen=True)
class RecordOptions:
    """How to record.

    Attributes
    ----------
    memory_mib : int, optional
        The guest's memory; default: what the workload asks for.
    window : str
        Length of a round, the trace's resolution: guest time (``"10ms"``) or instructions
        (``"10Minsn"``).
    clock : {"guest", "host"}
        What the guest's clock, and so a round's length, goes by. ``"guest"``: its instructions,
        8 ns each; a busy host changes nothing, and two runs are the same to the bit. ``"host"``:
        wall time; how much a guest does in it depends on the host's load.
    cmdline : str
        Added to the guest kernel's command line.
    boot : bool
        Record the boot, too; otherwise the recording begins when the workload does.
    time_limit_s : float
        Seconds on the host after which a guest counts as hung.
    overwrite : bool
        Replace what has the output's name.
    swap_mib : int
        Size of a swap disk, whose requests are recorded; 0: the guest has no disk.
    check : bool
        Let the plugin verify its short cut at every access (3x slower).
    """

    memory_mib: int | None = None
    window: str = "10ms"
    clock: str = "guest"
    cmdline: str = ""
    boot: bool = False
    time_limit_s: float = 1800
    overwrite: bool = False
    check: bool = False
    swap_mib: int = 0
    deterministic: InitVar[bool | None] = None  # older name: True is the guest's clock

    def __post_init__(self, deterministic: bool | None) -> None:
        if self.clock not in CLOCKS:
            raise UnknownName("clock", self.clock, CLOCKS)
        if deterministic and self.clock != "guest":
            what = f"--clock {self.clock} and --deterministic contradict each other"
            raise UsageError(what, "leave one of them out")
        if deterministic is False:
            object.__setattr__(self, "clock", "host")

    @property
    def icount(self) -> bool:
        """Whether the clock counts instructions."""
        return self.clock == "guest"


def record(
    workload: Workload | PathLike,
    out: PathLike,
    options: RecordOptions | None = None,
    progress: Callable[..., Any] | None = None,
) -> Trace:
    """Boot a guest with a workload and record it.

    Parameters
    ----------
    workload : Workload or path-like
        A workload, or anything that `pmlkit.sources.workload.load` takes.
    out : path-like
        The trace to be, ``NAME.trace``.
    options : RecordOptions, optional
    progress : callable, optional
        Called with a `pmlkit.sources.recording.Progress` a few times a second.

    Returns
    -------
    Trace
        Shorter than it could be (``meta.complete`` is false) if Ctrl-C interrupted it.

    Raises
    ------
    pmlkit.signals.Ended
        If another signal did, once the trace is written.
    MissingTool, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    from pmlkit.ingest import finish
    from pmlkit.sources import guest
    from pmlkit.sources.workload import load

    options = options or RecordOptions()
    workload = load(workload) if isinstance(workload, str | os.PathLike) else workload
    memory_mib = options.memory_mib or workload.memory_mib
    qemu.check_memory(memory_mib)
    period = qemu.parse_period(options.window)
    out, spool = claim(out, options.overwrite)
    try:
        qemu_version, plugin = qemu.version(), qemu.build_plugin()
        spin = f" {DETERMINISTIC_CMDLINE}" if options.icount else ""
        cmdline = f"{options.cmdline}{spin}".strip()
        image = guest.build(
            workload, memory_mib=memory_mib, extra_cmdline=cmdline, swap=bool(options.swap_mib)
        )
        header = describe(workload, options, memory_mib, period, image, qemu_version)
        with signals.noted() as stop:
            with Recording(spool, header, options, progress, stop) as run:
                run.boot(image, memory_mib, plugin, period)
                run.listen()
                run.judge()
            trace = finish(spool, out, overwrite=options.overwrite)
    except BaseException as error:
        _keep_spool(error, spool, out)
        raise
    return whole(trace, stop)


def whole(trace: Trace, stop: Noted) -> Trace:
    """Return a trace that is written, unless a signal other than Ctrl-C ended its recording."""
    if stop.number in (None, signal.SIGINT):
        return trace
    raise signals.Ended(stop.number, f"what came is in {trace.path}")


def claim(out: PathLike, overwrite: bool) -> tuple[Path, Path]:
    """Make the spool's folder beside the output; refuse names that are taken.

    Returns
    -------
    out, spool : Path
    """
    out = Path(out)
    if out.suffix != ".trace":
        raise UsageError(f"the output {out} should be called NAME.trace", f"try {out}.trace")
    refuse_inside_trace(out)
    spool = folder_of(out)
    for taken in (out, spool):
        if taken.exists() and not overwrite:
            raise OutputExists(taken)
    try:
        make_way(spool)
        spool.mkdir(parents=True)
    except OSError as error:
        raise output_error(out, error) from error
    return out, spool


def describe(
    workload: Workload,
    options: RecordOptions,
    memory_mib: int,
    period: Period,
    image: GuestImage,
    qemu_version: str,
) -> Json:
    """Return the spool's header: all that a reader must know and that no message tells."""
    return {
        "source": "recorder",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "workload": workload.name,
        "parameters": {name: p.default for name, p in workload.parameters.items()},
        "memory_bytes": memory_mib << 20,
        "period": {"ns": period.ns, "insn": period.insn},
        "ns_per_insn": float(1 << qemu.ICOUNT_SHIFT) if options.icount else None,
        "options": {**asdict(options), "deterministic": options.icount},
        "cmdline": image.cmdline,
        "versions": {"qemu": qemu_version, "python": platform.python_version(), **image.versions},
        "host": {"machine": platform.machine(), "system": platform.platform(terse=True)},
        "command": command("pmlkit.sources.recorder.record"),
    }


def _keep_spool(error: BaseException, spool: Path, out: PathLike) -> None:
    """Say where to find what was recorded; remove the spool if that is nothing."""
    from pmlkit.ingest import kept_hint

    kept = f"kept: `pmlkit ingest {spool} -o {out}` makes a trace of it"
    if not holds_frames(spool / FRAMES_FILE, _IDLE):
        shutil.rmtree(spool, ignore_errors=True)
    elif isinstance(error, PmlkitError) and error.hint != kept_hint(spool, out):
        error.args = (f"{error} ({kept})",)
    elif isinstance(error, signals.Ended):
        error.kept = kept
