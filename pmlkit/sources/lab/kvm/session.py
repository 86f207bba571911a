# SPDX-License-Identifier: Apache-2.0
"""Run and log a guest under Debian's own KVM, on an emulated processor with PML.

Bochs boots Debian's unmodified kernel. It runs two programs: a small monitor, which logs its
guest's dirty pages like any VMM, and the agent of `pmlkit.kvm`, as on any host.
"""

from __future__ import annotations

import json
import platform
import shlex
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, UsageError
from pmlkit.files import cache_folder, scratch_folder
from pmlkit.kvm import shipping
from pmlkit.kvm.frames import Frame
from pmlkit.kvm.job import CAPTURES, PAGE_TABLES
from pmlkit.recordings import need_clone
from pmlkit.sources.guest.programs import compile_cached, with_bytecode
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.bochs import INSN_PER_S, Limits
from pmlkit.sources.lab.disks import SPOOL_AT, Growing, take_results, write_job
from pmlkit.sources.lab.kvm import qemu
from pmlkit.sources.lab.kvm.image import HERE, KERNELS, assemble
from pmlkit.sources.lab.parts import userland
from pmlkit.sources.lab.session import boot, keep_texts, to_trace
from pmlkit.sources.spooling import command, read_text
from pmlkit.spool import FRAMES_FILE
from pmlkit.units import check_memory_mib

if TYPE_CHECKING:
    from pmlkit.sources.lab.guests import LabGuest
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["KvmLabOptions", "collect", "run"]

LOGS = ("ring", "bitmap")
VMMS = ("own", "qemu")
ROUNDS = 8
VCPUS = 4  # most vCPUs of Linux; a guest of the kit has at most 2
MEMORY_LIMITS_MIB = (lab_guests.MEMORY_MIB, 1024)
_HOST_MIB = 448  # memory of the host itself, which includes its root and the job
_REST_US = 3_000_000  # by the emulated clock, which an idle host passes quickly
_RING = 65536  # entries of a ring: KVM's maximum
_MILESTONES = (
    ("the host is up", "the host is up"),
    ("job starts", "the host has the job"),
    ("guest waits", "the guest is set up"),
    ("guest ended", "the guest has been logged"),
    ("job ended", "the host has written the results"),
)


@dataclass(frozen=True)
class KvmLabOptions:
    """Options for a guest in the KVM lab.

    Attributes
    ----------
    kernel : {"6.1", "6.12"}
        The host's Linux.
    vmm : {"own", "qemu"}
        Our small monitor, or Debian's QEMU, which logs for its ``calc-dirty-rate``. QEMU runs
        guests of the kit with one vCPU, without lock step.
    log : {"ring", "bitmap"}
        The log of KVM that the VMM requests.
    capture : {"ftrace", "bpf", "auto"}
        How the agent captures entries.
    pml : bool
        False: kvm_intel's parameter ``pml=0``, which logs with write faults.
    huge : bool
        Transparent huge pages for the guest.
    rounds : int
        0: 8 rounds; for a Linux guest, all rounds until its work is done.
    period_s : float
        Length of a round, emulated seconds; not used in lock step. For QEMU at least 1 s.
    lockstep : bool
        For a guest of the kit: one of its rounds in each round of the log. Without it, each round
        of the log has at least one whole round of the guest.
    memory_mib, vcpus : int, optional
        The guest's memory; default: as the guest requires.
    settings : dict
        Options of the guest.
    boot : bool
        Linux: also log its boot.
    page_tables : {"off", "mark", "snapshot"}
        As in `pmlkit.kvm.job.KvmOptions`. In lock step, the guest then pauses after each round. Its
        rounds would otherwise be shorter than the collector's examination of its memory.
    snapshot : bool
        Start from a saved state of the host.
    script : str
        A shell script that the host runs instead of its own (tests).
    time_limit_s : float
        Time limit on this machine, seconds.
    overwrite, keep : bool
        Replace an existing trace; keep the spool next to the trace.
    """

    kernel: str = "6.1"
    vmm: str = "own"
    log: str = "ring"
    capture: str = "ftrace"
    pml: bool = True
    huge: bool = False
    rounds: int = 0
    period_s: float = 0.2
    lockstep: bool = True
    memory_mib: int | None = None
    vcpus: int | None = None
    settings: Json = field(default_factory=dict)
    boot: bool = False
    page_tables: str = "off"
    snapshot: bool = True
    script: str = ""
    time_limit_s: float = 1500
    overwrite: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        for name, values in (
            ("kernel", tuple(KERNELS)),
            ("log", LOGS),
            ("vmm", VMMS),
            ("capture", CAPTURES),
            ("page_tables", PAGE_TABLES),
        ):
            if getattr(self, name) not in values:
                raise UsageError(
                    f"the KVM lab has no {name} {getattr(self, name)!r}",
                    f"it has {' and '.join(values)}",
                )


def run(
    guest: LabGuest | PathLike,
    out: PathLike,
    options: KvmLabOptions | None = None,
    progress: Tell | None = None,
) -> Trace:
    """Boot the KVM lab with a guest and create a trace of its log.

    Parameters
    ----------
    guest : LabGuest, str or Path
        A guest, in the forms of `pmlkit.sources.lab.guests.load`.
    out : path-like
        The trace to write, ``NAME.trace``.
    options : KvmLabOptions, optional
    progress : callable, optional
        Function that is called with a line of text at each milestone.

    Raises
    ------
    MissingTool, PackageError, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    options, progress = options or KvmLabOptions(), progress or (lambda _: None)
    need_clone("the lab")
    if not isinstance(guest, lab_guests.LabGuest):
        guest = lab_guests.load(guest, options.settings, progress, serial=True)
    fill = partial(collect, guest, options=options, progress=progress)
    return to_trace(fill, out, options.overwrite, options.keep, Frame.ROUND)


def collect(
    guest: LabGuest, spool: Path, options: KvmLabOptions, progress: Tell = lambda _: None
) -> None:
    """Run a guest and fill a spool folder."""
    memory_mib, vcpus = options.memory_mib or guest.memory_mib, options.vcpus or guest.vcpus
    _check(guest, memory_mib, vcpus)
    if options.boot and not guest.linux:
        raise UsageError(f"{guest.name} has no boot to log", "leave out --boot")
    if options.vmm == "qemu":
        _check_for_qemu(guest, options)
    lab = assemble(options.kernel, machine_mib(memory_mib), progress)
    snapshot = lab.snapshot(progress) if options.snapshot else None
    vmm, versions = _vmm(options, progress)
    job = describe(guest, options, memory_mib, vcpus, {**lab.versions, **versions})
    (spool / "job.json").write_text(json.dumps(job, indent=1))
    files = {
        **with_bytecode(shipping.files(), userland(progress).root),
        **vmm,
        "kernel": guest.kernel.read_bytes(),
        "ramdisk": guest.ramdisk or b"",
        "job.json": json.dumps(job).encode(),
        "run": _script(guest, options, memory_mib, vcpus).encode(),
    }
    with scratch_folder("pmlkit-lab-") as scratch:
        folder = Path(scratch)
        write_job(folder, guest.name, files, out=spool / "out.img")
        try:
            growing = Growing(spool / "out.img", spool / FRAMES_FILE)
            limits = Limits.of_job(options.rounds, options.period_s, options.time_limit_s)
            boot(lab, folder, snapshot, limits, _MILESTONES, progress, growing)
        finally:
            keep_texts(folder, spool)
            take_results(spool / "out.img", spool)
    _judge(spool, options)


def _vmm(options: KvmLabOptions, progress: Tell) -> tuple[dict[str, bytes], Json]:
    """Return the VMM's files for the host, and its version."""
    if options.vmm == "own":
        return {"vmm": monitor().read_bytes()}, {}
    files, version = qemu.files(progress)
    return files, {"qemu": version}


def monitor() -> Path:
    """Return the monitor, a static program that is compiled at the first call."""
    folder = HERE / "vmm"
    sources = sorted(folder.glob("*.c"))
    arguments = ["-O2", "-static", "-pthread", *map(str, sources)]
    inputs = [*sources, folder / "vmm.h"]

    def failure(line: str) -> GuestError:
        return GuestError(f"the KVM lab's monitor does not compile: {line}", hint="report it")

    return compile_cached(cache_folder() / "lab" / "kvm" / "vmm", arguments, inputs, failure)


def machine_mib(guest_mib: int) -> int:
    """Return a machine's memory for a guest, MiB: one of few sizes with a saved state each."""
    return max(768, -(-(_HOST_MIB + guest_mib) // 256) * 256)


def _check(guest: LabGuest, memory_mib: int, vcpus: int) -> None:
    check_memory_mib(memory_mib, MEMORY_LIMITS_MIB, "the KVM lab")
    most = VCPUS if guest.linux else 2
    if vcpus > most:
        raise UsageError(f"{guest.name} cannot have {vcpus} vCPUs", f"1 to {most} in the KVM lab")


def _check_for_qemu(guest: LabGuest, options: KvmLabOptions) -> None:
    if not guest.mailbox:
        what = f"QEMU does not run {guest.name} in the lab: it runs guests of the kit"
        raise UsageError(what, "leave out --vmm qemu")
    if options.huge:
        what = "QEMU chooses huge pages by itself"
        raise UsageError(what, "leave out --transparent-hugepages")
    if options.period_s != int(options.period_s) or options.period_s < 1:
        what = (
            f"QEMU does not support measurements of {options.period_s:g} s: a period must be "
            "whole seconds"
        )
        raise UsageError(what, "give --period 1s")


def describe(
    guest: LabGuest, options: KvmLabOptions, memory_mib: int, vcpus: int, versions: Json
) -> Json:
    """Return the agent's job, including the contents of the spool's header."""
    header = {
        "source": "lab-kvm",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "domain": {"name": guest.name, "memory_bytes": memory_mib << 20, "vcpus": vcpus},
        "regions": list(guest.regions),
        "ns_per_insn": 1e9 / INSN_PER_S,
        "versions": {**versions, **guest.versions, "python": platform.python_version()},
        "options": asdict(options),
        "command": command("pmlkit.sources.lab.kvm.session.run"),
    }
    job = {"capture": options.capture, "page_tables": options.page_tables, "header": header}
    if options.vmm == "own":
        return {"switch": "listen", "ready": "/job/go", **job}
    rounds = options.rounds or ROUNDS
    return {"switch": "qmp", "rounds": rounds, "period_s": options.period_s, **job}


def _script(guest: LabGuest, options: KvmLabOptions, memory_mib: int, vcpus: int) -> str:
    values = {
        "KVM_INTEL": kvm_parameters(options),
        "VMM": shlex.join(vmms_words(guest, options, memory_mib, vcpus)),
        "JOB": options.vmm,
        "SPOOL_BLOCK": str(SPOOL_AT >> 16),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, options.script or (HERE / "run.sh").read_text()])


def kvm_parameters(options: KvmLabOptions) -> str:
    """Return the parameters of kvm_intel."""
    # apicv=0: Bochs rejects the address of the posted-interrupt descriptor.
    return f"enable_apicv=0 pml={int(options.pml)}"


def vmms_words(guest: LabGuest, options: KvmLabOptions, memory_mib: int, vcpus: int) -> list[str]:
    """Return the VMM's command line."""
    ring = _RING if options.log == "ring" else 0
    if options.vmm == "qemu":
        return qemu.arguments(guest.name, memory_mib, vcpus, guest.cmdline, ring)
    arguments = ["--memory", memory_mib, "--vcpus", vcpus, "--go", "/job/go"]
    if rounds := options.rounds or (0 if guest.linux else ROUNDS):
        arguments += ["--rounds", rounds]
    if ring:
        arguments += ["--ring", ring]
    if options.huge:
        arguments.append("--huge")
    cmdline = guest.cmdline
    if guest.mailbox:
        arguments.append("--kit")
        cmdline = f"vmm={memory_mib} {cmdline}"
    if guest.ramdisk is not None:
        arguments += ["--ramdisk", "/job/ramdisk"]
    if guest.linux and not options.boot:
        arguments += ["--wait-for", "phase "]
    if not (guest.mailbox and options.lockstep):
        arguments += ["--period-us", round(options.period_s * 1e6)]
    elif options.page_tables != "off":
        arguments += ["--rest-us", _REST_US]
    arguments += ["--cmdline", cmdline, "/job/kernel"]
    return [str(word) for word in arguments]


def _judge(spool: Path, options: KvmLabOptions) -> None:
    """Raise `GuestError` unless the job finished."""
    status = read_text(spool / "status").strip()
    if status == "0" or (status and options.script):
        return
    for name, sign in (
        ("vmm.txt", "vmm: "),
        ("vmm.txt", "qemu: "),
        ("agent.txt", "agent: error: "),
    ):
        reasons = [line for line in read_text(spool / name).splitlines() if sign in line]
        if reasons:
            raise GuestError(reasons[-1].partition(sign)[2].strip(), hint="see its console")
    console = read_text(spool / "console.txt")
    if not console.strip():
        raise GuestError("Bochs ended immediately", read_text(spool / "bochs.txt"))
    raise GuestError("the host did not finish the job", console[-4000:], "run it again with --keep")
