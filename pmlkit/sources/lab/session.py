# SPDX-License-Identifier: Apache-2.0
"""The lab: a real Xen on an emulated processor that has PML, a guest in it, and its log.

Bochs boots Xen with Debian's kernel as dom0; dom0 takes a job from a disk, starts the guest, logs
it (`pmlkit.xen.agent`), writes the spool onto another disk, and switches the machine off. The spool
is copied off that disk while it grows, so that a run can be watched (`sources.watch.Follower`).
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, PmlkitError
from pmlkit.recordings import need_clone
from pmlkit.signals import Ended
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.bochs import INSN_PER_S, Limits, Machine
from pmlkit.sources.lab.boot import DOM0_MIB, Lab, assemble, check_faults
from pmlkit.sources.lab.disks import AGENT, RUN, Growing, take_results, write_disks
from pmlkit.sources.lab.options import LabOptions, check
from pmlkit.sources.spooling import command, read_text
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import holds_frames, read_spool

if TYPE_CHECKING:
    from pmlkit.sources.lab.boot import Snapshot
    from pmlkit.sources.lab.guests import LabGuest
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike, Tell


ROUNDS = 8
_WORK_S = 1800  # of a Linux guest that is logged to its end
_GUEST_S = 900  # of dom0's clock: more than any job of the tests takes
_XEN_MIB = 224  # Xen itself, its tables, and what a guest needs beside its memory
_MILESTONES = (
    ("Page Modification Logging", "Xen is up, and has Page Modification Logging"),
    ("Linux version", "dom0's kernel starts"),
    ("dom0 is up", "dom0 is up"),
    ("tools are up", "dom0's tools are up"),
    ("job starts", "dom0 has the job"),
    ("domain built", "the guest is built"),
    ("LAB agent: ", "the guest has been logged"),
    ("job ended", "dom0 has written the results"),
)


def lab_for(options: LabOptions, memory_mib: int, progress: Tell | None = None) -> Lab:
    """Put the lab together that `options` ask for, with room for a guest of `memory_mib`."""
    need_clone("the lab")
    return assemble(
        stock=options.stock,
        debug=options.xen_debug,
        fast=options.fast,
        xen_cmdline=options.xen_cmdline,
        memory_mib=machine_mib(memory_mib),
        progress=progress,
    )


def build(options: LabOptions | None = None, progress: Tell | None = None) -> Lab:
    """Fetch and build all that a run needs, so that the next one starts at once.

    Parameters
    ----------
    options : LabOptions, optional
    progress : callable, optional
        Called with a line of text before each slow step.

    Returns
    -------
    Lab

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    options = options or LabOptions()
    lab = lab_for(options, options.memory_mib or lab_guests.LINUX_MEMORY_MIB, progress)
    if options.snapshot:
        lab.snapshot(progress)
    return lab


def run(
    guest: LabGuest | PathLike,
    out: PathLike,
    options: LabOptions | None = None,
    progress: Tell | None = None,
) -> Trace:
    """Boot the lab with a guest and make a trace of its log.

    Parameters
    ----------
    guest : LabGuest, str or Path
        What `pmlkit.sources.lab.guests.load` takes.
    out : path-like
        The trace to be, ``NAME.trace``.
    options : LabOptions, optional
    progress : callable, optional
        Called with a line of text at each milestone.

    Returns
    -------
    Trace

    Raises
    ------
    MissingTool, PackageError, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    from pmlkit.sources.ingest import finish
    from pmlkit.sources.spooling import claim

    options, progress = options or LabOptions(), progress or (lambda _: None)
    need_clone("the lab")
    if not isinstance(guest, lab_guests.LabGuest):
        guest = lab_guests.load(guest, options.settings, progress)
    out, spool = claim(out, options.overwrite)
    try:
        collect(guest, spool, options, progress)
    except BaseException as error:
        _keep_spool(error, spool, out, options)
        raise
    return finish(spool, out, options.overwrite, options.keep)


def _keep_spool(error: BaseException, spool: Path, out: PathLike, options: LabOptions) -> None:
    """Add the place of the logged rounds to the error; remove a spool without frames."""
    if rounds := rounds_of(spool / FRAMES_FILE):
        kept = f"{rounds} rounds are kept: `pmlkit ingest {spool} -o {out}` makes a trace of them"
        if isinstance(error, PmlkitError):
            error.args = (f"{error} ({kept})",)
        elif isinstance(error, KeyboardInterrupt):
            raise Ended(getattr(error, "number", signal.SIGINT), kept) from error
    elif not options.keep and not holds_frames(spool / FRAMES_FILE):
        shutil.rmtree(spool, ignore_errors=True)


def rounds_of(spool: Path) -> int:
    """Count the rounds that were closed in a spool (0 if there is none)."""
    from pmlkit.xen.frames import Frame

    try:
        return sum(kind == Frame.ROUND for kind, _ in read_spool(spool))
    except PmlkitError:
        return 0


def collect(
    guest: LabGuest, spool: Path, options: LabOptions, progress: Tell = lambda _: None
) -> None:
    """Run a guest and fill a spool folder: frames.spool, console.txt, guest.txt, job.json.

    Parameters
    ----------
    guest : LabGuest
    spool : Path
        An empty folder.
    options : LabOptions
    progress : callable
    """
    memory_mib = options.memory_mib or guest.memory_mib
    check(options, memory_mib)
    lab = lab_for(options, memory_mib, progress)
    snapshot = lab.snapshot(progress) if options.snapshot else None
    job = describe(guest, options, memory_mib, lab)
    (spool / "job.json").write_text(json.dumps(job, indent=1))
    with tempfile.TemporaryDirectory(prefix="pmlkit-lab-") as scratch:
        folder = Path(scratch)
        run = RUN.format(body=options.script or AGENT)
        write_disks(folder, guest, job, run, out=spool / "out.img")
        try:
            growing = Growing(spool / "out.img", spool / FRAMES_FILE)
            _boot(lab, folder, snapshot, options, progress, growing)
        finally:
            _keep(folder / "console.txt", spool / "console.txt")
            _keep(folder / "bochs.out", spool / "bochs.txt")
            take_results(spool / "out.img", spool)
    _judge(read_text(spool / "console.txt"), spool, options)


def machine_mib(guest_mib: int) -> int:
    """Return the emulated machine's memory, MiB, for a guest's: few sizes, so few snapshots."""
    needed = DOM0_MIB + _XEN_MIB + guest_mib + guest_mib // 32  # Xen's tables grow with it
    hole = 1024 if needed > 3072 else 0  # the last GiB below 4 GiB belongs to devices
    return max(1024, -(-needed // 512) * 512) + hole


def describe(guest: LabGuest, options: LabOptions, memory_mib: int, lab: Lab) -> Json:
    """Return the job for dom0's agent, with the spool's header."""
    lockstep = guest.mailbox and options.lockstep
    header = {
        "source": "lab",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "guest": guest.name,
        "memory_bytes": memory_mib << 20,
        "guest_vcpus": options.vcpus or guest.vcpus,
        "regions": list(guest.regions),
        "ns_per_insn": 1e9 / INSN_PER_S,
        "versions": {**lab.versions, **guest.versions, "python": platform.python_version()},
        "options": dataclasses.asdict(options),
        "cmdline": guest.cmdline,
        "command": command("pmlkit.sources.lab.session.run"),
    }
    return {
        **options.log_options(),
        "mode": options.interface,
        "rounds": _rounds(options, guest),
        "lockstep": lockstep,
        "mailbox": guest.mailbox,
        "wait_for": "phase " if guest.linux and not options.boot else "",
        "stop_at": "exit " if guest.linux else "",
        "console": "/var/log/xen/console/guest-g.log",
        "phase_rounds": guest.linux and options.phase_rounds,
        "header": header,
    }


def _rounds(options: LabOptions, guest: LabGuest) -> int:
    return options.rounds or (0 if guest.linux else ROUNDS)


def _boot(
    lab: Lab,
    folder: Path,
    snapshot: Snapshot | None,
    options: LabOptions,
    progress: Tell,
    growing: Growing,
) -> None:
    """Run the machine to its end; report each milestone once, and copy the growing spool."""
    lab.prepare(folder)
    bochs = snapshot.restored(lab.bochs, folder) if snapshot else lab.bochs
    reported = set()
    with Machine(bochs, folder, _limits(options)) as machine:

        def report() -> None:
            text = machine.console()
            for start, words in _MILESTONES:
                if start in text and words not in reported:
                    reported.add(words)
                    progress(f"{machine.host_s:5.0f} s  {words}")
            check_faults(text)
            growing.copy()

        machine.wait(report)


def _limits(options: LabOptions) -> Limits:
    expected_s = options.rounds * options.period_s if options.rounds else _WORK_S
    return Limits(host_s=options.time_limit_s, guest_s=_GUEST_S + 2 * expected_s)


def _keep(path: Path, where: Path) -> None:
    if path.exists():
        shutil.copy(path, where)


def _judge(console: str, spool: Path, options: LabOptions) -> None:
    """Raise unless the job came to its end."""
    status = read_text(spool / "status").strip()
    if status == "0" or (status and options.script):
        return
    if not console.strip():
        raise GuestError("Bochs ended at once", read_text(spool / "bochs.txt"))
    reasons = [line for line in console.splitlines() if "LAB agent:" in line]
    if reasons:
        why = reasons[-1].partition("LAB agent:")[2].strip()
        raise GuestError(why, hint="look at the lab's console")
    raise GuestError(
        "dom0 did not finish the job", console[-4000:], "run it again with --keep, see console.txt"
    )


__all__ = ["Lab", "LabOptions", "build", "collect", "run"]
