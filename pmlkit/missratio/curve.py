# SPDX-License-Identifier: Apache-2.0
"""The miss-ratio curve: sizes, ratios, and the values derived from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.kernels.pages import sorted_distinct

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from pmlkit.types import Floats, Ints


__all__ = ["MissRatioCurve"]


@dataclass(frozen=True)
class MissRatioCurve:
    """The miss ratio of an LRU cache against its size.

    Attributes
    ----------
    sizes_pages : ndarray of int64, shape (sizes,)
        Ascending from 0. A ratio is valid from its size up to the next.
    miss_ratio : ndarray of float, shape (sizes,)
        Misses per use, including those of first uses (cold misses).
    uses, pages : int
        Numbers of uses and of pages; for a sample, the pages are estimated.
    method : str
        ``"exact"``, ``"shards"`` or ``"aet"``.
    low, high : ndarray of float, shape (sizes,), or None
        A band that contains the true ratio at a size in 95 of 100 samples, for sampled curves.
    sampled_pages : int or None
        Number of pages in the sample.
    rate : float
        The sampled share of the pages.
    """

    sizes_pages: Ints
    miss_ratio: Floats
    uses: int
    pages: int
    method: str
    low: Floats | None = None
    high: Floats | None = None
    sampled_pages: int | None = None
    rate: float = 1.0

    @property
    def cold(self) -> float:
        """The share of first uses of pages, which miss at every cache size."""
        return float(self.miss_ratio[-1])

    def at(self, sizes: ArrayLike) -> Floats:
        """Return the miss ratio at the given sizes (pages, any shape)."""
        return self.miss_ratio[self._places(sizes)]

    def band(self, sizes: Ints) -> tuple[Floats, Floats] | None:
        """Return the lower and the upper end of the band at given sizes; None without a band."""
        if self.low is None or self.high is None:
            return None
        places = self._places(sizes)
        return self.low[places], self.high[places]

    def errors(self, truth: MissRatioCurve) -> tuple[float, float]:
        """Return the mean and the largest difference from a true curve, in misses per use.

        They are over the sizes 1 to ``truth.pages``. The largest difference is usually at a cliff
        of the curve.
        """
        sizes = np.arange(1, truth.pages + 1)
        apart = np.abs(self.at(sizes) - truth.at(sizes))
        return (float(apart.mean()), float(apart.max())) if len(sizes) else (0.0, 0.0)

    def _places(self, sizes: ArrayLike) -> Ints:
        return np.searchsorted(self.sizes_pages, np.asarray(sizes), "right") - 1

    def pages_for(self, target: float) -> int | None:
        """Return the working set for a target miss ratio (0 to 1), in pages.

        It is the smallest size whose ratio, cold misses included, is not above the target; None if
        there is none.
        """
        if not 0 <= target <= 1:
            raise UsageError(f"a miss ratio of {target} is not possible: give 0 to 1")
        met = self.miss_ratio <= target
        return int(self.sizes_pages[np.argmax(met)]) if met.any() else None

    def knee(self) -> int:
        """Return the size, in pages, beyond which more memory gains little.

        It is where the curve lies furthest below the line from its start to its end (Satopaa et
        al. 2011, "Kneedle", without smoothing; both axes scaled to 1).
        """
        fall = self.miss_ratio[0] - self.miss_ratio[-1]
        if fall <= 0:
            return 0
        x = self.sizes_pages / self.sizes_pages[-1]
        y = (self.miss_ratio - self.miss_ratio[-1]) / fall
        below = 1 - x - y
        last = np.flatnonzero(below >= below.max() - 1e-12)[-1]  # of a loop: all of its pages
        return int(self.sizes_pages[last])

    def thinned(self, points: int = 512) -> MissRatioCurve:
        """Return the curve at about `points` sizes: all small ones, then a geometric sequence.

        The values at the remaining sizes do not change.
        """
        last = int(self.sizes_pages[-1])
        wanted = np.append(0, sorted_distinct(np.rint(np.geomspace(1, max(last, 1), points))))
        places = sorted_distinct(self._places(np.minimum(wanted, last)))
        low, high = (None if end is None else end[places] for end in (self.low, self.high))
        ratio = self.miss_ratio[places]
        return replace(
            self, sizes_pages=self.sizes_pages[places], miss_ratio=ratio, low=low, high=high
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the curve as a DataFrame of ``pages``, ``miss_ratio``, ``low`` and ``high``."""
        import pandas as pd

        columns = {"pages": self.sizes_pages, "miss_ratio": self.miss_ratio}
        return pd.DataFrame(columns | {"low": self.low, "high": self.high}).astype(
            {"low": float, "high": float}
        )
