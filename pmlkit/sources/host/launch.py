# SPDX-License-Identifier: Apache-2.0
"""Start the agent: as a process here, or over SSH on a host without pmlkit.

Over SSH, the agent travels as a zipapp through the connection's standard input. The connection's
standard output is the spool file: there is no daemon, no port and no copy.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from pmlkit.errors import MissingTool, visible
from pmlkit.kvm import shipping as kvm_shipping
from pmlkit.shipping import bootstrap
from pmlkit.xen import shipping as xen_shipping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import IO

    from pmlkit.types import Json, Tell


__all__ = ["Agent"]

_BEAT_S = 5.0
_SILENCE_S = 30.0
_BLOCK_BYTES = 1 << 16
_FEW = 50  # lines at the beginning, and at the end, that are kept
_LONGEST_LINE = 1 << 12  # bytes
_AGENT, _ERROR = "agent: ", "error: "
_SSH = "ssh"
# A dead connection ends after 15 s. The output must contain only the spool.
_SSH_OPTIONS = ["-T", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
_SSH_OPTIONS += ["-o", "LogLevel=ERROR"]
# Ctrl-C goes to this process only, which stops the agent; the connection stays until then.
_UNINTERRUPTED = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


class KeptLines:
    """Lines of a stream; only the first and the last few are kept."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_FEW)
        self._rest = b""  # the beginning of an incomplete line

    def take(self, block: bytes) -> list[str]:
        """Add bytes; returns the lines to show: of many lines, the first ones."""
        *whole, rest = (self._rest + block).split(b"\n")
        # An endless line must not fill the memory.
        self._rest = rest[:_LONGEST_LINE]
        return self._add(whole)

    def finish(self) -> list[str]:
        """Add the last, incomplete line; returns it as `take` does."""
        rest, self._rest = self._rest, b""
        return self._add([rest]) if rest else []

    def _add(self, lines: list[bytes]) -> list[str]:
        room = max(_FEW - len(self._first), 0)
        fresh = [line for line in map(_text, lines[:room]) if line]
        self._first += fresh
        # In a flood, only the end of a block can be among the last lines.
        self._last.extend(line for line in map(_text, lines[room:][-_FEW:]) if line)
        self.count += len(lines)
        return fresh

    def lines(self) -> list[str]:
        """Return the kept lines without the agent's prefix."""
        left = self.count - len(self._first) - len(self._last)
        gap = [f"... {left:,} more lines ..."] if left > 0 and self._last else []
        kept = [line.removeprefix(_AGENT).removeprefix(_ERROR) for line in self._last]
        return [line.removeprefix(_AGENT).removeprefix(_ERROR) for line in self._first] + gap + kept


def _text(line: bytes) -> str:
    return visible(line[:_LONGEST_LINE].decode(errors="replace").strip())


class Agent:
    """A running agent.

    Parameters
    ----------
    job : dict
        `pmlkit.xen.job.Job` or `pmlkit.kvm.job.Job`, without `spool`.
    spool : Path
        Path of the spool.
    host : str, optional
        In the form for the SSH client: ``root@dom0``. None: this machine.
    heard : callable, optional
        Called with each message of the agent.
    package : {"xen", "kvm"}
        The name that messages show.

    Attributes
    ----------
    lines : list of str
        Lines of standard error, including those of SSH and Python; of many lines, the first and
        last few.
    spoke : bool
        Whether any line came from the agent.

    Raises
    ------
    MissingTool
        If there is no SSH client.
    """

    def __init__(
        self,
        job: Json,
        spool: Path,
        host: str | None = None,
        heard: Tell = lambda line: None,
        package: str = "xen",
    ) -> None:
        self._lines, self._heard, self._lock = KeptLines(), heard, threading.Lock()
        self.spoke = False
        job = {**job, "spool": "-" if host else str(spool)}
        if host:
            job["silence_s"] = _SILENCE_S
            with open(spool, "xb") as out:
                self.process = _start(_ssh_command(host, package), out)
        else:
            command = [sys.executable, "-m", f"pmlkit.{package}.agent"]
            self.process = _start(command, subprocess.DEVNULL)
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self._orders, self._messages = self.process.stdin, self.process.stderr
        if host:
            app = (kvm_shipping if package == "kvm" else xen_shipping).zipapp()
            self._send(b"%010d" % len(app) + app)
        self._send(json.dumps(job).encode() + b"\n")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._done = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def lines(self) -> list[str]:
        return self._lines.lines()

    def _listen(self) -> None:
        pipe = self._messages.fileno()
        while block := os.read(pipe, _BLOCK_BYTES):
            for line in self._lines.take(block):
                self._handle_line(line)
        for line in self._lines.finish():
            self._handle_line(line)

    def _handle_line(self, line: str) -> None:
        text = line.removeprefix(_AGENT)
        if text != line:
            self.spoke = True
            # The error that the collection raises contains the reason, so it is not repeated.
            if not text.startswith(_ERROR):
                self._heard(text)

    def _beat(self) -> None:
        while not self._done.wait(_BEAT_S):
            self._send(b"\n")

    def _send(self, data: bytes) -> None:
        with self._lock:
            try:
                self._orders.write(data)
                self._orders.flush()
            except (OSError, ValueError):  # it has ended; its last lines state the reason
                pass

    def stop(self) -> None:
        """Ask the agent to end; it closes the round and switches log-dirty mode off."""
        self._send(b"stop\n")

    def running(self) -> bool:
        """Whether the agent still runs."""
        return self.process.poll() is None

    def wait(self, limit_s: float) -> int:
        """Wait for the agent's end, kill it after `limit_s` seconds; returns its exit status."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
        status = self.process.wait()
        self._done.set()
        self._listener.join(5)
        with self._lock:
            self._orders.close()
        return status


def _start(command: Sequence[str], out: IO[bytes] | int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, bufsize=0
        )
    except FileNotFoundError as error:
        raise MissingTool(command[0], "openssh-client") from error


def _ssh_command(host: str, package: str) -> list[str]:
    """Return the SSH client's command line; ``PMLKIT_SSH`` replaces ``ssh`` (``ssh -F FILE``)."""
    client = shlex.split(os.environ.get("PMLKIT_SSH", _SSH))
    # Without a terminal, no user can answer a question.
    options = (
        _SSH_OPTIONS if sys.stdin and sys.stdin.isatty() else [*_SSH_OPTIONS, "-oBatchMode=yes"]
    )
    remote = f"exec python3 -c {shlex.quote(bootstrap(package))}"
    return [*_UNINTERRUPTED, *client, *options, "--", host, remote]
