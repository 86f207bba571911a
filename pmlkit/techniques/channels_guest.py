# SPDX-License-Identifier: Apache-2.0
"""The channels of a view that lead to the guest: its own view, its disk, and its memory's size.

They are made as those of `pmlkit.techniques.channels` are; None, where the recording has nothing
of the kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.techniques.channel import Clock
    from pmlkit.techniques.memory import Counters
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Array, Bools, Ints


__all__ = ["disk", "guest", "memory"]


def guest(
    recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object
) -> Channel | None:
    """Let the guest be asked for its own view of its memory, if it was recorded."""
    table = recorded.guest
    if table is None or len(table) == 0:
        return None
    times, rows = table["t_ns"].to_numpy() - recorded.t_ns[0], table.to_dict("records")

    def ask() -> dict[str, Any] | None:
        """Return the guest's latest sample (dict of the trace's columns), None before the first."""
        now = clock.wait(0)
        index = int(np.searchsorted(times, now, "right")) - 1  # type: ignore[call-overload]
        charge(hypercalls=1)
        return dict(rows[index]) if index >= 0 else None  # type: ignore[arg-type]

    return Channel(ask=ask)


def disk(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel | None:
    """Watch the guest's disk requests, if they were recorded."""
    table = recorded.disk
    if table is None:
        return None
    times = table["t_ns"].to_numpy() - recorded.t_ns[0]
    columns = {name: table[name].to_numpy() for name in ("sector", "gfn", "write")}
    done = [0]

    def requests() -> tuple[Array, ...]:
        """Return the requests since the last call: a tuple of arrays sector, gfn, write (bool)."""
        first, done[0] = done[0], int(np.searchsorted(times, clock.wait(0), "right"))  # type: ignore[call-overload]
        charge(disk_requests=done[0] - first)
        return tuple(column[first : done[0]].copy() for column in columns.values())

    return Channel(requests=requests)


def memory(
    recorded: Recorded, clock: Clock, charge: Callable[..., Any], model: Any
) -> Channel | None:
    """Give and take the guest's memory: what it does then is a replay, of `techniques.memory`."""
    from pmlkit.techniques.memory import Guest, MemoryModel

    if recorded.guest is None or len(recorded.guest) == 0:
        return None
    vm = Guest(recorded, model or MemoryModel())

    def resize(pages: int) -> None:
        """Give the guest so many pages, by its balloon: at once, as far as they can be had."""
        vm.advance(clock.rounds())
        charge(balloon_pages=abs(vm.resize(pages)), hypercalls=1)

    def limit() -> int:
        """Return the memory that the guest has now, pages."""
        return vm.limit

    def counters() -> Counters:
        """Ask the guest for its own counters: a `pmlkit.techniques.memory.Counters`."""
        vm.advance(clock.rounds())
        told = vm.counters()
        charge(hypercalls=1, swap_ins=told.new_swap_ins, swap_outs=told.new_swap_outs)
        return told

    def evictions() -> tuple[Ints, Bools]:
        """Return the frames that it evicted and took back since the last call, in order.

        The hypervisor keeps what is evicted: each is a copy in its memory, and nobody has to wait
        for a disk.

        Returns
        -------
        frames : ndarray of int64
        back : ndarray of bool
            True for a page that came back, False for one that went.
        """
        vm.advance(clock.rounds())
        vm.counters()
        frames, back = vm.evictions()
        charge(cache_copies=len(frames))
        return frames, back

    return Channel(resize=resize, limit=limit, counters=counters, evictions=evictions)
