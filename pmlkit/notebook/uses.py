# SPDX-License-Identifier: Apache-2.0
"""A trace's uses in memory, sorted by page: they give the working set of any part in milliseconds.

The explorer asks for it at each move of a widget.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.selection import select

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.timeline import Axis, Timeline, Windows
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Floats, Gfns, Ints

__all__ = ["UsesByPage", "windows"]


WORKERS = 2


class UsesByPage:
    """The uses of a trace's pages, 4 bytes each: sorted at first, then queried often.

    Parameters
    ----------
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
        refs, self.first, self.n_rounds = part.refs, part.first, part.refs.n_rounds
        self.timeline, self.t_ns = part.timeline, part.timeline.t_ns
        self._starts, self._rounds = refs.starts, refs.round.astype(np.int32)
        self.frames = refs.gfn[self._starts[:-1]]
        cuts = [len(refs) * i // WORKERS for i in range(WORKERS + 1)]
        cuts = np.searchsorted(self._starts[:-1], cuts).tolist()
        self._pool = ThreadPoolExecutor(WORKERS)  # starting threads takes longer than a small sum
        self._shares = list(zip(cuts[:-1], cuts[1:], strict=True))

    def __len__(self) -> int:
        return len(self._rounds)

    def chosen(self, frames: Gfns | None = None) -> Bools:
        """Return for each page whether it is one of `frames`; None selects all pages."""
        if frames is None:
            return np.ones(len(self.frames), bool)
        return np.isin(self.frames, frames)

    def part(self, span: tuple[int, int]) -> Timeline:
        """Return the timeline of the rounds from ``span[0]`` to before ``span[1]``."""
        first, stop = span
        t_ns, used = self.timeline.t_ns[first : stop + 1], self.timeline.used[first:stop]
        return replace(self.timeline, t_ns=t_ns, used=used)

    def sizes(self, over: Windows, min_count: int, span: tuple[int, int], chosen: Bools) -> Ints:
        """Return the working set of each window in pages, as `workingset.estimate` has them.

        Parameters
        ----------
        over : timeline.Windows
            Windows over the rounds of `span`.
        min_count : int
            The threshold m.
        span : (int, int)
            The first round looked at, and the one after the last; windows stay within.
        chosen : ndarray of bool, shape (pages,)
            As `UsesByPage.chosen` returns.
        """
        from pmlkit.kernels.loops import slide_pages

        how = over.enter, over.leave, min_count
        steps = self._sum(slide_pages, chosen, span, how, np.zeros(len(over) + 1, np.int32))
        return np.cumsum(steps, dtype=np.int64)[:-1]

    def means(
        self,
        min_count: int,
        span: tuple[int, int],
        chosen: Bools,
        axis: Axis,
        sizes: Ints,
    ) -> Floats:
        """Return the mean of W(t, T) over the time of full windows, for several T at once.

        It is as ``workingset.surface`` has it; NaN at 0, and where no window is full.

        Parameters
        ----------
        axis : timeline.Axis
            Where the rounds of `span` end.
        sizes : array of int64
            The T, on that axis, ascending.
        """
        from pmlkit.kernels.loops import sum_pages

        at = np.append(axis.at, axis.end)
        how = at, sizes, np.searchsorted(sizes, at, "right"), min_count
        total = np.cumsum(self._sum(sum_pages, chosen, span, how, np.zeros(len(sizes) + 1)))[:-1]
        begin = np.maximum(sizes, axis.at[0] if len(axis) else 0)
        there = (sizes > 0) & (sizes <= axis.length)
        return np.where(there, total, np.nan) / np.where(there, axis.end - begin, 1)

    def _sum(
        self,
        kernel: Callable[..., None],
        chosen: Bools,
        span: tuple[int, int],
        how: tuple[Array | int, ...],
        zeros: Array,
    ) -> Array:
        """Run the kernel on each worker's share of the pages, and add up the results."""

        def part(pages: tuple[int, int]) -> Array:
            total = zeros.copy()
            kernel(self._starts, self._rounds, chosen, pages, span, *how, total)
            return total

        return sum(self._pool.map(part, self._shares), zeros)


def windows(n_rounds: int) -> list[int]:
    """Return the windows to choose from, in (usual) rounds: 1, 2, 5, 10 and so on, up to all."""
    ladder = (step * 10**power for power in range(18) for step in (1, 2, 5))
    return [1, *(k for k in ladder if 1 < k < n_rounds), *([n_rounds] if n_rounds > 1 else [])]
