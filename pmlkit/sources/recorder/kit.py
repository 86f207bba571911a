# SPDX-License-Identifier: Apache-2.0
"""Record a bare-metal guest of the lab's kit under QEMU.

In the lab, dom0 starts each of the guest's rounds, and closes a round of the log after it. Here,
the guest runs its rounds without waiting. Each is a phase, and each phase begins a round of the
recording. The guest's round ``n`` is therefore round ``n`` of the recording, and round ``n - 1`` of
the lab.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import signals
from pmlkit.errors import UsageError
from pmlkit.sources.guest.image import GuestImage
from pmlkit.sources.guest.workload import Workload
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.record import describe, unless_ended
from pmlkit.sources.recorder.recording import Recording, RecordOptions
from pmlkit.sources.spooling import claim
from pmlkit.spool_reader import release
from pmlkit.units import check_memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pmlkit.signals import Noted
    from pmlkit.sources.lab.guests import LabGuest
    from pmlkit.sources.recorder.recording import Progress
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


ROUNDS = 8
_NO_PERIOD = qemu.Period("insn", 10**15)  # rounds end at the guest's marks only


def is_kit_guest(spec: PathLike) -> bool:
    """Whether a name or path refers to a guest of the kit, not to a workload."""
    path = Path(spec)
    is_source = path.suffix == ".c" and path.is_file() and lab_guests.uses_kit(path)
    return is_source or str(spec) in lab_guests.shipped()


def record_kit(
    spec: PathLike,
    out: PathLike,
    options: RecordOptions | None = None,
    settings: Mapping[str, str] | None = None,
    rounds: int = ROUNDS,
    progress: Callable[[Progress], object] | None = None,
) -> Trace:
    """Boot a guest of the kit in QEMU and record it: each of its rounds is one round of the trace.

    Parameters
    ----------
    spec : str or path-like
        A bundled guest's name, or a C file for the kit.
    out : path-like
        The trace to write, ``NAME.trace``.
    options : RecordOptions, optional
        `window` is ignored: the rounds are the guest's.
    settings : dict of str to str, optional
        The guest's options.
    rounds : int
        Number of rounds that it runs, up to 999.
    progress : callable, optional
        As for `pmlkit.sources.recorder.record`.

    Returns
    -------
    Trace
        Round 0 contains the accesses before the guest's first round (and counts as `round001`).

    Raises
    ------
    MissingTool, WorkloadError, GuestError, OutputExists, OutputError, UsageError
    """
    from pmlkit.sources.ingest import ingest

    options = options or RecordOptions()
    guest = lab_guests.load(spec, settings)
    _check(guest, rounds)
    memory_mib = options.memory_mib or guest.memory_mib
    check_memory_mib(memory_mib, qemu.MEMORY_MIB, "the recorder")
    out, spool = claim(out, options.overwrite)
    try:
        with signals.noted() as stop:
            _run(guest, spool, options, memory_mib, rounds, progress, stop)
            trace = ingest(spool, out, overwrite=options.overwrite)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
        release(spool)
    return unless_ended(trace, stop)


def _check(guest: LabGuest, rounds: int) -> None:
    if guest.vcpus > 1:
        raise UsageError(
            f"the guest {guest.name} has {guest.vcpus} processors, and the recorder's QEMU has one",
            f"run it in the lab: pmlkit lab run {guest.name}",
        )
    if not 1 <= rounds <= 999:
        raise UsageError(f"{rounds} rounds cannot be recorded", "give 1 to 999")


def _run(
    guest: LabGuest,
    spool: Path,
    options: RecordOptions,
    memory_mib: int,
    rounds: int,
    progress: Callable[[Progress], object] | None,
    stop: Noted,
) -> None:
    qemu_version, plugin = qemu.version(), qemu.build_plugin()
    cmdline = f"{guest.cmdline} rounds={rounds} {options.cmdline}".strip()
    workload = Workload(name=guest.name, summary=guest.summary, command="")
    image = GuestImage(guest.kernel, None, cmdline, guest.versions, workload)
    options = replace(options, boot=False)
    header = describe(workload, options, memory_mib, _NO_PERIOD, image, qemu_version)
    header["period"] = {"ns": None, "insn": None}
    with Recording(spool, header, options, progress, stop) as run:
        run.boot(image, memory_mib, plugin, _NO_PERIOD)
        run.listen()
        run.judge()
    with open(spool / "report.txt", "a") as report:
        report.writelines(_report(guest, memory_mib, rounds))


def _report(guest: LabGuest, memory_mib: int, rounds: int) -> Iterator[str]:
    """Yield the lines of a report, which a Linux guest writes and a guest of the kit cannot."""
    yield f"memory 00000000-{(memory_mib << 20) - 1:08x} : System RAM\n"
    for region in guest.regions:
        yield f"region {region['name']} {region['gfn']} {region['pages']}\n"
        for kind, pages in lab_guests.known_of(region).items():
            for number in range(1, rounds + 1):
                yield f"expect round{number:03} {region['name']} {kind} {pages}\n"
