# SPDX-License-Identifier: Apache-2.0
"""Telescope: a region is in use if the highest table entry within it was; DAMON's regions."""

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

    An entry's accessed flag says whether anything below was used. So a region is sampled by a
    random address in it, at the highest level whose entry there the region has as a whole (the
    bounded variant): a page only if the region has no more. Large cold regions are found cold by
    one flag, and hot ones are cut until they are as small as what is used. Merging and splitting
    are DAMON's, and the window has the published 40 samples.

    There, the tables are an application's; here, the EPT of a VM, and so frames. There, flags are
    cleared without a flush of the TLB, which suits programs that miss it often; the model takes
    every use for a walk. The flexible variant, whose entries may reach beyond a region, is not
    modelled.

    Attributes
    ----------
    looks : int, optional
        Samplings per window T. By default as published.
    watched : int
        Regions at the most.
    sampling, aggregation : str
        As published.
    fewest : int
        Regions at the least.
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
