# SPDX-License-Identifier: Apache-2.0
"""When a collection ends, and why: signals, the VM's end, orders of its starter, its time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from pmlkit.kvm import find

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.host import Host


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.25  # how often the VMM is looked for
_ENDED = -1
_GONE = "whoever started the collection has gone"


class Stop:
    """Why a collection should end. A context manager: signals are caught while it lasts.

    Parameters
    ----------
    vm : Vm
        Watched until its end.
    orders : int, optional
        File descriptor: a line "stop" or the end of the file ends the collection.
    silence_s : float
        End the collection if no line comes for so long; 0: never.
    seconds : float
        End it after so long; 0: no limit.

    Attributes
    ----------
    why : str or None
        In words, once it should end.
    kind : {None, "asked", "vm", "lost", "time"}
        By order or signal; by the VM's end; the starter is gone; the time is over.
    """

    def __init__(
        self,
        host: Host,
        vm: Vm,
        orders: int | None = None,
        silence_s: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        self.host, self.vm = host, vm
        self.why: str | None = None
        self.kind: str | None = None
        self._orders, self._silence_s, self._seconds = orders, silence_s, seconds
        self._began = self._heard = self._looked = time.monotonic()
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

    def __bool__(self) -> bool:
        """Whether it should end; looks at the VMM at most every `_LOOK_S`."""
        self._listen(0)
        now = time.monotonic()
        if self._seconds and now - self._began >= self._seconds:
            self.end("time", f"{self._seconds:g} s are over")
        if self.why is None and now - self._looked > _LOOK_S:
            self._looked = now
            if not find.alive(self.host, self.vm):
                self.end("vm", "the VM has ended")
        return self.why is not None

    @property
    def deserted(self) -> bool:
        """Whether nobody reads the output any more."""
        self._listen(0)
        return self.kind == "lost" or self._orders == _ENDED

    def wait(self, seconds: float) -> None:
        """Sleep until an order comes, at most so long."""
        if seconds > 0 and self._orders in (None, _ENDED):
            time.sleep(seconds)
        elif seconds > 0:
            self._listen(seconds)

    def _listen(self, seconds: float) -> None:
        if self._orders in (None, _ENDED):
            return
        ready, _, _ = select.select([self._orders], [], [], seconds)
        now = time.monotonic()
        if ready:
            orders, self._heard = os.read(self._orders, 4096), now
            if not orders:
                self._orders = _ENDED
                self.end("lost", _GONE)
            elif b"stop" in orders:
                self.end("asked", "stopped by whoever started it")
        elif self._silence_s and now - self._heard > self._silence_s:
            self._orders = _ENDED
            self.end("lost", f"{_GONE}: not heard of for {self._silence_s:g} s")
