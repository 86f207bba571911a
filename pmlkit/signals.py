# SPDX-License-Identifier: Apache-2.0
"""The signals that end a program: Ctrl-C, SIGTERM (a batch system), SIGHUP (a closed terminal).

By default, Python raises an exception for Ctrl-C only; the other signals kill it at once, leaving
emulators and partial files behind. `raising` makes all of them exceptions. `pmlkit.cli.main` exits
with 128 plus the signal's number.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


__all__ = ["ENDING", "Ended", "Noted", "caught", "forget", "held", "noted", "raising", "received"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.01
_received: list[int] = []


class Ended(KeyboardInterrupt):
    """Raised for each of the signals; a KeyboardInterrupt, so that the same code cleans up.

    Attributes
    ----------
    number : int
        The signal.
    kept : str
        Description of the results that are kept; may be empty.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        self.number, self.kept = number, kept
        super().__init__(number, kept)

    def __str__(self) -> str:
        by_hand = self.number == signal.SIGINT
        what = "interrupted" if by_hand else f"ended by {signal.Signals(self.number).name}"
        return f"{what}: {self.kept}" if self.kept else what


@contextlib.contextmanager
def caught(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Context in which `handler` handles the signals; without effect outside the main thread.

    Signals that ``nohup`` ignores stay ignored. SIGINT does not: a shell script starts background
    processes with SIGINT ignored, and ends them with ``kill -INT``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [
        number
        for number in ENDING
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]
    hook = sys.unraisablehook

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops exceptions in some callbacks, such as those of weak references. An exception
        # from here would be dropped, too, so a thread raises it after this returns.
        if isinstance(dropped.exc_value, Ended):
            number = signal.Signals(dropped.exc_value.number)
            threading.Timer(AGAIN_S, _thread.interrupt_main, (number,)).start()
        else:
            hook(dropped)

    previous = {number: signal.signal(number, handler) for number in handled}
    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, old in previous.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def raising() -> contextlib.AbstractContextManager[None]:
    """Context in which each of the signals raises `Ended`."""
    return caught(_raise)


def _raise(number: int, _: object) -> None:
    _received.append(number)
    raise Ended(number)


class Noted:
    """Attribute: `number`, the first signal received, or None."""

    number: int | None = None

    def __call__(self, number: int, _: object) -> None:
        """Note a signal. A later Ctrl-C raises `Ended`; the others may be sent twice."""
        if self.number is not None and number == signal.SIGINT:
            _raise(number, None)
        self.number = self.number or number
        _received.append(number)


@contextlib.contextmanager
def noted() -> Iterator[Noted]:
    """Context in which the first signal is noted, so that work can end in an orderly way."""
    note = Noted()
    with caught(note):
        yield note


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Context in which the signals wait for its end, where their handlers then run.

    For a call and the note of what it has done: an exception that a handler raises would come
    between them. Other threads of the process are not held.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def received() -> int | None:
    """Return the last signal since `forget`, or None.

    The exception may get lost: an extension module that is interrupted while it is imported raises
    an ImportError instead.
    """
    return _received[-1] if _received else None


def forget() -> None:
    """Forget the signals received."""
    _received.clear()
