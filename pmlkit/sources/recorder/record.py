# SPDX-License-Identifier: Apache-2.0
"""Record a real Linux guest: every frame that it reads, writes and executes, round by round.

QEMU emulates the guest's processor, and our plugin (recorder_plugin.c) observes it. The plugin's
messages are appended to a spool, ``NAME.trace.spool/``, which is converted to ``NAME.trace`` at the
end. An interrupted recording leaves the spool: `pmlkit ingest` converts it.

The recording does not include the processor's walks of the guest's page tables, or DMA. The guest
has no network card. With ``swap_mib`` it has a swap disk, whose requests are in `Trace.disk`. A
workload with ``disk_mib`` has a disk for files, whose own frames are not recorded.
`Trace.pml` is the log of an emulated PML of 512 entries.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import signals
from pmlkit.errors import GuestError, PmlkitError
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.messages import Message
from pmlkit.sources.recorder.recording import Recording, RecordOptions
from pmlkit.sources.spooling import claim, command
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import holds_frames, release
from pmlkit.units import check_memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.signals import Noted
    from pmlkit.sources.guest.image import GuestImage
    from pmlkit.sources.guest.workload import Workload
    from pmlkit.sources.recorder.qemu import Period
    from pmlkit.sources.recorder.recording import Progress
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike


_WITHOUT_PAGES = frozenset({Message.HELLO, Message.MARK, Message.TOTALS, Message.HOST})
# The guest never idles, because the instruction count is the clock.
DETERMINISTIC_CMDLINE = "pmlkit.spin"


def record(
    workload: Workload | PathLike,
    out: PathLike,
    options: RecordOptions | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Trace:
    """Boot a guest with a workload and record it.

    Parameters
    ----------
    workload : Workload or path-like
        A workload, or any form that `pmlkit.sources.guest.workload.load` accepts.
    out : path-like
        The trace to write, ``NAME.trace``.
    options : RecordOptions, optional
    progress : callable, optional
        Function that is called with a `pmlkit.sources.recorder.recording.Progress` a few times a
        second.

    Returns
    -------
    Trace
        Incomplete (``meta.complete`` is false) if Ctrl-C interrupted the recording.

    Raises
    ------
    pmlkit.signals.Ended
        If another signal interrupted it, after the trace is written.
    MissingTool, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    from pmlkit.sources.guest.image import build as build_image
    from pmlkit.sources.guest.workload import load
    from pmlkit.sources.ingest import finish

    options = options or RecordOptions()
    workload = load(workload) if isinstance(workload, str | os.PathLike) else workload
    memory_mib = options.memory_mib or workload.memory_mib
    check_memory_mib(memory_mib, qemu.MEMORY_MIB, "the recorder")
    period = qemu.parse_period(options.window)
    out, spool = claim(out, options.overwrite)
    try:
        qemu_version, plugin = qemu.version(), qemu.build_plugin()
        spin = f" {DETERMINISTIC_CMDLINE}" if options.icount else ""
        cmdline = f"{options.cmdline}{spin}".strip()
        image = build_image(
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
    finally:
        release(spool)
    return unless_ended(trace, stop)


def unless_ended(trace: Trace, stop: Noted) -> Trace:
    """Return the trace; raise `Ended` if a signal other than Ctrl-C ended its recording."""
    if stop.number in (None, signal.SIGINT):
        return trace
    raise signals.Ended(stop.number, f"the recorded part is in {trace.path}")


def describe(
    workload: Workload,
    options: RecordOptions,
    memory_mib: int,
    period: Period,
    image: GuestImage,
    qemu_version: str,
) -> Json:
    """Return the spool's header: the parts of the trace's description that no message contains."""
    return {
        "source": "recorder",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "workload": workload.name,
        "parameters": {name: p.default for name, p in workload.parameters.items()},
        "memory_bytes": memory_mib << 20,
        "period": {"ns": period.ns, "insn": period.insn},
        "ns_per_insn": options.ns_per_insn,
        "options": {
            **asdict(options),
            "deterministic": options.icount,
            "disk_mib": workload.disk_mib,
        },
        "cmdline": image.cmdline,
        "versions": {"qemu": qemu_version, "python": platform.python_version(), **image.versions},
        "host": {"machine": platform.machine(), "system": platform.platform(terse=True)},
        "command": command("pmlkit.sources.recorder.record.record"),
    }


def _keep_spool(error: BaseException, spool: Path, out: PathLike) -> None:
    """Add to the error the location of the spool; remove the spool if it contains no pages."""
    from pmlkit.sources.ingest import ingest_command, kept_hint

    kept = f"the recorded part is kept: {ingest_command(spool, out)} converts it to a trace"
    if not holds_frames(spool / FRAMES_FILE, _WITHOUT_PAGES):
        _keep_console(error, spool / "console.txt", Path(out))
        shutil.rmtree(spool, ignore_errors=True)
    elif isinstance(error, PmlkitError) and error.hint != kept_hint(spool, out):
        error.add(kept)
    elif isinstance(error, signals.Ended):
        error.kept = kept


def _keep_console(error: BaseException, console: Path, out: Path) -> None:
    """Copy the guest's console next to the output if the error names it: the spool is removed."""
    text = str(error)
    if not isinstance(error, GuestError) or str(console) not in text:
        return
    kept = out.with_name(f"{out.stem}.console.txt")
    try:
        shutil.copyfile(console, kept)
    except OSError:
        return
    error.amend(lambda text: text.replace(str(console), str(kept)))
