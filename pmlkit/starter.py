# SPDX-License-Identifier: Apache-2.0
"""An agent and its starter: the job, orders, the spool through a pipe, the end.

This module is separate because the agents of both kinds of host need it. Python 3.9, no dependency.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import ReadableBuffer

    from pmlkit.types import Json

__all__ = ["Ending", "Pipe", "first_line", "report"]

_LONGEST_JOB = 1 << 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED = -1
_GONE = "the program that started the collection has ended"


def report(text: str) -> None:
    """Write a message to the starter, on standard error."""
    print(f"agent: {text}", file=sys.stderr, flush=True)


def first_line(descriptor: int) -> Json:
    """Read the job, which is the first line of a file descriptor.

    Raises
    ------
    UsageError
        If it is none.
    """
    # Byte by byte: the lines that follow belong to `Ending`.
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_JOB:
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    try:
        job = json.loads(line)
    except ValueError as error:
        raise UsageError("the first line of standard input is not a job (JSON)") from error
    if not isinstance(job, dict):
        raise UsageError("the job is not a JSON object")
    return job


class Ending:
    """The reason to end a collection. A context manager: signals are caught while it lasts.

    Parameters
    ----------
    orders : int, optional
        File descriptor: a line "stop" or the end of the file ends the collection.
    silence_s : float
        End the collection if no line comes for so long; 0: never.

    Attributes
    ----------
    why : str or None
        In words, once it should end.
    kind : str or None
        "asked": by order or signal; "lost": the starter is gone. A host's own has more.
    """

    def __init__(self, orders: int | None = None, silence_s: float = 0.0) -> None:
        self.why: str | None = None
        self.kind: str | None = None
        self._orders, self._silence_s = orders, silence_s
        self._heard = time.monotonic()
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._exits.callback(signal.signal, number, signal.signal(number, self._signalled))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _signalled(self, number: int, _: object) -> None:
        self.end("asked", f"interrupted ({signal.Signals(number).name})")

    def end(self, kind: str, why: str) -> None:
        """Request the end; the first reason counts."""
        if self.why is None:
            self.kind, self.why = kind, why

    @property
    def deserted(self) -> bool:
        """Whether no process reads the output any more."""
        self._listen(0)
        return self.kind == "lost" or self._orders == _ENDED

    def wait(self, seconds: float) -> None:
        """Sleep until an order arrives, for `seconds` at most."""
        if seconds > 0 and self._orders in (None, _ENDED):
            time.sleep(seconds)
        elif seconds > 0:
            self._listen(seconds)

    def _listen(self, seconds: float) -> None:
        if self._orders is None or self._orders == _ENDED:
            return
        ready, _, _ = select.select([self._orders], [], [], seconds)
        now = time.monotonic()
        if ready:
            orders, self._heard = os.read(self._orders, 4096), now
            if not orders:
                self._orders = _ENDED
                self.end("lost", _GONE)
            elif b"stop" in orders:
                self.end("asked", "stopped by the program that started it")
        elif self._silence_s and now - self._heard > self._silence_s:
            self._orders = _ENDED
            self.end("lost", f"{_GONE}: silent for {self._silence_s:g} s")


class Pipe(io.RawIOBase):
    """Standard output; while it is full, orders are still read.

    Meanwhile the buffers of the log fill and run over, and what is lost is counted: the memory of a
    collection does not grow with the rate.
    """

    def __init__(self, descriptor: int, ending: Ending) -> None:
        self._out, self._ending = descriptor, ending
        os.set_blocking(descriptor, False)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: ReadableBuffer) -> int | None:
        """Write some of the data, as soon as there is room; return how many bytes."""
        while True:
            try:
                return os.write(self._out, data)
            except BlockingIOError:
                select.select([], [self._out], [], 0.2)
                if self._ending.deserted:
                    raise BrokenPipeError(errno.EPIPE, "its reader has ended") from None
