# SPDX-License-Identifier: Apache-2.0
"""How big a VM must be: percentiles of W over time, their certainty, and what changes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.law.curves import at
from pmlkit.law.swapping import swapping_at
from pmlkit.resampling import Series
from pmlkit.techniques.memory import peak_pages, reserve_pages
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import exact_ns, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.law.curves import Curves
    from pmlkit.law.swapping import Swapping
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Bools, Floats, Ints, Json

__all__ = ["Size", "is_regular", "size_of"]

ALIKE = 0.9  # share of the rounds
LEAST_INDEPENDENT = 10  # least independent windows for a statement on the next one
_COUNTS = {"total_bytes", "allocated_bytes", "anon_bytes"}
DRIVES = 0.05  # a phase is named if it adds this share of the size


@dataclass(frozen=True)
class Size:
    """The working set of a recording in pages; percentiles are of time.

    Attributes
    ----------
    window_ns : int
        T.
    cover : float
        Share of the time in which W has to fit.
    needed : float
        The size for that.
    mean, p50, p95, p99, peak : float
    windows : int
        Windows T, one after the other, that the recording has.
    independent : float
        How many independent windows these are worth (`pmlkit.resampling.Series`).
    other_windows : tuple of (int, float)
        Half and double T, as far as the recording has them, and the size needed with each.
    driver : str
        The phase that adds most to `needed`; empty if none adds much.
    without : float
        The size needed by the windows that contain nothing of that phase.
    reserve_bytes : int or None
        What the guest's kernel keeps (`pmlkit.techniques.memory.reserve_pages`); None without its
        own counts.
    peak_bytes : int or None
        The least memory with which the guest would never have swapped.
    allocated_bytes : int or None
        The most that the guest's kernel counted as allocated.
    swapping : Swapping or None
        What a VM of that size costs, by the memory model. None if it holds all, or is not known.
    """

    window_ns: int
    cover: float
    needed: float
    mean: float
    p50: float
    p95: float
    p99: float
    peak: float
    windows: int
    independent: float
    other_windows: tuple[tuple[int, float], ...]
    driver: str
    without: float
    reserve_bytes: int | None
    peak_bytes: int | None
    allocated_bytes: int | None
    swapping: Swapping | None = None

    def bytes_text(self, pages: float) -> str:
        """Return a number of pages as a size."""
        return format_bytes(pages * PAGE_SIZE)

    @property
    def vm_bytes(self) -> int | None:
        """The size of a VM that holds `needed` and what its kernel keeps."""
        if self.reserve_bytes is None or self.peak_bytes is None:
            return None
        return min(int(self.needed * PAGE_SIZE) + self.reserve_bytes, self.peak_bytes)

    @property
    def never_swaps(self) -> bool:
        """Whether a VM of that size has all the memory that the recorded one ever used at once."""
        return self.vm_bytes is not None and self.vm_bytes == self.peak_bytes

    @property
    def whole(self) -> str:
        """What is missing in a VM of that size, and the delay by it: a sentence or two, or none."""
        if self.vm_bytes is None:
            known = "known only for a whole recording whose guest reported it"
            return f"The VM must be larger: its kernel keeps memory, too ({known})."
        if self.never_swaps:
            return "In a VM of this size, nothing is ever swapped: more would not be used."
        return "" if self.swapping is None else self.swapping.text

    @property
    def sure(self) -> str:
        """The certainty of the size, in a sentence or two."""
        like = ""
        if self.independent < self.windows:
            worth = max(round(self.independent), 1)
            like = f", worth about {worth} independent one{'s' * (worth > 1)}"
        has = f"The size is of {self.windows:,} windows of T{like}"
        if self.independent < LEAST_INDEPENDENT:
            return (
                f"{has}: too few to state how likely a larger one is. Record for longer, or "
                "several times."
            )
        return (
            f"{has}. If the VM continues like this, the next window exceeds the peak with a chance "
            f"of about 1 in {round(self.independent) + 1:,}."
        )

    @property
    def changes(self) -> Iterator[str]:
        """What would change the size, a sentence each."""
        yield (
            f"Another target: {self.bytes_text(self.p95)} for 95 % of the time, "
            f"{self.bytes_text(self.p99)} for 99 %, {self.bytes_text(self.peak)} for all of it."
        )
        others = [f"{self.bytes_text(n)} with {exact_ns(ns)}" for ns, n in self.other_windows]
        if others:
            yield f"Another T: {', '.join(others)}."
        if self.driver:
            yield (
                f"Phase {self.driver} drives the size: windows without it need "
                f"{self.bytes_text(self.without)}."
            )
        if self.peak_bytes is None:
            yield "No swapping at all: pages that are not touched within T need more memory."
        elif not self.never_swaps:
            yield f"No swapping at all: the whole VM needs {format_bytes(self.peak_bytes)}."

    def as_dict(self) -> Json:
        """Return the numbers for JSON, in pages."""
        names = ("needed", "mean", "p50", "p95", "p99", "peak", "windows", "independent")
        return {name: getattr(self, name) for name in names}


def size_of(curves: Curves, window_ns: int, cover: float = 0.99) -> Size:
    """Measure how large a VM must be to hold W for a share of the time.

    Parameters
    ----------
    curves : Curves
    window_ns : int
        T.
    cover : float
        Share of the time, above 0 and at most 1.
    """
    pages, weights = _scored(curves, window_ns)
    p50, p95, p99, needed = _quantiles(pages, weights, [0.5, 0.95, 0.99, cover])
    recorded = curves.recorded
    driver, without = _driver(curves, window_ns, cover, needed)
    windows = max(int(recorded.duration_ns // window_ns), 1)
    ends = np.arange(1, windows + 1) * window_ns
    series = Series(at(curves.t_ns, curves.pages("accesses", window_ns), ends))
    reserve, most, allocated = _of_kernel(recorded)
    size = Size(
        window_ns=window_ns,
        cover=cover,
        needed=needed,
        mean=float(np.average(pages, weights=weights)),
        p50=p50,
        p95=p95,
        p99=p99,
        peak=float(pages.max()),
        windows=windows,
        independent=series.independent,
        other_windows=tuple(_with_others(curves, window_ns, cover)),
        driver=driver,
        without=without,
        reserve_bytes=reserve,
        peak_bytes=most,
        allocated_bytes=allocated,
    )
    if size.vm_bytes is None or size.never_swaps:
        return size
    return replace(size, swapping=swapping_at(recorded, size.vm_bytes))


def _scored(curves: Curves, window_ns: int, kept: Bools | None = None) -> tuple[Floats, Floats]:
    """Return W of the full windows, and the time for which each is valid; only of `kept` ones."""
    scored = curves.scored(window_ns)
    scored = scored if kept is None else scored & kept
    return curves.pages("accesses", window_ns)[scored], curves.weights[scored]


def _quantiles(pages: Floats, weights: Floats, shares: list[float]) -> list[float]:
    return np.quantile(pages, shares, weights=weights, method="inverted_cdf").tolist()


def _with_others(curves: Curves, window_ns: int, cover: float) -> Iterator[tuple[int, float]]:
    """Yield half and double T, as far as the recording has them, with the size for each."""
    recorded = curves.recorded
    unit = recorded.resolution_ns
    for other in (window_ns // 2, 2 * window_ns):
        whole = other % unit == 0 or not is_regular(recorded)
        if whole and unit <= other <= recorded.duration_ns // 2:
            (needed,) = _quantiles(*_scored(curves, other), [cover])
            yield other, needed


def is_regular(recorded: Recorded) -> bool:
    """Return whether nearly all rounds have one length, of which T must then be a multiple."""
    alike = np.abs(np.diff(recorded.t_ns) - recorded.resolution_ns) <= recorded.resolution_ns / 10
    return bool(alike.mean() > ALIKE)


def _driver(curves: Curves, window_ns: int, cover: float, needed: float) -> tuple[str, float]:
    """Return the phase without which the size is least, and that size; "" if no phase matters."""
    best, least = "", needed * (1 - DRIVES)
    for name in dict.fromkeys(name for name, _ in curves.recorded.phases):
        pages, weights = _scored(curves, window_ns, _without(curves, window_ns, name))
        if weights.sum() >= window_ns:
            (size,) = _quantiles(pages, weights, [cover])
            if size < least:
                best, least = name, size
    return best, least if best else needed


def _without(curves: Curves, window_ns: int, name: str) -> Bools:
    """Return the windows that do not overlap a phase."""
    recorded = curves.recorded
    starts = [int(recorded.t_ns[first] - recorded.t_ns[0]) for _, first in recorded.phases]
    spans: Ints = np.array([*starts, recorded.duration_ns])
    kept = np.ones(len(curves.t_ns), bool)
    for place, (phase, _) in enumerate(recorded.phases):
        if phase == name:
            ends = curves.t_ns
            kept &= (ends <= spans[place]) | (ends - window_ns >= spans[place + 1])
    return kept


def _of_kernel(recorded: Recorded) -> tuple[int, int, int] | tuple[None, None, None]:
    """Return what the guest's kernel counts, as `Size` describes it: reserve, peak, allocated."""
    guest = recorded.guest
    if guest is None or guest.empty or not set(guest) >= _COUNTS or recorded.memory_pages is None:
        return None, None, None
    reserve, peak = reserve_pages(recorded) * PAGE_SIZE, peak_pages(recorded) * PAGE_SIZE
    return reserve, peak, int(guest["allocated_bytes"].max())
