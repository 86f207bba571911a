# SPDX-License-Identifier: Apache-2.0
"""A trace's uses in memory, sorted by page: the working set of any part of it in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.selection import select
from pmlkit.timeline import Axis, Windows

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.timeline import Timeline
    from pmlkit.trace import Trace
    from pmlkit.types import Ints

__all__ = ["UsesByPage", "windows"]

WORKERS = 2


class UsesByPage:
    """The uses of a trace's pages, 4 bytes each; made once, asked again and again.

    Parameters
    ----------
    trace : Trace
    start, end : str, int or None
        Read these rounds only.

    Attributes
    ----------
    frames : ndarray of uint64, shape (pages,)
        The pages, ascending.
    n_rounds, first : int
        Rounds that were read, and the number of the first one in the trace.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    timeline : timeline.Timeline
        The same, with what windows need to know.
    """

    def __init__(
        self, trace: Trace, start: str | int | None = None, end: str | int | None = None
    ) -> None:
        part = select(trace, start=start, end=end)
        gfn, self.n_rounds = part.occ.gfn, part.occ.n_rounds
        new = np.concatenate(([True], gfn[1:] != gfn[:-1]))[: len(gfn)]
        self._starts = np.append(np.flatnonzero(new), len(gfn))
        self._rounds = part.occ.round.astype(np.int32)
        self.frames, self.first, self.t_ns = gfn[new], part.first, part.t_ns
        self.timeline = part.timeline
        cuts = [len(gfn) * i // WORKERS for i in range(WORKERS + 1)]
        cuts = np.searchsorted(self._starts[:-1], cuts).tolist()
        self._shares = list(zip(cuts[:-1], cuts[1:], strict=True))

    def __len__(self) -> int:
        return len(self._rounds)

    def chosen(self, frames: np.ndarray | None = None) -> np.ndarray:
        """Say of each page whether it is one of `frames`; of all of them without."""
        if frames is None:
            return np.ones(len(self.frames), bool)
        return np.isin(self.frames, frames)

    def part(self, span: tuple[int, int]) -> Timeline:
        """Return the rounds from ``span[0]`` to before ``span[1]`` in time."""
        first, stop = span
        t_ns, used = self.timeline.t_ns[first : stop + 1], self.timeline.used[first:stop]
        return replace(self.timeline, t_ns=t_ns, used=used)

    def sizes(
        self, k: int | Windows, min_count: int, span: tuple[int, int], chosen: np.ndarray
    ) -> np.ndarray:
        """Return the working set of each window.

        Parameters
        ----------
        k : int or timeline.Windows
            A window in rounds, which ends with every round; or windows over `span`.
        min_count : int
            The threshold m.
        span : (int, int)
            The first round looked at, and the one after the last; windows stay within.
        chosen : ndarray of bool, shape (pages,)
            Of `chosen`.

        Returns
        -------
        ndarray of int64, shape (windows,)
            Pages, as `workingset.estimate` with ``step="sliding"`` has them.
        """
        from pmlkit.kernels_explorer import slide_pages

        over = k if isinstance(k, Windows) else Windows.of_rounds(span[1] - span[0], k)
        how = over.enter, over.leave, min_count
        steps = self._sum(slide_pages, chosen, span, how, np.zeros(len(over) + 1, np.int32))
        return np.cumsum(steps, dtype=np.int64)[:-1]

    def means(
        self,
        min_count: int,
        span: tuple[int, int],
        chosen: np.ndarray,
        axis: Axis | None = None,
        sizes: Ints | None = None,
    ) -> np.ndarray:
        """Return the mean of W(t, T) over the time of full windows, for several T at once.

        Parameters
        ----------
        min_count, span, chosen
            As of `sizes`.
        axis : timeline.Axis, optional
            Where the rounds of `span` end; by default rounds are counted.
        sizes : array of int64, optional
            The T, on that axis, ascending; by default 0, 1, 2, ... up to all rounds.

        Returns
        -------
        ndarray of float, shape (sizes,)
            As ``workingset.surface`` has it; NaN at 0, and where no window is full.
        """
        from pmlkit.kernels_explorer import sum_pages

        axis = Axis.of_rounds(span[1] - span[0]) if axis is None else axis
        sizes = np.arange(len(axis) + 1) if sizes is None else np.asarray(sizes, np.int64)
        how = np.append(axis.at, axis.end), sizes, min_count
        total = self._sum(sum_pages, chosen, span, how, np.zeros(len(sizes)))
        begin = np.maximum(sizes, axis.at[0] if len(axis) else 0)
        there = (sizes > 0) & (sizes <= axis.length)
        return np.where(there, total, np.nan) / np.where(there, axis.end - begin, 1)

    def _sum(
        self,
        kernel: Callable[..., None],
        chosen: np.ndarray,
        span: tuple[int, int],
        how: tuple[Any, ...],
        zeros: np.ndarray,
    ) -> np.ndarray:
        """Let each worker go through its share of the pages, and add up what they found."""

        def part(pages: tuple[int, int]) -> np.ndarray:
            found = zeros.copy()
            kernel(self._starts, self._rounds, chosen, pages, span, *how, found)
            return found

        with ThreadPoolExecutor(WORKERS) as pool:
            return sum(pool.map(part, self._shares), zeros)


def windows(n_rounds: int) -> list[int]:
    """Return the windows to choose from, in (usual) rounds: 1, 2, 5, 10 and so on, up to all."""
    ladder = (step * 10**power for power in range(18) for step in (1, 2, 5))
    return [1, *(k for k in ladder if 1 < k < n_rounds), *([n_rounds] if n_rounds > 1 else [])]
