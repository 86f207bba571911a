# SPDX-License-Identifier: Apache-2.0
"""More channels: what a Linux host offers for its own processes, applied to a VM's memory.

As in `pmlkit.techniques.channels`, each is a record of functions that answer for the time up to
now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.techniques.setting import latest_use, since_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.setting import Setting
    from pmlkit.types import Ints

GENERATIONS = 4  # MAX_NR_GENS of Linux


class AgingChannel(NamedTuple):
    """The generations of the host's MGLRU, for the VM's control group."""

    age: Callable[[bool], Ints]


class SoftDirtyChannel(NamedTuple):
    """The soft-dirty bits of the VMM's memory."""

    collect: Callable[[], Ints]


class SamplesChannel(NamedTuple):
    """Accesses that the processor samples."""

    take: Callable[[int, int], Ints]


def aging(setting: Setting) -> AgingChannel:
    """Open the channel `AgingChannel`."""
    recorded, clock, charge, _ = setting
    places = recorded.places
    latest, aged_at = latest_use(recorded.accesses, clock, places), 0
    gone_by = np.full(len(places) - 1, -1)  # agings since a page was found young; -1: never

    def age(notifies: bool) -> Ints:
        """Begin a generation; return the pages of each, the newest first (ndarray, shape (4,)).

        The newest is then empty: pages touched since the previous aging are in the next one. Pages
        older than the third generation are in the last.

        Parameters
        ----------
        notifies : bool
            Whether MGLRU asks KVM for the guest's accesses. If not, it sees only the pages that the
            host maps for the guest, on their first use.
        """
        nonlocal aged_at
        young = latest() >= aged_at
        if not notifies:
            young &= gone_by < 0
        np.minimum(gone_by + 1, GENERATIONS - 1, out=gone_by, where=gone_by >= 0)
        gone_by[young] = 1
        aged_at = clock.rounds()
        pages = recorded.known_memory_pages
        if notifies:
            charge(pages_aged=pages, pages_young=int(np.count_nonzero(young)))
        else:
            charge(pages_walked=pages)
        return np.bincount(gone_by[gone_by >= 0], minlength=GENERATIONS)

    return AgingChannel(age)


def soft_dirty(setting: Setting) -> SoftDirtyChannel:
    """Open the channel `SoftDirtyChannel`."""
    recorded, clock, charge, _ = setting
    since = since_last(clock)

    def collect() -> Ints:
        """Return the frames written since the last call, and clear the bits (ndarray of int64).

        Clearing removes the guest's mapping of each page, so each touched page faults, even if it
        is only read. Reading and clearing cover the whole memory.
        """
        rounds = since()
        written = np.unique(recorded.writes.between(*rounds))
        used = np.concatenate((written, recorded.accesses.between(*rounds)))
        charge(
            soft_dirty_pages=recorded.known_memory_pages,
            soft_dirty_writes=len(written),
            soft_dirty_reads=len(np.unique(used)) - len(written),
        )
        return written

    return SoftDirtyChannel(collect)


def samples(setting: Setting) -> SamplesChannel:
    """Open the channel `SamplesChannel`."""
    recorded, clock, charge, _ = setting
    since, starts = since_last(clock), recorded.accesses.starts

    def take(one_in: int, phase: int) -> Ints:
        """Return the frames of the sampled accesses since the last call, in order.

        A recording contains the first use of a page in each round; this counts as an access. It is
        closer to a miss of the caches, or of the TLB, than to a load.

        Parameters
        ----------
        one_in : int
            One access in this number is sampled.
        phase : int
            Position of the sampled access, from 0.
        """
        first, stop = (int(starts[r]) for r in since())
        taken = recorded.accesses.gfn[first + (phase - first) % one_in : stop : one_in]
        charge(access_samples=len(taken))
        return taken.copy()

    return SamplesChannel(take)
