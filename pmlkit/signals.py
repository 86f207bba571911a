# SPDX-License-Identifier: Apache-2.0
"""The signals that end a program: Ctrl-C, SIGTERM (a batch system), SIGHUP (a closed terminal).

Python turns Ctrl-C into an exception, and lets the others kill it where it stands: emulators and
half-written files stay. `raising` treats all alike. Only `pmlkit.cli.main` makes exit codes of
them: 128 and the signal's number.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


__all__ = ["ENDING", "Ended", "Noted", "caught", "forget", "noted", "raising", "received"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


class Ended(KeyboardInterrupt):
    """One of the signals came: whatever cleans up after Ctrl-C does so after each.

    Parameters
    ----------
    number : int
        The signal's.
    kept : str, optional
        What is left of the work, in words.

    Attributes
    ----------
    number, kept : as given
    """

    def __init__(self, number: int, kept: str = "") -> None:
        self.number, self.kept = number, kept
        super().__init__(number, kept)

    def __str__(self) -> str:
        by_hand = self.number == signal.SIGINT
        what = "interrupted" if by_hand else f"ended by {signal.Signals(self.number).name}"
        return f"{what}: {self.kept}" if self.kept else what


@contextlib.contextmanager
def caught(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let `handler` have the signals. Only the main thread can ask for that: elsewhere, nothing.

    What ``nohup`` made us ignore stays ignored. SIGINT does not: a shell script starts what it runs
    in the background with SIGINT ignored, and ends it by ``kill -INT``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [each for each in ENDING if each == signal.SIGINT or not _is_ignored(each)]
    before = {each: signal.signal(each, handler) for each in ours}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, signal.SIG_DFL if old is None else old)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def raising() -> contextlib.AbstractContextManager[None]:
    """Context in which each of the signals raises `Ended`."""
    return caught(_raise)


def _raise(number: int, _: object) -> None:
    _received.append(number)
    raise Ended(number)


class Noted:
    """Attribute: `number`, the signal that asked for an end; None: none yet."""

    number: int | None = None

    def __call__(self, number: int, _: object) -> None:
        """Take note of a signal. Ctrl-C after it is meant; others come in twos by themselves."""
        if self.number is not None and number == signal.SIGINT:
            _raise(number, None)
        self.number = self.number or number
        _received.append(number)


@contextlib.contextmanager
def noted() -> Iterator[Noted]:
    """Context in which the first signal is taken note of, so that work can be ended in order."""
    note = Noted()
    with caught(note):
        yield note


def received() -> int | None:
    """Return the last signal that came since `forget`, or None.

    An exception may be lost on its way: an extension module that is interrupted while it is
    imported raises an ImportError instead.
    """
    return _received[-1] if _received else None


def forget() -> None:
    """Forget what came."""
    _received.clear()
