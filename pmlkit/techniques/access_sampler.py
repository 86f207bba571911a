# SPDX-License-Identifier: Apache-2.0
"""Access samplers: PEBS or IBS, one access in N, as in tiering systems."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need
from pmlkit.units import check_count

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints


@dataclass(frozen=True)
class AccessSampler(Technique):
    """The distinct pages among the accesses that the processor sampled in the last T.

    HeMem and Memtis place pages by such samples. HeMem samples one load in 5,000. Memtis starts
    with one miss of the last-level cache in 199 and adapts N to 3 % of a processor. Neither reports
    a working set. This is the most that their counts can report: a page that no sample hits is
    missed.

    A recording contains no single accesses, only the first use of a page in each round (for
    example, of 10 ms). These first uses represent accesses. A page that is read a thousand times in
    a round counts as one read. The sample is therefore more even than a real one, which favours the
    technique. One use represents many loads. The default N is that for misses, which are closer to
    a page's first use. N does not count loads: compare techniques by cost, which is that of the
    samples taken, not by N.

    Attributes
    ----------
    looks : int
        Estimates per window T.
    watched : int, optional
        Approximate number of samples in T. N follows the accesses, as Memtis adapts it to a share
        of a processor. By default N does not change.
    one_in : int
        The initial N.
    """

    name = "access-sampler"
    title = "Access sampling (PEBS, IBS)"
    source = "Raybuck et al. (HeMem), SOSP'21; Lee et al. (Memtis), SOSP'23"
    needs = frozenset({Need.SAMPLES})
    random = True
    looks: int = 1
    watched: int | None = None
    one_in: int = 199

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("one_in", self.one_in, "accesses")

    def observe(self, view: View) -> None:
        one_in, phase = self.one_in, int(view.random.integers(self.one_in))
        period, looks = view.parts(self.looks)
        recent: deque[Ints] = deque(maxlen=looks)
        for _ in view.every(period):
            recent.append(view.samples.take(one_in, phase))
            if len(recent) == looks:
                view.report(self._estimate(np.concatenate(recent)))
            if self.watched is not None and len(recent[-1]):
                accesses = one_in * len(recent[-1]) * looks  # samples in T, at the current rate
                one_in = max(round(accesses / self.watched), 1)

    def _estimate(self, samples: Ints) -> float:
        _, times = np.unique(samples, return_counts=True)
        return len(times)


@dataclass(frozen=True)
class UnseenSampler(AccessSampler):
    """As `AccessSampler`, plus an estimate of the pages that no sample hit (Chao).

    The estimate is Chao's lower bound of the number of species: D + f1 (f1 - 1) / (2 (f2 + 1)). D
    pages were hit, f1 of them once and f2 twice. No tiering system uses this bound: it shows how
    much the samples contain.

    Attributes
    ----------
    looks : int
        Estimates per window T.
    watched : int, optional
        Approximate number of samples in T.
    one_in : int
        The initial N.
    """

    name = "access-sampler-unseen"
    title = "Access sampling, unseen pages estimated"
    source = "as access-sampler; Chao, Scand. J. Statist. 1984, bias-corrected"

    def _estimate(self, samples: Ints) -> float:
        _, times = np.unique(samples, return_counts=True)
        once, twice = (np.count_nonzero(times == n) for n in (1, 2))
        return len(times) + once * (once - 1) / (2 * (twice + 1))
