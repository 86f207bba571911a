# SPDX-License-Identifier: Apache-2.0
"""Build the recorder's plugin, and start QEMU with it.

QEMU translates the guest's code (TCG), so no virtualisation hardware is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, MissingTool, PmlkitError, UsageError, output_error
from pmlkit.files import cache_folder
from pmlkit.sources.guest.programs import compile_cached
from pmlkit.sources.spooling import with_us

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace
    from typing import Literal

    from pmlkit.sources.guest.image import GuestImage
    from pmlkit.types import PathLike


QEMU = "qemu-system-x86_64"
_LONGEST = 86_400 * 10**9  # ns of a day; or as many instructions
ICOUNT_SHIFT = 3  # deterministic mode: an instruction lasts 2**3 ns, so the guest has 125 MIPS
ICOUNT_SHIFTS = (0, 10)  # the least and the largest shift that QEMU supports
MEMORY_MIB = (64, 3072)  # with more memory, QEMU's RAM offsets are not guest-physical addresses
_SOURCE = Path(__file__).with_name("recorder_plugin.c")


@dataclass(frozen=True)
class Period:
    """The length of a round, in guest time or in guest instructions."""

    unit: Literal["ns", "insn"]
    count: int

    @property
    def ns(self) -> int | None:
        return self.count if self.unit == "ns" else None

    @property
    def insn(self) -> int | None:
        return self.count if self.unit == "insn" else None


def parse_period(text: str) -> Period:
    """Parse the length of a round: ``"10ms"`` of guest time, ``"10Minsn"`` instructions.

    Raises
    ------
    UsageError
        If it is neither, shorter than 10 us or 1000 instructions, or longer than a day.
    """
    from pmlkit.units import parse_duration_ns

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)insn", str(text))
    if match:
        scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]
        period = Period("insn", round(float(match[1]) * scale))
    else:
        period = Period("ns", parse_duration_ns(text))
    if period.count < (1000 if period.unit == "insn" else 10_000):
        raise UsageError(
            f"a window of {text} is too short to record", "give at least 10us or 1kinsn"
        )
    if period.count > _LONGEST:
        what = f"a window of {text} is too long to record"
        raise UsageError(what, "give at most 24h or 86400Ginsn")
    return period


def build_plugin() -> Path:
    """Compile the plugin, once for each version of its source; return the shared object."""

    def failure(line: str) -> PmlkitError:
        return PmlkitError(f"gcc could not build the recorder's plugin ({line})", "see above")

    plugin = cache_folder() / "plugin" / "recorder.so"
    arguments = ["-O2", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden", str(_SOURCE)]
    inputs = (_SOURCE, _SOURCE.with_name("qemu_plugin_api.h"))
    return compile_cached(plugin, arguments, inputs, failure)


def version() -> str:
    """Return QEMU's version, such as ``"7.2.22"``.

    Raises
    ------
    MissingTool
        If it is not installed.
    PmlkitError
        If the recorder's plugin does not support it (before 5, or 9 and later).
    """
    if not shutil.which(QEMU):
        raise MissingTool(QEMU, "qemu-system-x86")
    try:
        command = [QEMU, "--version"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except subprocess.TimeoutExpired as error:
        hint = "check whether it starts"
        raise PmlkitError(f"{QEMU} --version did not answer within 30 s", hint) from error
    match = re.search(r"version (\d+)(\S*)", text)
    if not match or not 5 <= int(match[1]) <= 8:
        raise PmlkitError(
            f"{QEMU} is version {match[1] + match[2] if match else 'unknown'}, and the recorder's "
            "plugin supports versions 5 to 8",
            "use Debian 12's qemu-system-x86 (7.2)",
        )
    return match[1] + match[2]


def command_line(
    image: GuestImage | SimpleNamespace,
    memory_mib: int,
    console: PathLike,
    report: PathLike,
    deterministic: bool = False,
    plugin: str | None = None,
    icount_shift: int = ICOUNT_SHIFT,
) -> list[str]:
    """Return the command that boots a guest image.

    Parameters
    ----------
    image : GuestImage
    memory_mib : int
    console, report : Path
        Files for the guest's two serial ports.
    deterministic : bool
        The virtual clock counts instructions: two runs are identical.
    plugin : str, optional
        The value of ``-plugin``; without it, the same machine runs unobserved.
    icount_shift : int
        Deterministic: an instruction lasts ``2**icount_shift`` ns of the guest's time.
    """
    machine = f"{QEMU} -accel tcg -M pc,memory-backend=ram -cpu qemu64 -smp 1"
    machine += f" -m {memory_mib} -object memory-backend-memfd,id=ram,size={memory_mib}M,share=off"
    machine += " -nodefaults -display none -monitor none -vga none -nic none -no-reboot"
    command = machine.split()
    command += ["-serial", f"file:{_escaped(console)}", "-serial", f"file:{_escaped(report)}"]
    command += ["-kernel", str(image.kernel)]
    command += ["-initrd", str(image.initrd)] if image.initrd else []
    command += ["-append", image.cmdline]
    if deterministic:
        command += ["-icount", f"shift={icount_shift},sleep=off"]
        command += ["-rtc", "base=2024-01-01,clock=vm", "-seed", "1"]
    return command + (["-plugin", plugin] if plugin else [])


def plugin_argument(
    plugin: PathLike,
    fd: int,
    memory_mib: int,
    period: Period,
    deterministic: bool,
    boot: bool,
    check: bool = False,
    icount_shift: int = ICOUNT_SHIFT,
) -> str:
    """Return the value of ``-plugin`` for the recorder's plugin, writing to descriptor `fd`."""
    arguments = {
        "file": _escaped(plugin),
        "fd": fd,
        "ram": memory_mib << 20,
        "clock": "icount" if deterministic else "host",
        "shift": icount_shift,
        "period": period.count,
        "unit": period.unit,
        "boot": "on" if boot else "off",
        "check": "on" if check else "off",
    }
    return ",".join(f"{name}={value}" for name, value in arguments.items())


def _escaped(path: PathLike) -> str:
    """Escape commas for QEMU's option parser."""
    return str(path).replace(",", ",,")


def disk(path: PathLike, size_mib: int) -> list[str]:
    """Create an empty disk image; return QEMU's options for a virtio disk of it.

    QEMU's threads access it by preadv and pwritev, which the plugin intercepts.
    """
    try:
        with open(path, "wb") as image:
            image.truncate(size_mib << 20)
    except OSError as error:
        raise output_error(path, error) from error
    drive = f"file={_escaped(path)},if=none,id=disk,format=raw,cache=unsafe,aio=threads"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]


def memory_disk(memory_mib: int, size_mib: int) -> list[str]:
    """Return QEMU's options for a disk of `size_mib` that is memory outside of the guest's RAM.

    It is an NVDIMM. The guest's processor copies its pages, so no request takes the host's time.
    The plugin ignores its frames, because they follow those of the RAM.
    """
    words = f"-machine nvdimm=on -m slots=1,maxmem={memory_mib + size_mib}M"
    words += f" -object memory-backend-ram,id=disk,size={size_mib}M -device nvdimm,memdev=disk"
    return words.split()


def start(
    command: Sequence[str],
    stderr: Path,
    keep_fd: int | None = None,
    preload: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start QEMU in its own session, so that Ctrl-C at the terminal does not reach it.

    It is killed when this process ends, even by SIGKILL. It inherits the descriptor `keep_fd`, and
    loads the library `preload` before its own.
    """
    # The library needs QEMU's symbols, so setpriv must not load it.
    preloaded = ["env", f"LD_PRELOAD={preload}"] if preload else []
    try:
        with open(stderr, "wb") as file:
            return subprocess.Popen(
                [*with_us(), *preloaded, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                pass_fds=() if keep_fd is None else (keep_fd,),
                start_new_session=True,
            )
    except OSError as error:
        raise GuestError(f"QEMU did not start: {error.strerror}") from error
