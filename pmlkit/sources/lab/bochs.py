# SPDX-License-Identifier: Apache-2.0
"""Bochs: an emulated Intel processor that has VMX, EPT and Page Modification Logging.

Its clock and its TSC count instructions; 100 M of them are one second. A run can therefore be
repeated exactly, and a cost read with ``rdtsc`` is exact.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.files import cache_folder, scratch_folder
from pmlkit.recordings import PATCHES
from pmlkit.sources.guest import debian
from pmlkit.sources.guest.debian_source import fetch_source
from pmlkit.sources.lab.parts import firmware, need, unpacked_environment, write
from pmlkit.sources.spooling import read_text, with_us

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from pmlkit.types import PathLike, Tell


INSN_PER_S = 100_000_000
DISK_UNIT = 16 * 63 * 512  # bytes of a cylinder; disk images are multiples of it
_PACKAGES = ("bochs", "bochs-term")
# Dependencies of the packages that only the emulator's window needs.
_SKIP = (
    "adwaita-icon-theme", "dbus", "dpkg", "fonts-dejavu-core", "libgtk-3-common", "libperl5.36",
    "perl", "perl-base", "perl-modules-5.36", "systemd",
)  # fmt: skip
_HOST_MIB = 2048  # most of its machine's memory that Bochs keeps in RAM; the rest is in a file
_STALL_S = 60  # Bochs is deadlocked if it uses no processor time for this long
_POLL_S = 0.25
_WORK_S = 1800  # time limit of a guest that is logged to its end
_REST_OF_JOB_S = 900  # by the emulated clock


@dataclass(frozen=True)
class Bochs:
    """An emulator that can be started.

    Attributes
    ----------
    command : tuple of str
        Program and first arguments.
    gui : str
        The display line of its configuration.
    debugger : bool
        Whether it waits for a command at its start.
    """

    command: tuple[str, ...]
    gui: str
    version: str
    environment: dict[str, str] = field(default_factory=dict)
    debugger: bool = False


@dataclass(frozen=True)
class Limits:
    """Limits after which a run is stopped.

    Attributes
    ----------
    host_s : float
        Seconds of wall-clock time.
    guest_s : float
        Seconds of dom0's clock since its kernel started.
    quiet_s : float
        Seconds of wall-clock time in which that clock did not move.
    """

    host_s: float = 1500
    guest_s: float = 600
    quiet_s: float = 240

    @classmethod
    def of_job(cls, rounds: int, period_s: float, host_s: float) -> Self:
        """Return the limits of a job that logs a guest for some rounds; 0: to its end."""
        expected_s = rounds * period_s if rounds else _WORK_S
        return cls(host_s=host_s, guest_s=_REST_OF_JOB_S + 2 * expected_s)


def packaged_bochs(progress: Tell | None = None) -> Bochs:
    """Return Debian's Bochs, fetched with its libraries, without installation.

    Raises
    ------
    MissingTool, PackageError, OutputError
    """
    packages = debian.fetch(_PACKAGES, progress, skip=_SKIP)
    root, library = packages.root, packages.root / "usr/lib/x86_64-linux-gnu"
    environment = {
        "LTDL_LIBRARY_PATH": str(library / "bochs" / "plugins"),
        "BXSHARE": str(root / "usr/share/bochs"),
        "HOME": "/nonexistent",
    }
    paths = unpacked_environment(root)["LD_LIBRARY_PATH"]
    # Its own loader keeps its libraries apart from this machine's C library.
    loader = str(root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    command = (loader, "--library-path", paths, str(root / "usr/bin/bochs-bin"))
    # Bochs' default for the speaker makes it crash on a machine without sound.
    silent = "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy"
    gui = f'display_library: rfb, options="timeout=0"\n{silent}'
    return Bochs(command, gui, packages.versions["bochs"], environment, debugger=True)


def configuration(
    bochs: Bochs, template: str, folder: Path, memory_mib: int, console: PathLike
) -> str:
    """Fill in the template of Bochs' configuration.

    `folder` contains ``lab.iso``, ``job.img`` and ``out.img``; the logs go there. `console` is the
    first serial port's mode and device.
    """
    bios, vga = firmware()
    values = {
        "GUI": bochs.gui,
        "DIR": folder,
        "MEMORY": memory_mib,
        "HOST_MEMORY": min(memory_mib, _HOST_MIB),
        "BIOS": bios,
        "VGABIOS": vga,
        "CONSOLE": console,
    }
    return re.sub(r"@(\w+)@", lambda m: str(values[m[1]]), template)


class Machine:
    """A running Bochs with its serial console and clock; a context manager that ends it."""

    def __init__(self, bochs: Bochs, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = Path(folder), limits
        rest = []
        if bochs.debugger:
            (self.folder / "continue.rc").write_text("c\n")
            rest = ["-rc", str(self.folder / "continue.rc")]
        command = [*bochs.command, "-q", "-f", str(self.folder / "bochsrc"), *rest]
        with open(self.folder / "bochs.out", "wb") as out:
            self.process = subprocess.Popen(
                [*with_us(), *command],
                env={**os.environ, **bochs.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self.started = time.monotonic()
        # The last changes: when, and to what.
        self._output = (self.started, (0.0, 0))  # dom0's clock, length of the console's text
        self._cpu = (self.started, 0)  # ticks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def host_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def console(self) -> str:
        """Return the text of the serial console so far."""
        return read_text(self.folder / "console.txt")

    def guest_s(self) -> float:
        """Return dom0's clock, seconds since its kernel started (0: not yet)."""
        lines = read_text(self.folder / "pulse.txt").split()
        # The last line may be incomplete: two decimals show that it is not.
        complete = [line for line in lines if re.fullmatch(r"\d+\.\d\d", line)]
        return float(complete[-1]) if complete else 0.0

    def wait(self, each: Callable[[], object] = lambda: None) -> None:
        """Wait until the machine has powered off; call `each` a few times a second.

        Raises
        ------
        GuestError
            If a limit is reached, or the emulator makes no progress.
        """
        while self.process.poll() is None:
            self._check()
            each()
            time.sleep(_POLL_S)
        each()
        if self.process.returncode < 0:
            name = signal.Signals(-self.process.returncode).name
            self._fail(f"the emulator was killed ({name})", "run it again")

    def _check(self) -> None:
        now = time.monotonic()
        output = (self.guest_s(), len(self.console()))
        if output != self._output[1]:
            self._output = (now, output)
        state, cpu = _state(self.process.pid)
        if cpu != self._cpu[1] or state != "S":  # not for want of a processor or a disk
            self._cpu = (now, cpu)
        limits = self.limits
        if now - self.started > limits.host_s:
            self._fail(
                f"it did not finish within {limits.host_s:g} s", "allow more time: --time-limit"
            )
        if output[0] > limits.guest_s:
            why = f"it did not finish within {limits.guest_s:g} s of its own time"
            self._fail(why, "request fewer rounds, or allow more time: --time-limit")
        if now - self._output[0] > limits.quiet_s:
            self._fail(f"its clock has stood still for {limits.quiet_s:g} s", "run it again")
        if now - self._cpu[0] > _STALL_S:
            self._fail("the emulator is deadlocked", "run it again")

    def _fail(self, why: str, hint: str) -> None:
        self.kill()
        raise GuestError(why, self.console()[-4000:], hint)

    def kill(self) -> None:
        """End the emulator, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _state(pid: int) -> tuple[str, int]:
    """Return the state of a process and its processor time, clock ticks, as in proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", -1
    return fields[0], int(fields[11]) + int(fields[12])


# ------------------------------------------------------------------------------
# Our build of Bochs, from Debian's source. It has no debugger, so it is about four times faster. It
# can save its state when dom0 is up (hypervisor-patches/lab/bochs.patch).


VERSION = "3.0+dfsg-1"
_PATCH = PATCHES / "lab" / "bochs.patch"
_CONFIGURE = [
    "--with-nogui", "--enable-all-optimizations", "--enable-cpu-level=6", "--enable-x86-64",
    "--enable-vmx=2", "--enable-avx", "--enable-evex", "--enable-pci", "--enable-fpu",
    "--enable-memtype", "--disable-docbook", "--disable-show-ips",
]  # fmt: skip


def fast_bochs(progress: Tell | None = None) -> Bochs:
    """Return our Bochs, built at the first call (2 to 5 minutes).

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    recipe = "\n".join([VERSION, *_CONFIGURE]).encode() + _PATCH.read_bytes()
    digest = hashlib.sha256(recipe).hexdigest()[:16]
    program = cache_folder() / "lab" / f"bochs-{digest}" / "bochs"
    if not program.exists():
        _build(program, progress or (lambda _: None))
    version = f"{VERSION} (pmlkit {digest})"
    return Bochs((str(program),), "display_library: nogui", version)


def _build(program: Path, progress: Tell) -> None:
    for tool, package in (("g++", "g++"), ("make", "make"), ("patch", "patch")):
        need(tool, package)
    with scratch_folder("pmlkit-bochs-") as scratch:
        source = Path(scratch)
        fetch_source("bochs", VERSION, source, progress)
        progress("building Bochs (2 to 5 minutes)")
        environment = {**os.environ, "CXXFLAGS": "-O2 -pipe", "CFLAGS": "-O2 -pipe"}
        commands = (
            ["patch", "-s", "-p1", "-i", str(_PATCH)],
            ["./configure", *_CONFIGURE],
            ["make", f"-j{os.cpu_count() or 1}"],
        )
        for command in commands:
            run_step(command, source, environment, "Bochs")
        write(program, (source / "bochs").read_bytes())
        program.chmod(0o755)


def run_step(
    command: Sequence[PathLike], folder: Path, environment: Mapping[str, str] | None, what: str
) -> None:
    """Run a step of a build in `folder`; append its output to build.log there.

    Raises
    ------
    GuestError
        The message has the first line of the output that looks like an error.
    """
    with open(folder / "build.log", "ab") as log:
        at = log.tell()
        result = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log)
    if result.returncode:
        text = (folder / "build.log").read_bytes()[at:].decode(errors="replace")
        lines = text.strip().splitlines() or ["no message"]
        why = next((line for line in lines if "error" in line.lower()), lines[-1])
        hint = "install the missing parts, or see the recipe in pmlkit/sources"
        raise GuestError(f"{what} does not build: {why.strip()[:300]}", text[-4000:], hint)
