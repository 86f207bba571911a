# SPDX-License-Identifier: Apache-2.0
"""Starting the agent: as a process here, or over SSH in a dom0 that has nothing of pmlkit.

Over SSH the agent comes as a zipapp through the connection's own standard input, and the spool
goes from the connection's standard output straight into the file: no daemon, no port, no copy.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from pmlkit.errors import MissingTool
from pmlkit.xen import shipping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from pmlkit.types import Json


__all__ = ["Agent"]

_BEAT_S = 5.0
_SILENCE_S = 30.0
_SSH = "ssh"
# A connection that is dead is given up after 15 s; nothing but the spool may be on the output.
_SSH_OPTIONS = ["-T", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
_SSH_OPTIONS += ["-o", "LogLevel=ERROR"]
# Ctrl-C is for us: we tell the agent to stop, and the connection stays until it has.
_UNINTERRUPTED = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


class Agent:
    """A running agent.

    Parameters
    ----------
    job : dict
        `pmlkit.xen.job.Job`, without `spool`.
    spool : Path
        The file to be.
    host : str, optional
        As the SSH client takes it: ``root@dom0``. None: this machine.
    heard : callable, optional
        Called with each sentence that the agent says.

    Attributes
    ----------
    said : list of str
        The lines so far, the SSH client's and Python's too.
    spoke : bool
        Whether any of them was the agent's.

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
        heard: Callable[..., Any] = lambda line: None,
    ) -> None:
        self.said, self._heard, self._lock = [], heard, threading.Lock()  # type: ignore[var-annotated]
        self.spoke = False
        job = {**job, "spool": "-" if host else str(spool)}
        if host:
            job["silence_s"] = _SILENCE_S
            with open(spool, "xb") as out:
                self.process = _start(_ssh_command(host), out)
            app = shipping.zipapp()
            self._tell(b"%010d" % len(app) + app)
        else:
            command = [sys.executable, "-m", "pmlkit.xen.agent"]
            self.process = _start(command, subprocess.DEVNULL)
        self._tell(json.dumps(job).encode() + b"\n")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._done = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            told = line.decode(errors="replace").strip()
            text = told.removeprefix("agent: ")
            # Why it ended is for the error that the collection raises, and not to be said twice.
            words = text.removeprefix("error: ")
            if words:
                self.said.append(words)
            if text != told:
                self.spoke = True
                if words == text:
                    self._heard(text)

    def _beat(self) -> None:
        while not self._done.wait(_BEAT_S):
            self._tell(b"\n")

    def _tell(self, data: bytes) -> None:
        with self._lock:
            try:
                self.process.stdin.write(data)  # type: ignore[union-attr]
                self.process.stdin.flush()  # type: ignore[union-attr]
            except (OSError, ValueError):  # it has ended; its words say why
                pass

    def stop(self) -> None:
        """Ask it to end; it closes the round and switches log-dirty mode off."""
        self._tell(b"stop\n")

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait(self, limit_s: float) -> int:
        """Wait for its end; kill it after `limit_s` seconds. Returns its exit status."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
        status = self.process.wait()
        self._done.set()
        self._listener.join(5)
        with self._lock:
            self.process.stdin.close()  # type: ignore[union-attr]
        return status


def _start(command: Sequence[str], out: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, bufsize=0
        )
    except FileNotFoundError as error:
        raise MissingTool(command[0], "openssh-client") from error


def _ssh_command(host: str) -> list[str]:
    """Return the SSH client's command line; ``PMLKIT_SSH`` replaces ``ssh`` (``ssh -F FILE``)."""
    client = shlex.split(os.environ.get("PMLKIT_SSH", _SSH))
    # Without a terminal nobody can answer a question.
    options = (
        _SSH_OPTIONS if sys.stdin and sys.stdin.isatty() else [*_SSH_OPTIONS, "-oBatchMode=yes"]
    )
    remote = f"exec python3 -c {shlex.quote(shipping.BOOTSTRAP)}"
    return [*_UNINTERRUPTED, *client, *options, "--", host, remote]


def wait_for(condition: Callable[[], bool], limit_s: float, step_s: float = 0.02) -> bool:
    """Wait until a condition holds, or `limit_s` seconds; returns whether it does."""
    end = time.monotonic() + limit_s
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(step_s)
    return held
