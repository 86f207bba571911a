# SPDX-License-Identifier: Apache-2.0
"""The frames of a sample that the hypervisor examines: ``public/pml.h`` of the patches.

A sample has one frame of each group of `one_in`. A hash of the group's number and of the draw's
number selects it (``XEN_PML_DRAW``). There are two ways:

- **fixed**: draw 0 in all rounds.
- **new in each round**: draw 1 + n in round n. Flags stay set once set. A frame's flag therefore
  belongs to one round only if it was cleared when that round began. When Xen examines a region of
  512 frames, it also clears the flags of the next draw. It examines a region in the rounds in which
  it is used. The draw in a round is the one that was cleared when the region was last examined. If
  that was round m, the draw is number m + 2. In the first round n, a region has draw n + 1, because
  enabling clears all flags. A region that is used in every round therefore has draw n + 1 in round
  n. A region that was idle since round m keeps its draw, and no access has set those flags since.

A log contains only the frames found, so it does not reveal the draw of every region.
`pmlkit.reads.sampled` does not need it: a frame's chance is 1 in `one_in` in each round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Bools, Gfns, Ints


__all__ = ["chosen", "found_redrawn", "places"]

REGION_SHIFT = 9  # frames that share a table of the EPT
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Knuth's multiplicative hash


def places(groups: Gfns, one_in: int, draw: int | Ints = 0) -> Gfns:
    """Return the position of the drawn frame in each group.

    Parameters
    ----------
    groups : ndarray of uint64, shape (groups,)
        Numbers of groups: frame numbers over `one_in`.
    one_in : int
        Frames in a group: a power of two.
    draw : int or ndarray of int64, shape (groups,)
        0: the fixed sample; 1 + n: that of round n.

    Returns
    -------
    ndarray of uint64, shape (groups,)
        From 0 to ``one_in - 1``.
    """
    if one_in < 1 or one_in & (one_in - 1):
        raise UsageError(f"a sample of one in {one_in} is not possible: give a power of two")
    groups = np.asarray(groups, np.uint64)
    draws = np.broadcast_to(np.asarray(draw, np.uint64), groups.shape)
    mixed = (groups + (draws << np.uint64(40))) * _GOLDEN
    mixed ^= mixed >> np.uint64(32)
    return (np.where(draws > 0, mixed, groups) * _GOLDEN >> np.uint64(40)) % np.uint64(one_in)


def chosen(gfns: Gfns, one_in: int, draw: int | Ints = 0) -> Bools:
    """Mask the frames (ndarray of uint64) that are in a draw; parameters as for `places`."""
    gfns, size = np.asarray(gfns, np.uint64), np.uint64(one_in)
    return places(gfns // size, one_in, draw) == gfns % size


def found_redrawn(rounds: Ints, gfns: Gfns, one_in: int, before: int = 0) -> Bools:
    """Mask the touched frames that a sample with a new draw in each round finds.

    Parameters
    ----------
    rounds, gfns : ndarrays of int64 and uint64, shape (touches,)
        All frames that were touched in each round, in any order.
    one_in : int
    before : int
        Number of rounds that were closed before round 0; each number gives a different sample.

    Returns
    -------
    ndarray of bool, shape (touches,)
    """
    regions = np.asarray(gfns, np.uint64) >> np.uint64(REGION_SHIFT)
    looks, which = np.unique(
        np.stack([regions.astype(np.int64), np.asarray(rounds, np.int64)]), axis=1,
        return_inverse=True,
    )  # fmt: skip
    region, number = looks
    draws = number + 1
    again = region[1:] == region[:-1]
    draws[1:][again] = number[:-1][again] + 2
    return chosen(gfns, one_in, before + draws[which.ravel()])
