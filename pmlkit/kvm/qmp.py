# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor (QMP), by its socket or through libvirt's virsh."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import MissingTool, PmlkitError

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.types import Json


__all__ = ["Late", "Monitor", "QmpError", "Refused", "Silent", "Socket", "Virsh"]

_LIMIT_S = 5.0
_LONGEST = 1 << 22  # longest answer, bytes
_LONGEST_WHY = 300  # characters of a text from QEMU
_MOST_EVENTS = 1000  # events that are kept until a caller reads them


class QmpError(PmlkitError):
    """The monitor cannot be used."""


class Silent(QmpError):
    """The program at a socket does not greet as a monitor does. Attribute: `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        hint = "does another client use it, and is it the socket of QEMU's -qmp?"
        super().__init__(f"no monitor answers at {path}", hint)


class Late(QmpError):
    """QEMU has not yet answered a command. A later command can still be answered."""

    def __init__(self, command: str, path: str) -> None:
        super().__init__(f"QEMU does not answer {command} at {path}", "does it hang?")


class Refused(QmpError):
    """QEMU refuses a command. Attributes: `command`, `why`."""

    def __init__(self, command: str, why: str) -> None:
        self.command, self.why = command, why
        super().__init__(f"QEMU refuses {command}: {why}")


class Monitor(Protocol):
    """A connection to QEMU's monitor.

    Attributes
    ----------
    events : list of str
        Events that QEMU has reported meanwhile, such as "STOP"; the caller removes them.
    """

    events: list[str]

    def ask(self, command: str, **arguments: object) -> object:
        """Run a command and return its answer."""

    def close(self) -> None:
        """Close the connection; idempotent."""


class Socket:
    """A QMP socket. A context manager.

    Raises
    ------
    Silent
        If there is no answer: QEMU serves one client of a socket at a time.
    QmpError
        If there is no connection, or the answer is not that of a monitor.
    """

    def __init__(self, path: str, limit_s: float = _LIMIT_S) -> None:
        self.path = path
        self.events: list[str] = []
        self._rest, self._asked = b"", 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(limit_s)
        try:
            self._socket.connect(path)
            greeting = self._line()
        except socket.timeout as error:  # noqa: UP041 (two classes before Python 3.10)
            self.close()
            raise Silent(path) from error
        except OSError as error:
            self.close()
            hint = "check the path, and that QEMU has -qmp unix:PATH,server=on,wait=off"
            raise QmpError(f"no connection to {path} ({error.strerror})", hint) from error
        except BaseException:
            self.close()
            raise
        if "QMP" not in greeting:
            self.close()
            raise QmpError(f"the program at {path} does not speak QMP", "give QEMU's -qmp socket")
        try:
            self.ask("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()

    def ask(self, command: str, **arguments: object) -> object:
        """Run a command and return its answer.

        Raises
        ------
        Refused
            If QEMU answers with an error.
        Late
            If it does not answer in time.
        QmpError
            If the connection is lost.
        """
        self._asked += 1
        order: Json = {"execute": command, "id": self._asked}
        if arguments:
            order["arguments"] = arguments
        end = time.monotonic() + 10 * _LIMIT_S
        try:
            self._send(order)
            while time.monotonic() < end:  # events may come before the answer
                answer = self._line()
                if answer.get("id", self._asked) != self._asked:  # a late one
                    continue
                if "error" in answer:
                    raise Refused(command, _why(answer["error"]))
                if "return" in answer:
                    return answer["return"]
        except socket.timeout as error:  # noqa: UP041 (two classes before Python 3.10)
            raise Late(command, self.path) from error
        except OSError as error:
            hint = "has QEMU ended? --switch listen needs no monitor"
            raise QmpError(
                f"the connection to QEMU's monitor at {self.path} was lost ({error.strerror})", hint
            ) from error
        raise QmpError(f"the program at {self.path} sends data, but no answer",
                       "give QEMU's -qmp socket")  # fmt: skip

    def _send(self, order: Json) -> None:
        try:
            self._socket.sendall(json.dumps(order).encode() + b"\n")
        except ConnectionError:
            # QEMU has ended. Its last events say why, and they may be still unread.
            with contextlib.suppress(OSError, QmpError):
                for _ in range(_MOST_EVENTS):
                    self._line()
            raise

    def _line(self) -> Json:
        """Read a line; an event is kept, too."""
        end = time.monotonic() + 10 * _LIMIT_S
        while b"\n" not in self._rest:
            more = self._socket.recv(1 << 16)
            if not more:
                raise QmpError(
                    f"QEMU closed its monitor at {self.path}", "does the VM still exist?"
                )
            self._rest += more
            if len(self._rest) > _LONGEST or time.monotonic() > end:
                raise QmpError(
                    f"the program at {self.path} does not speak QMP", "give QEMU's -qmp socket"
                )
        line, _, self._rest = self._rest.partition(b"\n")
        answer: object = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            raise QmpError(
                f"the program at {self.path} does not speak QMP", "give QEMU's -qmp socket"
            )
        if isinstance(answer.get("event"), str) and len(self.events) < _MOST_EVENTS:
            self.events.append(answer["event"])
        return answer


def _why(error: object) -> str:
    why = str(error.get("desc", error)) if isinstance(error, dict) else str(error)
    return why[:_LONGEST_WHY]


class Virsh:
    """The monitor of a domain of libvirt, through ``virsh qemu-monitor-command``."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.events: list[str] = []  # always empty: virsh returns answers only

    def ask(self, command: str, **arguments: object) -> object:
        """Run a command and return its answer, as `Socket.ask`."""
        order: Json = {"execute": command}
        if arguments:
            order["arguments"] = arguments
        call = ["virsh", "-c", "qemu:///system", "qemu-monitor-command", "--", self.domain]
        try:
            result = subprocess.run([*call, json.dumps(order)], capture_output=True, text=True,
                                  errors="replace", timeout=10 * _LIMIT_S, check=False)  # fmt: skip
        except FileNotFoundError as error:
            raise MissingTool("virsh", "libvirt-clients") from error
        except subprocess.TimeoutExpired as error:
            raise QmpError(f"libvirt does not answer for {self.domain}", "is it busy?") from error
        if result.returncode:
            why = result.stderr.strip()[-_LONGEST_WHY:]
            hint = "is it a VM of qemu:///system, and does it run?"
            raise QmpError(f"libvirt refuses {command} for {self.domain} ({why})", hint)
        answer: object = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(result.stdout)
        if not isinstance(answer, dict) or not {"return", "error"} & answer.keys():
            raise QmpError(f"libvirt's answer for {self.domain} is not QMP: {result.stdout[:80]}")
        if "error" in answer:
            raise Refused(command, _why(answer["error"]))
        return answer["return"]

    def close(self) -> None:
        """Do nothing, because each command opens its own connection."""
