# SPDX-License-Identifier: Apache-2.0
"""Run and log a guest under a real Xen, on an emulated processor with PML.

Bochs boots Xen with Debian's kernel as dom0. dom0 reads a job from a disk, starts the guest, and
logs it (`pmlkit.xen.agent`). It writes the spool to another disk, and powers the machine off. The
spool is copied from that disk while it grows, so that the run can be observed
(`sources.watch.Follower`).
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, PmlkitError, UsageError
from pmlkit.files import scratch_folder
from pmlkit.recordings import need_clone
from pmlkit.signals import Ended
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.bochs import INSN_PER_S, Limits, Machine
from pmlkit.sources.lab.boot import DOM0_MIB, Lab, assemble, check_faults
from pmlkit.sources.lab.disks import AGENT, RUN, Growing, take_results, write_disks
from pmlkit.sources.lab.parts import STOCK
from pmlkit.sources.spooling import command, read_text
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import holds_frames, read_spool, release
from pmlkit.units import check_memory_mib
from pmlkit.xen.frames import Frame
from pmlkit.xen.job import PAGE_TABLES, LogOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pmlkit.sources.lab.boot import Snapshot
    from pmlkit.sources.lab.guests import LabGuest
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike, Tell


MEMORY_LIMITS_MIB = (lab_guests.MEMORY_MIB, 4096)  # a larger machine does not boot (measured)
ROUNDS = 8
_XEN_MIB = 224  # memory for Xen, its tables, and its data on a guest
# Texts on dom0's console, and the progress messages for them.
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


@dataclass(frozen=True)
class LabOptions(LogOptions):
    """Options for a guest in the lab: `pmlkit.xen.job.LogOptions`, and the machine.

    `mode` "auto" selects the patched interface, unless `stock` is set. `rounds` 0 means 8 rounds;
    for a Linux guest, all rounds until its work is done. `period_s` is time of the emulated clock.
    `lockstep` applies to guests that are made with the kit.

    Attributes
    ----------
    memory_mib, vcpus : int, optional
        The guest's memory; default: as the guest requires.
    hvm : bool
        Start the guest as an HVM domain, with a device model without devices. Default: PVH.
    qemu : bool
        With `hvm`: the device model is Debian's QEMU, which has a VGA.
    phase_rounds : bool
        Linux: end a round where the workload marks a phase, so that no round spans two phases.
    stock : bool
        Debian's unpatched Xen, and stock log-dirty.
    xen : {"4.17", "4.20"}
        With `stock`: Debian 12's Xen, or Debian 13's.
    xen_debug : bool
        Use a debug build of the patched Xen, which also detects undefined behaviour.
    xen_preempt : bool
        The same, and operations on the log are interrupted at each possible point.
    xen_source : str, optional
        A source tree of Xen to build, with or without the series; default: Debian's source.
    xen_cmdline : str
        Added to Xen's command line.
    fast : bool
        With `stock`: use our build of Bochs, which is faster. The patched Xen always uses it.
    snapshot : bool
        Start from a saved state of dom0 (needs `fast`).
    settings : dict
        Options of the guest.
    boot : bool
        Linux: also log its boot.
    script : str
        A shell script that dom0 runs instead of the agent (tests).
    time_limit_s : float
        Time limit on the host, seconds.
    overwrite, keep : bool
        Replace an existing trace; keep the spool next to the trace.
    """

    period_s: float = 0.2
    lockstep: bool = True
    memory_mib: int | None = None
    vcpus: int | None = None
    hvm: bool = False
    qemu: bool = False
    phase_rounds: bool = True
    stock: bool = False
    xen: str = "4.17"
    xen_debug: bool = False
    xen_preempt: bool = False
    xen_source: str | None = None
    xen_cmdline: str = ""
    fast: bool = False
    snapshot: bool = True
    settings: Json = field(default_factory=dict)
    boot: bool = False
    script: str = ""
    time_limit_s: float = 1500
    overwrite: bool = False
    keep: bool = False

    @property
    def xen_build(self) -> str:
        """The build of the patched Xen to boot, named as in `pmlkit.sources.lab.xen.patched`."""
        return "preempt" if self.xen_preempt else "debug" if self.xen_debug else "release"

    @property
    def interface(self) -> str:
        """The interface for logging, "pml" or "stock"."""
        if self.mode != "auto":
            return self.mode
        return "stock" if self.stock else "pml"


def check(options: LabOptions, memory_mib: int) -> None:
    """Raise `UsageError` for options that the lab does not support with this guest memory."""
    if options.stock and options.xen_source:
        raise UsageError("--stock is Debian's Xen", "leave out --stock or --xen-source")
    if options.qemu and not options.hvm:
        raise UsageError("--qemu is the device model of an HVM domain", "add --hvm")
    if options.stock and options.xen_build != "release":
        raise UsageError(
            "--stock is Debian's build of Xen", "leave out --stock, or --xen-debug and -preempt"
        )
    if options.xen not in STOCK:
        raise UsageError(f"Debian's Xen {options.xen} is not known", f"choose {' or '.join(STOCK)}")
    if options.xen != "4.17" and not options.stock:
        raise UsageError(
            f"--xen {options.xen} is Debian's binary", "add --stock, or name a tree by --xen-source"
        )
    check_memory_mib(memory_mib, MEMORY_LIMITS_MIB, "the lab")
    snapshots = "snapshots" in PAGE_TABLES[options.page_tables]
    if options.interface == "stock" and (options.harvest or snapshots):
        what = "a harvest" if options.harvest else "snapshots of page tables"
        raise UsageError(f"{what} needs the patched Xen's interface", "leave out --stock")
    if options.harvest in ("guided", "both") and options.page_tables == "off":
        why = f"harvest {options.harvest} needs the page tables in the log"
        raise UsageError(why, "choose --page-tables mark or snapshot")


def lab_for(options: LabOptions, memory_mib: int, progress: Tell | None = None) -> Lab:
    """Return the lab for these options, with enough memory for a guest of `memory_mib`."""
    need_clone("the lab")
    return assemble(
        stock=options.xen if options.stock else "",
        build=options.xen_build,
        xen_source=options.xen_source,
        fast=options.fast,
        xen_cmdline=options.xen_cmdline,
        memory_mib=machine_mib(memory_mib),
        progress=progress,
    )


def build(options: LabOptions | None = None, progress: Tell | None = None) -> Lab:
    """Fetch and build all parts of a run, so that the next one starts without delay.

    Parameters
    ----------
    options : LabOptions, optional
    progress : callable, optional
        Called with a line of text before each slow step.

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
    """Boot the lab with a guest and create a trace of its log.

    Parameters
    ----------
    guest : LabGuest, str or Path
        A guest, in the forms of `pmlkit.sources.lab.guests.load`.
    out : path-like
        The trace to write, ``NAME.trace``.
    options : LabOptions, optional
    progress : callable, optional
        Called with a line of text at each milestone.

    Raises
    ------
    MissingTool, PackageError, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    options, progress = options or LabOptions(), progress or (lambda _: None)
    need_clone("the lab")
    if not isinstance(guest, lab_guests.LabGuest):
        guest = lab_guests.load(guest, options.settings, progress)
    fill = partial(collect, guest, options=options, progress=progress)
    return to_trace(fill, out, options.overwrite, options.keep)


def to_trace(
    fill: Callable[[Path], object],
    out: PathLike,
    overwrite: bool,
    keep: bool,
    closed: int = Frame.ROUND,
) -> Trace:
    """Fill a spool folder and create a trace from it; a failure names the logged rounds.

    `closed` is as in `rounds_of`.
    """
    from pmlkit.sources.ingest import finish
    from pmlkit.sources.spooling import claim

    out, spool = claim(out, overwrite)
    try:
        fill(spool)
        return finish(spool, out, overwrite, keep)
    except BaseException as error:
        keep_spool(error, spool, out, rounds_of(spool / FRAMES_FILE, closed), keep)
        raise
    finally:
        release(spool)


def keep_spool(
    error: BaseException, spool: Path, out: PathLike, rounds: int, keep: bool = False
) -> None:
    """Add to the error the location of the logged rounds; remove a spool without frames."""
    from pmlkit.sources.ingest import ingest_command

    if rounds:
        kept = f"{rounds} rounds are kept: {ingest_command(spool, out)} converts them to a trace"
        if isinstance(error, PmlkitError):
            error.add(kept)
        elif isinstance(error, KeyboardInterrupt):
            raise Ended(getattr(error, "number", signal.SIGINT), kept) from error
    elif not keep and not holds_frames(spool / FRAMES_FILE):
        shutil.rmtree(spool, ignore_errors=True)


def rounds_of(spool: Path, closed: int = Frame.ROUND) -> int:
    """Count the closed rounds in a spool (0 if there is none).

    `closed` is the kind of frame that marks them.
    """
    try:
        return sum(kind == closed for kind, _ in read_spool(spool))
    except PmlkitError:
        return 0


def collect(
    guest: LabGuest,
    spool: Path,
    options: LabOptions,
    progress: Tell = lambda _: None,
    lab: Lab | None = None,
) -> None:
    """Run a guest and fill a spool folder: frames.spool, console.txt, guest.txt, job.json.

    `lab` replaces the lab that the options select.
    """
    memory_mib = options.memory_mib or guest.memory_mib
    check(options, memory_mib)
    lab = lab or lab_for(options, memory_mib, progress)
    snapshot = lab.snapshot(progress) if options.snapshot else None
    job = describe(guest, options, memory_mib, lab)
    (spool / "job.json").write_text(json.dumps(job, indent=1))
    with scratch_folder("pmlkit-lab-") as scratch:
        folder = Path(scratch)
        run = RUN.format(body=options.script or AGENT)
        write_disks(folder, guest, job, run, out=spool / "out.img")
        try:
            growing = Growing(spool / "out.img", spool / FRAMES_FILE)
            limits = Limits.of_job(options.rounds, options.period_s, options.time_limit_s)
            boot(lab, folder, snapshot, limits, _MILESTONES, progress, growing)
        finally:
            keep_texts(folder, spool)
            take_results(spool / "out.img", spool)
    _judge(read_text(spool / "console.txt"), spool, options)


def machine_mib(guest_mib: int) -> int:
    """Return the memory of a machine for a guest, MiB.

    There are few sizes, because each has its own snapshot.
    """
    needed = DOM0_MIB + _XEN_MIB + guest_mib + guest_mib // 32  # Xen's tables grow with the guest
    hole = 1024 if needed > 3072 else 0  # the last GiB below 4 GiB belongs to devices
    return max(1024, -(-needed // 512) * 512) + hole


def describe(guest: LabGuest, options: LabOptions, memory_mib: int, lab: Lab) -> Json:
    """Return the job for dom0's agent, with the spool's header."""
    if options.hvm and guest.linux:
        problem = f"{guest.name} is a Linux guest: HVM domains of the lab have no devices"
        raise UsageError(problem, "leave out --hvm, or run a guest that is made with the kit")
    header = {
        "source": "lab",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "guest": guest.name,
        "memory_bytes": memory_mib << 20,
        "guest_vcpus": options.vcpus or guest.vcpus,
        "regions": list(guest.regions),
        "ns_per_insn": 1e9 / INSN_PER_S,
        "versions": {**lab.versions, **guest.versions, "python": platform.python_version()},
        "options": asdict(options),
        "cmdline": guest.cmdline,
        "command": command("pmlkit.sources.lab.session.run"),
    }
    return {
        **options.log_options(),
        "mode": options.interface,
        "rounds": options.rounds or (0 if guest.linux else ROUNDS),
        "lockstep": guest.mailbox and options.lockstep,
        "hvm": options.hvm,
        "qemu": options.qemu,
        "mailbox": guest.mailbox,
        "wait_for": "phase " if guest.linux and not options.boot else "",
        "stop_at": "exit " if guest.linux else "",
        "console": "/var/log/xen/console/guest-g.log",
        "phase_rounds": guest.linux and options.phase_rounds,
        "header": header,
    }


def boot(
    lab: Lab,
    folder: Path,
    snapshot: Snapshot | None,
    limits: Limits,
    milestones: Iterable[tuple[str, str]],
    progress: Tell,
    growing: Growing,
) -> None:
    """Run the machine to its end; report its milestones, and copy the spool as it grows."""
    lab.prepare(folder)
    bochs = snapshot.restored(lab.bochs, folder) if snapshot else lab.bochs
    reported = set()
    with Machine(bochs, folder, limits) as machine:

        def report() -> None:
            text = machine.console()
            for sign, milestone in milestones:
                if sign in text and milestone not in reported:
                    reported.add(milestone)
                    progress(f"{machine.host_s:5.0f} s  {milestone}")
            check_faults(text)
            growing.copy()

        machine.wait(report)


def keep_texts(folder: Path, spool: Path) -> None:
    """Copy the console and the emulator's output from a run's folder to its spool."""
    for name, kept in (("console.txt", "console.txt"), ("bochs.out", "bochs.txt")):
        if (folder / name).exists():
            shutil.copy(folder / name, spool / kept)


def _judge(console: str, spool: Path, options: LabOptions) -> None:
    """Raise `GuestError` unless the job finished."""
    status = read_text(spool / "status").strip()
    if status == "0" or (status and options.script):
        return
    if not console.strip():
        raise GuestError("Bochs ended immediately", read_text(spool / "bochs.txt"))
    reasons = [line for line in console.splitlines() if "LAB agent:" in line]
    if reasons:
        why = reasons[-1].partition("LAB agent:")[2].strip()
        raise GuestError(why, hint="see the lab's console")
    raise GuestError(
        "dom0 did not finish the job", console[-4000:], "run it again with --keep, see console.txt"
    )


__all__ = ["Lab", "LabOptions", "build", "collect", "run"]
