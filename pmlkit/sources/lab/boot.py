# SPDX-License-Identifier: Apache-2.0
"""The assembled lab: Xen, dom0, the boot medium, Bochs, and dom0's saved state."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, output_error
from pmlkit.files import cache_folder
from pmlkit.sources.lab import image, parts
from pmlkit.sources.lab import xen as lab_xen
from pmlkit.sources.lab.bochs import (
    DISK_UNIT,
    Bochs,
    Limits,
    Machine,
    configuration,
    fast_bochs,
    packaged_bochs,
)

if TYPE_CHECKING:
    from pmlkit.sources.lab.parts import Xen
    from pmlkit.types import PathLike, Tell


DOM0_MIB = 400
# The disks have the same sizes in every run, because a saved state contains them.
JOB_UNITS, OUT_UNITS = 320, 2080
_FAULTS = re.compile(
    r"Panic on CPU|Xen BUG|Xen WARN|UBSAN:|Assertion '.*' failed|Kernel panic|FATAL TRAP"
)
_KEPT_SNAPSHOTS = 5  # saved states that are kept, each about 0.4 GiB


@dataclass(frozen=True)
class Lab:
    """The parts of a run except the guest: boot medium, emulator, the machine's memory."""

    iso: Path
    bochs: Bochs
    memory_mib: int
    versions: dict[str, str]

    def snapshot(self, progress: Tell | None = None) -> Snapshot | None:
        """Return the state of a booted machine; created at the first call.

        Returns None if this Bochs cannot save its state: only our build can.
        """
        if self.bochs.debugger:
            return None
        disks = f"{JOB_UNITS} {OUT_UNITS}"
        facts = f"{self.iso.name} {self.memory_mib} {self.bochs.version} {disks}"
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        folder = cache_folder() / "lab" / "snapshots" / key
        if not folder.exists():
            (progress or (lambda _: None))("booting once, to save the state (about a minute)")
            self._save(folder)
            _prune(folder.parent)
        os.utime(folder)  # `_prune` keeps those that were used last
        return Snapshot(folder)

    def _save(self, where: Path) -> None:
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=where.parent, prefix=".new-")
        except OSError as error:
            raise output_error(where, error) from error
        with scratch as new:
            folder, state = Path(new), Path(new) / "state"
            state.mkdir()
            self.prepare(folder)
            for name, units in (("job.img", JOB_UNITS), ("out.img", OUT_UNITS)):
                with open(folder / name, "wb") as disk:
                    disk.truncate(units * DISK_UNIT)
            environment = {**self.bochs.environment, "LAB_SNAPSHOT": str(state)}
            saver = replace(self.bochs, environment=environment)
            with Machine(saver, folder, Limits()) as machine:
                machine.wait(lambda: check_faults(machine.console()))
                if machine.process.returncode or not (state / "memory.ram").exists():
                    raise GuestError("the machine's state was not saved", machine.console()[-4000:])
            (state / "folder").write_text(str(folder))  # the state's config has paths below it
            shutil.copy(folder / "console.txt", state / "console.txt")
            _make_sparse(state / "memory.ram")
            try:
                state.replace(where)
            except OSError as error:  # another process was faster: its state is equivalent
                if not where.exists():
                    raise output_error(where, error) from error

    def prepare(self, folder: Path, console: PathLike | None = None) -> None:
        """Copy the medium and Bochs' configuration to a run's folder.

        `console` is the first serial port's mode and device; default: the file console.txt.
        """
        (folder / "lab.iso").symlink_to(self.iso)
        template = (image.LAB / "bochsrc.in").read_text()
        console = console or f"mode=file, dev={folder}/console.txt"
        text = configuration(self.bochs, template, folder, self.memory_mib, console)
        (folder / "bochsrc").write_text(text)


@dataclass(frozen=True)
class Snapshot:
    """A saved state of the machine, without its disks."""

    folder: Path

    def restored(self, machine: Bochs, folder: Path, console: PathLike | None = None) -> Bochs:
        """Return a Bochs that starts from this state, with the disks and logs of `folder`."""
        state = folder / "state"
        state.mkdir()
        old = (self.folder / "folder").read_text()
        for path in self.folder.iterdir():
            if path.name == "config":
                text = path.read_text().replace(old + "/", f"{folder}/")
                (state / "config").write_text(_with_console(text, console))
            elif path.name not in ("folder", "console.txt"):
                (state / path.name).symlink_to(path)
        command = (*machine.command, "-r", str(state))
        return replace(machine, command=command)


def _with_console(text: str, console: PathLike | None) -> str:
    if not console:
        return text
    return re.sub(r"^com1:.*$", lambda _: f"com1: enabled=1, {console}", text, flags=re.M)


def check_faults(console: str) -> None:
    """Raise `GuestError` if the console has a fault that Xen or dom0's kernel reported."""
    if fault := _FAULTS.search(console):
        raise GuestError(fault[0], hint="run it again with --keep, and read console.txt")


def _make_sparse(path: Path) -> None:
    """Replace zeroes by holes: most of the machine's memory was never used."""
    with open(path, "r+b") as file:
        size, at, unit = os.fstat(file.fileno()).st_size, 0, 1 << 20
        with open(path.with_suffix(".sparse"), "wb") as copy:
            copy.truncate(size)
            while data := file.read(unit):
                if data.strip(b"\0"):
                    copy.seek(at)
                    copy.write(data)
                at += len(data)
    path.with_suffix(".sparse").replace(path)


def _prune(folder: Path) -> None:
    newest = sorted(folder.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in newest[_KEPT_SNAPSHOTS:]:
        shutil.rmtree(old, ignore_errors=True)


def assemble(
    stock: str,
    build: str,
    fast: bool,
    xen_source: str | None,
    xen_cmdline: str,
    memory_mib: int,
    progress: Tell | None = None,
) -> Lab:
    """Fetch and build the parts of a lab that are missing in the cache.

    Parameters
    ----------
    stock : {"", "4.17", "4.20"}
        Debian's Xen of this version; default: the patched Xen.
    build : {"release", "debug", "preempt"}
        Build of the patched Xen: see `pmlkit.sources.lab.xen.patched`.
    fast : bool
        Use our build of Bochs even with Debian's Xen.
    xen_source : str, optional
        A source tree of Xen; default: Debian's.
    memory_mib : int
        The machine's memory.

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    if re.search(r"[\n{}]", xen_cmdline):
        raise GuestError("Xen's command line is one line, without braces")
    source = Path(xen_source).absolute() if xen_source else None
    xen = parts.stock_xen(progress, stock) if stock else lab_xen.patched(build, source, progress)
    # The patched Xen keeps an entry's kind in the low bits of its address, which a processor logs
    # as zeroes. Debian's Bochs 2.7 does not clear them.
    emulator = fast_bochs(progress) if fast or not stock else packaged_bochs(progress)
    return equip(xen, emulator, memory_mib, xen_cmdline, progress)


def equip(
    xen: Xen,
    emulator: Bochs,
    memory_mib: int,
    xen_cmdline: str = "",
    progress: Tell | None = None,
) -> Lab:
    """Return the lab for any Xen, with dom0.

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    userland, kernel = parts.userland(progress), parts.kernel(progress)
    iso = image.medium(xen, userland.root, kernel, xen_cmdline, DOM0_MIB, progress)
    versions = {**xen.versions, "linux (dom0)": kernel.version, "bochs": emulator.version}
    return Lab(iso, emulator, memory_mib, versions)
