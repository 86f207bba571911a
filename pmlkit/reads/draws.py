# SPDX-License-Identifier: Apache-2.0
"""Which frames of a sample the hypervisor looks at, as ``public/pml.h`` of the patches defines it.

A sample has one frame of each group of `one_in`. A hash of the group's number and of the draw's
chooses it (``XEN_PML_DRAW``). There are two ways:

- **fixed**: draw 0 in all rounds.
- **anew**: draw 1 + n in round n. Flags are sticky, so a frame's flag is of one round only if it
  was cleared when that round began. Whenever a region of 512 frames is looked at, the flags of its
  next draw are cleared, too. A region is looked at in the rounds in which it is used. In a round
  it has the draw that was cleared when it was last looked at, in round m say: draw m + 2. In its
  first round n it has draw n + 1, as enabling clears all flags. So a region that is used in every
  round has draw n + 1 in round n. One that was idle since round m has the same old draw, whose
  flags nobody has set since.

Only the frames found are in a log, so it does not tell of every region which draw it had. What
`pmlkit.reads.sampled` estimates does not need it: a frame's chance is 1 in `one_in` in each round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Bools, Gfns, Ints


__all__ = ["chosen", "found_anew", "places"]

REGION_SHIFT = 9  # frames that share a table of the EPT
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Knuth's multiplicative hash


def places(groups: Gfns, one_in: int, draw: int | Ints = 0) -> Gfns:
    """Say which frame of each group is drawn.

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
        raise UsageError(f"cannot take a sample of one in {one_in}: say a power of two")
    groups = np.asarray(groups, np.uint64)
    draws = np.broadcast_to(np.asarray(draw, np.uint64), groups.shape)
    mixed = (groups + (draws << np.uint64(40))) * _GOLDEN
    mixed ^= mixed >> np.uint64(32)
    return (np.where(draws > 0, mixed, groups) * _GOLDEN >> np.uint64(40)) % np.uint64(one_in)


def chosen(gfns: Gfns, one_in: int, draw: int | Ints = 0) -> Bools:
    """Mask the frames (ndarray of uint64) that are in a draw; parameters as for `places`."""
    gfns, size = np.asarray(gfns, np.uint64), np.uint64(one_in)
    return places(gfns // size, one_in, draw) == gfns % size


def found_anew(rounds: Ints, gfns: Gfns, one_in: int, before: int = 0) -> Bools:
    """Mask what a sample that is drawn anew in each round finds of what was touched.

    Parameters
    ----------
    rounds, gfns : ndarrays of int64 and uint64, shape (touches,)
        All frames that were touched in each round, in any order.
    one_in : int
    before : int
        Draws of rounds that were closed before round 0: another number gives another sample.

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
