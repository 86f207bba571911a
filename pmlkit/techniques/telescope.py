# SPDX-License-Identifier: Apache-2.0
"""Telescope: a region is in use if the highest table entry within it was used; DAMON's regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.damon import Damon

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.view import View
    from pmlkit.types import Bools, Ints

LEVELS = (27, 18, 9, 0)  # bits of the pages under an entry: 512 GiB, 1 GiB, 2 MiB, one page


@dataclass(frozen=True)
class Telescope(Damon):
    """DAMON's regions, each sampled by the highest entry of the page tables that lies within it.

    An entry's accessed flag shows whether anything below was used. A region is sampled by a random
    address in it, at the highest level whose entry lies entirely within the region (the bounded
    variant). A single page is sampled only if the region is no larger. One flag shows that a large
    cold region is cold. Hot regions are split until they are as small as the used memory. Merging
    and splitting are DAMON's, and the window has the published 40 samples.

    There, the tables are an application's. Here, they are the EPT of a VM, so the units are frames.
    There, flags are cleared without a flush of the TLB, which suits programs with many TLB misses.
    The model treats every use as a walk. The flexible variant, whose entries may extend beyond a
    region, is not modelled.

    Attributes
    ----------
    looks : int, optional
        Samplings per window T. Default: as published.
    watched : int
        Largest number of regions.
    sampling, aggregation : str
        As published.
    fewest : int
        Smallest number of regions.
    """

    name = "telescope"
    title = "Telescope"
    source = "Nair et al., USENIX ATC'24 (bounded); arXiv 2311.10275"
    aggregation: str = "200ms"

    def _pick(self, view: View, edges: Ints) -> Callable[[], Bools]:
        first, stop = edges[:-1], edges[1:]
        address = view.random.integers(first, stop)
        level = np.zeros(len(address), np.int64)
        for bits in sorted(LEVELS):
            entry = address >> bits
            level[(entry << bits >= first) & (entry + 1 << bits <= stop)] = bits

        def check() -> Bools:
            accessed = np.zeros(len(address), bool)
            for bits in np.unique(level).tolist():
                of = level == bits
                entries = address[of] >> bits
                upper = bits > 0
                accessed[of] = (
                    view.accessed.upper(bits, entries)
                    if upper
                    else view.accessed.harvest(entries, alone=True)
                )
            return accessed

        check()  # clears the flags
        return check
