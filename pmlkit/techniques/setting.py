# SPDX-License-Identifier: Apache-2.0
"""The setting of channels: a recording, a clock that advances, and an account of costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from pmlkit.errors import NeedsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pmlkit.techniques.memory import MemoryModel
    from pmlkit.techniques.recorded import Places, Recorded, Uses
    from pmlkit.types import Bools, Ints

__all__ = ["Charge", "Clock", "Latest", "Setting", "latest_use", "notable", "since_last"]

MOST_NOTES = 1 << 25  # most pages with per-page state: 128 GiB


class Clock:
    """The present: a time of the recording, and the rounds that have ended by then; it advances.

    Parameters
    ----------
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    idle : ndarray of bool, shape (n_rounds,), optional
        The rounds that are known to have no uses; default: none.
    """

    wait: Callable[[int], int | None]
    now: Callable[[], int]
    rounds: Callable[[], int]

    def __init__(self, t_ns: Ints, idle: Bools | None = None) -> None:
        rounds, time, ends = 0, 0, t_ns[1:] - t_ns[0]

        def wait(due_ns: int) -> int | None:
            """Advance to `due_ns`, or to the end of the round that contains it.

            In a round without uses, a gap, all uses are known at any time. None if the recording
            ends earlier.
            """
            nonlocal rounds, time
            if len(ends) == 0 or due_ns > ends[-1]:
                return None
            if due_ns > time:
                under_way = int(np.searchsorted(ends, due_ns))
                if idle is not None and idle[under_way] and due_ns < ends[under_way]:
                    rounds, time = under_way, due_ns
                else:
                    time = int(ends[under_way])
                    rounds = int(np.searchsorted(ends, time, "right"))
            return time

        self.wait, self.now, self.rounds = wait, lambda: time, lambda: rounds


class Charge(Protocol):
    """Count events that have a cost."""

    def __call__(self, **events: int) -> None: ...


class Setting(NamedTuple):
    """The setting of a channel: a recording, its clock, its costs, the memory's model."""

    recorded: Recorded
    clock: Clock
    charge: Charge
    model: MemoryModel | None = None


def notable(name: str, pages: int) -> int:
    """Return `pages`; raise `NeedsError` if they are too many for per-page state."""
    if pages > MOST_NOTES:
        what = f"memory small enough for per-page state, not {pages:,} pages"
        raise NeedsError(name, what, "leave this technique out")
    return pages


def since_last(clock: Clock) -> Callable[[], tuple[int, int]]:
    """Return a function that returns the rounds since its last call, first to before stop."""
    first = 0

    def rounds() -> tuple[int, int]:
        nonlocal first
        before, first = first, clock.rounds()
        return before, first

    return rounds


class Latest(Protocol):
    """Returns the round in which each frame was last used, or -1; for None, all places."""

    def __call__(self, frames: Ints | None = None) -> NDArray[np.int32]: ...


def latest_use(uses: Uses, clock: Clock, places: Places) -> Latest:
    """Return a function that returns the round in which each frame was last used, or -1.

    Without frames, it returns the rounds of all places in order, in an array that changes at the
    next call.
    """
    last, since = np.full(len(places), -1, np.int32), since_last(clock)
    at, starts = places.of(uses), uses.starts

    def latest(frames: Ints | None = None) -> NDArray[np.int32]:
        first, stop = since()
        for turn in range(first, stop):
            last[at[starts[turn] : starts[turn + 1]]] = turn
        return last[:-1] if frames is None else last[places(frames)]

    return latest
