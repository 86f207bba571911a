# SPDX-License-Identifier: Apache-2.0
"""V(t), the report of a technique if it looked at each instant, and the scatter of draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from pmlkit.law.curves import at
from pmlkit.law.noise import NORMAL, sample_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pmlkit.law.curves import Curves
    from pmlkit.law.looks import Parts
    from pmlkit.types import Array, Floats, Ints

__all__ = ["Seen", "averaged"]


@dataclass(frozen=True)
class Seen:
    """V(t) of a technique, and the standard deviation of its draws.

    Attributes
    ----------
    curves : Curves
    of : Parts
    period_ns : int
        Between looks.
    looks : int
        Number of looks per estimate.
    """

    curves: Curves
    of: Parts
    period_ns: int
    looks: int

    def parts(self) -> tuple[Floats, Floats]:
        """Return V and the standard deviation, pages (float64, shape (instants,), each)."""
        of = self.of
        if of.one_in is not None or of.samples is not None:
            return self._hit()
        pages = self._added() if of.adds else self._pages(of.sees)
        memory = self.curves.recorded.memory_pages
        if of.watched is None or memory is None:
            return pages, np.zeros(len(pages))
        if of.known is not None:
            return pages, self._rest(pages, memory, of.watched)
        return pages, sample_error(pages, memory, of.watched, of.again) / NORMAL

    def _pages(self, channel: str) -> Floats:
        return self.curves.pages(channel, self.period_ns * self.looks)

    def _added(self) -> Floats:
        """Return the sum of the counts of single looks."""
        t_ns, pages = self.curves.t_ns, self.curves.pages(self.of.sees, self.period_ns)
        before = [at(t_ns, pages, t_ns - look * self.period_ns) for look in range(self.looks)]
        return np.sum(before, axis=0)

    def _rest(self, pages: Floats, memory: int, watched: int) -> Floats:
        """Return the scatter if some pages are counted and the others are drawn."""
        known = self._pages(self.of.known or "")
        others = memory - known
        used, drawn = np.maximum(pages - known, 0), watched * others / memory
        p = used / np.maximum(others, 1)
        left = np.maximum(others - drawn, 0) / np.maximum(others - 1, 1)
        return others * np.sqrt(p * (1 - p) / np.maximum(drawn, 1) * left)

    def _hit(self) -> tuple[Floats, Floats]:
        """Return the pages that samples of uses hit: one use in N, independently.

        With c uses in T a page is hit with ``1 - (1 - q)^c``, q = 1 / N; the hits of pages are
        independent. Of pages that are not hit see Chao, Scand. J. Statist. 1984, and for the
        variance his Biometrics 43(4), 1987.
        """
        span = self.period_ns * self.looks
        one_in = self.of.one_in or self.curves.uses(self.of.sees, span) / (self.of.samples or 1)
        q = min(1 / max(one_in, 1), 1 - 1e-12)

        def counted(value: Callable[[Ints], Array]) -> Floats:
            return self.curves.counted(self.of.sees, span, value)

        hit = counted(lambda c: 1 - (1 - q) ** c)
        if not self.of.unseen:
            twice = counted(lambda c: 1 - (1 - q) ** (2 * c))
            return hit, np.sqrt(np.maximum(twice - hit, 0))
        once = counted(lambda c: c * q * (1 - q) ** np.maximum(c - 1, 0))
        two = counted(lambda c: c * (c - 1) / 2 * q**2 * (1 - q) ** np.maximum(c - 2, 0)) + 1
        ratio = once / two
        scatter = np.sqrt(two * (ratio**4 / 4 + ratio**3 + ratio**2 / 2))
        return hit + once**2 / (2 * two), scatter


def averaged(pages: Floats, sd: Floats, weights: Sequence[float]) -> tuple[Floats, Floats]:
    """Return the largest of moving averages over looks: its mean and standard deviation.

    An average gives its weight to the newest look, and begins with the first one. The noises of
    looks are independent. The moments of the larger of two normals are Clark's (The greatest of a
    finite set of random variables, Operations Research 9(2), 1961).

    Parameters
    ----------
    pages, sd : ndarray of float64, shape (looks,)
    weights : sequence of float
        One or two weights; None: the input is returned unchanged.
    """
    if not weights:
        return pages, sd
    averages = [_moving(pages, weight) for weight in weights]
    scales = [np.sqrt(weight / (2 - weight)) for weight in weights]
    if len(weights) == 1:
        return averages[0], sd * scales[0]
    one, two = weights
    together = one * two / (1 - (1 - one) * (1 - two))  # covariance, in variances of a look
    theta = sd * np.sqrt(max(scales[0] ** 2 + scales[1] ** 2 - 2 * together, 0))
    return _larger(averages[0], averages[1], sd * scales[0], sd * scales[1], theta)


def _moving(pages: Floats, weight: float) -> Floats:
    average, result = float(pages[0]) if len(pages) else 0.0, []
    for page in pages.tolist():
        average += weight * (page - average)
        result.append(average)
    return np.array(result)


def _larger(
    a: Floats, b: Floats, sd_a: Floats, sd_b: Floats, theta: Floats
) -> tuple[Floats, Floats]:
    some = np.where(theta > 0, theta, 1.0)
    ratio = (a - b) / some
    density, share = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi), ndtr(ratio)
    share = np.where(theta > 0, share, a >= b)
    mean = a * share + b * (1 - share) + np.where(theta > 0, theta * density, 0)
    square = (a**2 + sd_a**2) * share + (b**2 + sd_b**2) * (1 - share)
    square += np.where(theta > 0, (a + b) * theta * density, 0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
