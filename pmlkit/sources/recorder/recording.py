# SPDX-License-Identifier: Apache-2.0
"""A running recording: QEMU's plugin writes to a pipe, which is copied to a spool."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import time
from contextlib import ExitStack
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, UnknownName, UsageError
from pmlkit.signals import Noted
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.messages import Mark, Marker, Message, RoundEnd, Span, decode, split
from pmlkit.sources.spooling import read_text
from pmlkit.spool import FRAMES_FILE, SpoolWriter

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from pmlkit.sources.guest.image import GuestImage
    from pmlkit.sources.recorder.qemu import Period
    from pmlkit.types import Json


CLOCKS = ("guest", "host")
_BOOT_LIMIT_S = 900  # a guest boots in 3 to 15 s; its preparations take minutes on a busy host
_GRACE_S = 20  # time for QEMU's last messages after SIGTERM


@dataclass(frozen=True)
class RecordOptions:
    """Options of a recording.

    Attributes
    ----------
    memory_mib : int, optional
        The guest's memory; default: as the workload requires.
    window : str
        Length of a round, the trace's resolution: guest time (``"10ms"``) or instructions
        (``"10Minsn"``).
    clock : {"guest", "host"}
        The guest's clock, which determines a round's length. ``"guest"``: the clock counts its
        instructions. The host's load has no effect, and two runs are identical. ``"host"``: wall
        time. The guest's progress per round depends on the host's load.
    icount_shift : int
        With the guest's clock, an instruction lasts ``2**icount_shift`` ns: 3 is 125 million
        instructions per second, 0 a thousand million.
    cmdline : str
        Added to the guest kernel's command line.
    boot : bool
        Also record the boot; otherwise the recording begins with the workload.
    time_limit_s : float
        Seconds on the host after which a guest counts as hung.
    overwrite : bool
        Replace an existing output.
    swap_mib : int
        Size of a swap disk, whose requests are recorded; 0: the guest has no disk.
    check : bool
        Let the plugin verify its fast path at every access (slower).
    """

    memory_mib: int | None = None
    window: str = "10ms"
    clock: str = "guest"
    icount_shift: int = qemu.ICOUNT_SHIFT
    cmdline: str = ""
    boot: bool = False
    time_limit_s: float = 1800
    overwrite: bool = False
    check: bool = False
    swap_mib: int = 0
    deterministic: InitVar[bool | None] = None  # older name of `clock`: True is the guest's clock

    def __post_init__(self, deterministic: bool | None) -> None:
        if self.clock not in CLOCKS:
            raise UnknownName("clock", self.clock, CLOCKS)
        if deterministic and self.clock != "guest":
            what = f"--clock {self.clock} and --deterministic contradict each other"
            raise UsageError(what, "leave one of them out")
        if deterministic is False:
            object.__setattr__(self, "clock", "host")
        self._check_shift()

    def _check_shift(self) -> None:
        low, high = qemu.ICOUNT_SHIFTS
        if not low <= self.icount_shift <= high:
            raise UsageError(
                f"--icount-shift {self.icount_shift} is not supported by QEMU",
                f"give {low} to {high}",
            )
        if self.icount_shift != qemu.ICOUNT_SHIFT and not self.icount:
            raise UsageError(
                "--icount-shift is for the guest's clock, and --clock is host",
                "leave one of them out",
            )

    @property
    def ns_per_insn(self) -> float | None:
        """Length of an instruction; None with the host's clock."""
        return float(1 << self.icount_shift) if self.icount else None

    @property
    def icount(self) -> bool:
        """Whether the clock counts instructions."""
        return self.clock == "guest"


@dataclass(frozen=True)
class Progress:
    """Progress of a recording: guest time, entries, phase."""

    guest_ns: int
    entries: int
    phase: str


class Recording:
    """A running guest, the pipe from its plugin, and the spool (an existing folder).

    As a context manager, it kills QEMU and closes the spool at its end. A signal that `stop`
    records ends QEMU.
    """

    # Set by `boot`.
    process: subprocess.Popen[bytes]
    pipe: int

    def __init__(
        self,
        spool: Path,
        header: Json,
        options: RecordOptions,
        progress: Callable[[Progress], object] | None,
        stop: Noted | None = None,
    ) -> None:
        self.options, self.stop = options, stop or Noted()
        self.console, self.report = spool / "console.txt", spool / "report.txt"
        self.writer = SpoolWriter(spool / FRAMES_FILE, header)
        self.stderr, self.disk = spool / "qemu.txt", spool / "disk.raw"
        self.progress = progress or (lambda _: None)
        self._undo = ExitStack()
        self.buffer = bytearray()
        self.started = time.monotonic()
        self.recording_since: float | None = None
        self.progress_at = 0.0  # time of the last call of `progress`
        self.entries = 0
        self.last_round: RoundEnd | None = None
        self.seen: set[Marker | Message] = set()  # markers, and Message.TOTALS
        self.deadline: float | None = None  # time by which QEMU must end, after SIGTERM

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._undo.close()
        self.writer.close(whole=kind is None)

    def boot(self, image: GuestImage, memory_mib: int, plugin: Path, period: Period) -> None:
        """Start QEMU with the plugin at the other end of a pipe."""
        o = self.options
        self.pipe, child_end = os.pipe()
        # QEMU ends before the pipe is closed, because `ExitStack` calls these in reverse.
        self._undo.callback(os.close, self.pipe)
        argument = qemu.plugin_argument(
            plugin, child_end, memory_mib, period, o.icount, o.boot, o.check, o.icount_shift
        )
        command = qemu.command_line(
            image, memory_mib, self.console, self.report, o.icount, argument, o.icount_shift
        )
        if image.workload.disk_mib:
            command += qemu.memory_disk(memory_mib, image.workload.disk_mib)
        if o.swap_mib:
            command += qemu.disk(self.disk, o.swap_mib)
        try:
            self.cpu_before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            preload = plugin if o.swap_mib else None
            self.process = qemu.start(command, self.stderr, child_end, preload)
            self._undo.callback(self.process.wait)
            self._undo.callback(self.process.kill)  # no signal to a process that has ended
        finally:
            os.close(child_end)

    def listen(self) -> None:
        """Copy messages to the spool until QEMU exits, by itself or after a signal."""
        while self._listen_once():
            self._check_stop()
            self._check_time()
        self.process.wait()
        self.writer.append(Message.HOST, json.dumps(self._cost()).encode())

    def _check_stop(self) -> None:
        if self.stop.number is not None and self.deadline is None:
            self.deadline = time.monotonic() + _GRACE_S
            self.process.terminate()

    def _cost(self) -> dict[str, float]:
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "host_s": round(time.monotonic() - self.started, 3),
            "recording_s": round(time.monotonic() - (self.recording_since or self.started), 3),
            "qemu_cpu_s": round(cpu.ru_utime + cpu.ru_stime - self.cpu_before, 3),
        }

    def _listen_once(self) -> bool:
        ready, _, _ = select.select([self.pipe], [], [], 0.5)
        data = os.read(self.pipe, 1 << 20) if ready else None
        if data:
            self.buffer += data
            for kind, payload in split(self.buffer):
                self._take(kind, payload)
        return data != b""

    def _take(self, kind: int, payload: bytes) -> None:
        self.writer.append(kind, payload)
        message = decode(kind, payload)
        if isinstance(message, Span) and kind == Message.ACCESS:
            self.entries += len(message.values)
        elif isinstance(message, RoundEnd):
            self.last_round = message
            self._report_progress(message)
        elif isinstance(message, Mark):
            self.seen.add(message.marker)
        if kind != Message.HELLO and self.recording_since is None:
            self.recording_since = time.monotonic()
        if kind == Message.TOTALS:
            self.seen.add(Message.TOTALS)

    def _report_progress(self, end: RoundEnd) -> None:
        now = time.monotonic()
        if now - self.progress_at < 0.2:
            return
        self.progress_at = now
        self.progress(Progress(end.t_end_ns, self.entries, self.phase()))

    def _check_time(self) -> None:
        elapsed = time.monotonic() - self.started
        if self.deadline is not None:
            if time.monotonic() > self.deadline:
                self.process.kill()
        elif elapsed > self.options.time_limit_s:
            raise GuestError(
                f"its workload did not finish within {self.options.time_limit_s:g} s",
                self.console_tail(),
                "allow more time with --time-limit, or reduce the work with --set",
            )
        elif self.recording_since is None and elapsed > _BOOT_LIMIT_S:
            why = f"it had not booted after {_BOOT_LIMIT_S} s"
            hint = f"the machine may be busy: try again, or see {self.console}"
            raise GuestError(why, self.console_tail(), hint)

    def judge(self) -> None:
        """Raise `GuestError` unless the workload ran to its end, or was interrupted."""
        if self.deadline is not None and self.last_round:
            return
        console = self.console_tail()
        if panic := re.search("Kernel panic.*", read_text(self.console)):
            why = panic[0].strip()
            hint = f"give it more memory by --memory, or check its files; {self._see_console}"
            raise GuestError(why, hint=hint)
        if Message.TOTALS not in self.seen:
            raise GuestError(self._why_qemu_died(), console, self._see_console)
        if Marker.END not in self.seen and self.deadline is None:
            why = "it powered off before its workload had ended"
            raise GuestError(why, console, self._see_console)
        status = workload_status(self.report)
        if status not in (0, None):
            why = f"its workload ended with status {status}"
            raise GuestError(why, console, f"{status_hint(status)}; {self._see_console}")

    @property
    def _see_console(self) -> str:
        return f"its console is in {self.console}"

    def _why_qemu_died(self) -> str:
        if self.deadline is not None:
            return "it was interrupted before its workload began"
        messages = read_text(self.stderr).strip()
        if self.recording_since is None and not messages:
            return "it ended before its workload began"
        return f"QEMU ended early, status {self.process.returncode}: {messages[-300:]}"

    def phase(self) -> str:
        """Return the name of the guest's current phase."""
        for line in reversed(read_text(self.report).splitlines()):
            if line.startswith("phase "):
                return line[len("phase ") :].strip()
        return ""

    def console_tail(self) -> str:
        """Return the last lines of the guest's console, without the kernel's."""
        lines = read_text(self.console)[-4000:].splitlines()
        return "\n".join(line for line in lines if not re.match(r"\[ *\d+\.\d+\]", line))


# Hints by exit status of the shell.
_STATUS_HINTS = {
    126: "make its program executable, and build it for x86-64",
    127: "a program is missing in the guest: add it to the folder, or its Debian package to "
    "`packages:` of workload.yaml",
    128 + signal.SIGKILL: "it was killed, most likely for lack of memory: give more by --memory",
    128 + signal.SIGABRT: "it aborted (SIGABRT): see its last lines",
    128 + signal.SIGSEGV: "it crashed (SIGSEGV): run it outside of the guest, under a debugger",
}


def status_hint(status: int) -> str:
    """Return a hint for a workload's exit status."""
    return _STATUS_HINTS.get(status, "its own messages state the cause")


def workload_status(report: Path) -> int | None:
    """Return the exit status that the guest reported for its workload, or None."""
    for line in read_text(report).splitlines():
        if line.startswith("exit "):
            return int(line.split()[1])
    return None
