# SPDX-License-Identifier: Apache-2.0
"""Google's far memory: a histogram of pages by age, and the age at which a page becomes cold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import PageIndex
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

OLDEST = 255  # scans; an age has 8 bits
_SOURCE = "Lagar-Cavilla et al., ASPLOS'19"
_MINUTE_NS = 60_000_000_000


class Ages:
    """The ages of the pages found so far, in scans: 0 in the scan that finds a page accessed."""

    def __init__(self) -> None:
        self._index, self._turn = PageIndex(), 0
        self._last = np.zeros(1024, np.int64)  # scan that found each page last

    def add(self, accessed: Ints) -> Ints:
        """Add a scan; return the ages of the known pages that were accessed (ndarray of int64).

        Parameters
        ----------
        accessed : ndarray of int64
            Frames, each once.
        """
        known = len(self._index)
        ids = self._index.ids(accessed.view(np.uint64))
        if len(self._index) > len(self._last):
            self._last = np.append(self._last, np.zeros(len(self._index), np.int64))
        self._turn += 1
        were = np.minimum(self._turn - self._last[ids[ids < known]] - 1, OLDEST)
        self._last[ids] = self._turn
        return were

    def histogram(self) -> Ints:
        """Return the number of pages of each age (ndarray of int64, shape (OLDEST + 1,))."""
        ages = self._turn - self._last[: len(self._index)]
        return np.bincount(np.minimum(ages, OLDEST), minlength=OLDEST + 1)


@dataclass(frozen=True)
class ColdAge(Technique):
    """kstaled's cold-age histogram: the pages whose age is below T.

    A scan reads and clears every accessed flag, and records each page's age in scans (8 bits). The
    published interval is 120 s, which is also the shortest T: one look per T. `idle-pages` is the
    same estimate, with two looks by default. This histogram is the paper's, for all T that are
    whole scans, up to 255.

    Attributes
    ----------
    looks : int
        Scans per window T.
    """

    name = "cold-age"
    title = "Cold-age histogram (kstaled)"
    source = _SOURCE
    needs = frozenset({Need.ACCESSED})
    looks: int = 1

    def observe(self, view: View) -> None:
        view.accessed.scan()  # the flags are as old as the VM: clear all of them first
        period, looks = view.parts(self.looks)
        ages = Ages()
        for turn, _ in enumerate(view.every(period), start=1):
            ages.add(view.accessed.scan())
            if turn >= looks:
                young = ages.histogram()[:looks].sum()
                view.report(young if looks <= OLDEST else view.memory_pages)


@dataclass(frozen=True)
class FarMemory(Technique):
    """kreclaimd's choice: the pages in near memory after old pages have moved to far memory.

    The age at which a page becomes cold is the lowest one at which few pages would have returned.
    The limit per minute is the share `promotions` of the working set, which is the pages of age 0.
    Each scan has such a best age. The age in use is a high percentile of all of them so far, or the
    last one if it is higher. Until `warm_up` has passed, nothing is cold, and there is no estimate.
    This is not an estimate of W(t, T): it is the memory that the published rule leaves to a job.

    The minute is scaled like all published times. The share is the published one. The authors tuned
    the percentile and the warm-up to their fleet: the values here are ours.

    Attributes
    ----------
    scan : str
        Between scans, as published.
    promotions : float
        Per minute, as a share of the working set.
    percentile : float
    warm_up : int
        Scans.
    """

    name = "far-memory"
    title = "Far memory (kreclaimd)"
    source = _SOURCE
    needs = frozenset({Need.ACCESSED})
    scan: str = "120s"
    promotions: float = 0.002
    percentile: float = 98.0
    warm_up: int = 2

    def observe(self, view: View) -> None:
        view.accessed.scan()
        period = view.published(self.scan)
        minutes = parse_duration_ns(self.scan) / _MINUTE_NS
        ages = Ages()
        best: list[int] = []  # age of each scan
        for turn, _ in enumerate(view.every(period), start=1):
            back = ages.add(view.accessed.scan())
            histogram = ages.histogram()
            allowed = self.promotions * minutes * histogram[0]
            best.append(_lowest(np.bincount(back, minlength=OLDEST + 1), allowed))
            if turn >= self.warm_up:
                cold = max(int(np.percentile(best, self.percentile, method="higher")), best[-1])
                view.report(histogram[:cold].sum())


def _lowest(returned: Ints, allowed: float) -> int:
    """Return the lowest age, at least 1, at which returning pages are within the limit.

    Parameters
    ----------
    returned : ndarray of int64, shape (OLDEST + 1,)
        Pages that came back, by their age then.
    """
    from_age_on = returned[::-1].cumsum()[::-1]
    return max(int(np.count_nonzero(from_age_on > allowed)), 1)
