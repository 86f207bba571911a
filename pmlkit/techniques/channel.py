# SPDX-License-Identifier: Apache-2.0
"""What a channel of a view is: some functions; the clock, and the memory, of which they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Bools, Ints


__all__ = ["Channel", "Clock", "known_memory", "notable"]

MOST_NOTES = 1 << 25  # pages of which something may be noted one by one: 128 GiB


class Channel:
    """Some functions, by their names."""

    __slots__ = ("__dict__",)

    drain: Callable[..., Any]
    collect: Callable[..., Any]
    mapped: Callable[..., Any]
    entries: Callable[..., Any]
    scan: Callable[..., Any]
    harvest: Callable[..., Any]
    protect: Callable[..., Any]
    caught: Callable[..., Any]
    digest: Callable[..., Any]
    ask: Callable[..., Any]
    requests: Callable[..., Any]
    resize: Callable[..., Any]
    limit: Callable[..., Any]
    counters: Callable[..., Any]
    evictions: Callable[..., Any]

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)


class Clock:
    """The present: a time of the recording, and the rounds that are over by then; it moves on.

    Parameters
    ----------
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    idle : ndarray of bool, shape (n_rounds,), optional
        Which rounds are known to be without uses; by default none.
    """

    wait: Callable[[int], int | None]
    rounds: Callable[[], int]

    def __init__(self, t_ns: Ints, idle: Bools | None = None) -> None:
        rounds, time, ends = [0], [0], t_ns[1:] - t_ns[0]

        def wait(due_ns: int) -> int | None:
            """Let time pass until `due_ns`, or until a round ends that is then under way.

            In a round without uses, a gap, all is known at any time. None if it all ends before.
            """
            if len(ends) == 0 or due_ns > ends[-1]:
                return None
            if due_ns > time[0]:
                under_way = int(np.searchsorted(ends, due_ns))
                if idle is not None and idle[under_way] and due_ns < ends[under_way]:
                    rounds[0], time[0] = under_way, due_ns
                else:
                    time[0] = int(ends[under_way])
                    rounds[0] = int(np.searchsorted(ends, time[0], "right"))
            return time[0]

        self.wait, self.rounds = wait, lambda: rounds[0]


def known_memory(name: str, memory_pages: int | None) -> int:
    """Return the size of a VM's memory, pages; raise `NeedsError` if it is not known."""
    if memory_pages is None:
        what = (
            "size of a guest's memory (pmlkit import --memory gives it, if the pages are a guest's)"
        )
        raise NeedsError(name, what, "import it again with --memory")
    return memory_pages


def notable(name: str, pages: int) -> int:
    """Return `pages`; raise `NeedsError` if they are too many to note something of each."""
    if pages > MOST_NOTES:
        what = f"memory so small that something can be noted of {pages:,} pages"
        raise NeedsError(name, what, "leave this technique out")
    return pages
