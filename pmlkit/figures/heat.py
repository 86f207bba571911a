# SPDX-License-Identifier: Apache-2.0
"""The heat map: page frames against time, at the resolution of a paper's column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm

from pmlkit.figures.axes import (
    address_format,
    address_name,
    color_bar,
    mark_phases,
    pages_name,
    seconds_axis,
    time_limits,
)
from pmlkit.figures.style import finish, new_figure, paper_figure
from pmlkit.kernels.pages import sorted_distinct
from pmlkit.selection import rounds_of
from pmlkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

    from pmlkit.figures.style import Figure, Time
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Gfns, Ints

    # Columns of the entries that are drawn.
    Entries = Callable[[list[str]], Iterator[Any]]


__all__ = ["Cells", "cells", "heat_map"]

MAX_COLUMNS = {1: 360, 2: 800}
MAX_ROWS = 220


@dataclass(frozen=True)
class Cells:
    """Touched pages by range of frames and time.

    Attributes
    ----------
    pages : ndarray of int64, shape (rows, columns)
        Distinct frames touched in the cell.
    block_pages : int
        Frames of a row, a power of two.
    blocks : ndarray of uint64, shape (rows,)
        First frame of each row, divided by `block_pages`; ascending, with holes.
    t_ns : ndarray of int64, shape (columns + 1,)
        The columns' edges.
    """

    pages: Ints
    block_pages: int
    blocks: Gfns
    t_ns: Ints

    @property
    def first_frames(self) -> Gfns:
        """The first frame of each row: ndarray of uint64, shape (rows,)."""
        return self.blocks << np.uint64(self.block_pages.bit_length() - 1)

    def to_frame(self) -> pd.DataFrame:
        """Return the touched cells as a table, one row each."""
        row, column = np.nonzero(self.pages)
        return pd.DataFrame(
            {
                "t_start_ns": self.t_ns[column],
                "t_end_ns": self.t_ns[column + 1],
                "gfn_start": self.first_frames[row],
                "gfn_count": self.block_pages,
                "pages": self.pages[row, column],
            }
        )


def cells(
    trace: Trace,
    max_rows: int = MAX_ROWS,
    max_columns: int = 360,
    start: Time = None,
    end: Time = None,
    kinds: str | int | None = None,
) -> Cells:
    """Count the distinct frames touched in each cell of a grid of frames and time.

    Reads the entries twice and keeps a few bytes per frame in use, however long the trace is.

    Parameters
    ----------
    trace : Trace
    max_rows, max_columns : int
        Size of the grid; ranges of frames that nothing touches take no rows.
    start, end : str, int or None
        Look at the rounds between these times only.
    kinds : str or None
        As in `Trace.entries`.

    Returns
    -------
    Cells
    """
    start_ns, end_ns = time_limits(trace, start, end)
    first, stop = rounds_of(trace, start_ns, end_ns)
    entries = partial(trace.iter_entries, start_ns=start_ns, end_ns=end_ns, kinds=kinds)
    used = _used_frames(entries)
    shift, blocks = _rows(used, max_rows)
    per_column = max(-(-(stop - first) // max_columns), 1)
    edges = np.append(np.arange(first, stop, per_column), stop)
    times = np.append(trace.rounds["t_start_ns"], trace.duration_ns)
    grid = np.zeros((len(blocks), len(edges) - 1), np.int64)
    _fill(grid, entries, first, per_column, used, np.searchsorted(blocks, used >> shift))
    return Cells(grid, 1 << int(shift), blocks, times[edges])


def _used_frames(entries: Entries) -> Gfns:
    used = np.zeros(0, np.uint64)
    for batch in entries(["gfn"]):
        used = sorted_distinct(np.concatenate((used, batch.column("gfn").to_numpy())))
    return used


def _rows(frames: Gfns, max_rows: int) -> tuple[np.uint64, Gfns]:
    """Choose the frames per row, ``1 << shift``, and the rows: used ones and short holes.

    Frames are unsigned throughout: the highest are close to 2^64.
    """
    shift, used, hole = np.uint64(0), frames, max(max_rows // 24, 1)
    while True:
        # A short hole is drawn: the mark of a cut would take as much room.
        lengths = np.ones(len(used), np.int64)
        joined = np.diff(used)
        lengths[:-1][joined <= hole] = joined[joined <= hole]
        if lengths.sum() <= max_rows:
            break
        shift, used = shift + np.uint64(1), sorted_distinct(used >> np.uint64(1))
    pieces = [
        first + np.arange(length, dtype=np.uint64)
        for first, length in zip(used, lengths, strict=True)
    ]
    return shift, np.concatenate(pieces) if pieces else used


def _fill(
    grid: Array, entries: Entries, first: int, per_column: int, used: Gfns, row: Ints
) -> None:
    # The column in which a frame was last counted. Entries come in the order of rounds: this
    # suffices to count a frame once per column across record batches.
    counted = np.full(len(used), -1, np.int32)
    for batch in entries(["round", "gfn"]):
        column = (batch.column("round").to_numpy().astype(np.int64) - first) // per_column
        frame = np.searchsorted(used, batch.column("gfn").to_numpy())
        column, frame = np.divmod(sorted_distinct(column * len(used) + frame), max(len(used), 1))
        new = counted[frame] < column
        column, frame = column[new], frame[new]
        np.maximum.at(counted, frame, column)
        cell = row[frame] * grid.shape[1] + column
        grid += np.bincount(cell, minlength=grid.size).reshape(grid.shape)


@paper_figure
def heat_map(
    trace: Trace,
    columns: int = 1,
    start: Time = None,
    end: Time = None,
    kinds: str | int | None = None,
) -> Figure:
    """Draw which guest frames were touched when.

    Parameters
    ----------
    kinds : str or None
        Accesses that count; by default all.
    """
    grid = cells(trace, MAX_ROWS, MAX_COLUMNS[1 if columns == 1 else 2], start, end, kinds)
    figure = new_figure(columns, 2.6 if columns == 1 else 3.2, {"cells": grid.to_frame()})
    axes = figure.subplots()
    position = _positions(grid.blocks)
    mesh = _draw_cells(axes, grid, position)
    _address_axis(axes, trace, grid, position)
    seconds_axis(axes, grid.t_ns[0], grid.t_ns[-1], trace)
    mark_phases(axes, trace)
    bar = color_bar(axes, mesh, "pages touched in the cell (%)")
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=[">0", "5", "20", "50", "100"])
    cell = _size(grid.block_pages, trace.meta.domain["page_size"])
    span_ms = np.diff(grid.t_ns).max() / 1e6 if len(grid.t_ns) > 1 else 0
    return finish(
        figure,
        trace,
        f"the times at which {pages_name(trace)} were touched. A cell is {cell} of "
        f"{address_name(trace)}es by {span_ms:g} ms. It is dark if all its pages were touched, and "
        "white if none was. Address ranges without accesses are omitted at the grey lines.",
    )


_LINES = 11  # of ticks on the axis of addresses, about
_CUT = 3  # white rows in place of an omitted range of addresses


def _size(pages: int, page_size: int) -> str:
    """Format the size of a cell: below 1 GiB in KiB, which compare to pages."""
    if pages >= 1 << 40:
        return f"2^{pages.bit_length() - 1} pages"
    kib, rest = divmod(pages * page_size, 1024)
    return f"{kib:,} KiB" if not rest and kib < 1 << 20 else format_bytes(pages * page_size)


def _positions(blocks: Gfns) -> Ints:
    """Return the row at which each block is drawn: cut-out ranges take `_CUT` rows."""
    steps = np.where(np.diff(blocks) == 1, 1, 1 + _CUT)
    return np.concatenate(([0], np.cumsum(steps))) if len(blocks) else np.zeros(0, int)


def _draw_cells(axes: Axes, grid: Cells, position: Ints) -> QuadMesh:
    height = int(position[-1]) + 1 if len(position) else 1
    image = np.zeros((height, max(grid.pages.shape[1], 1)))
    if len(position) and grid.pages.size:
        image[position] = grid.pages / grid.block_pages
    edges = grid.t_ns / 1e9 if len(grid.t_ns) > 1 else np.array([0, 1])
    mesh = axes.pcolormesh(
        edges,
        np.arange(height + 1),
        np.ma.masked_equal(image, 0),
        cmap="viridis_r",
        # Most cells are touched sparsely: the root keeps them apart.
        norm=PowerNorm(0.5, 0, 1),
        rasterized=True,
    )
    axes.set_ylim(0, height)
    return mesh


def _address_axis(axes: Axes, trace: Trace, grid: Cells, position: Ints) -> None:
    page_size = trace.meta.domain["page_size"]
    addresses = [frame * page_size for frame in grid.first_frames.tolist()]
    row_bytes = grid.block_pages * page_size
    text, name = address_format(trace, max(addresses, default=0), row_bytes)
    cut = np.flatnonzero(np.diff(position) > 1)
    for row in cut:
        axes.axhline(position[row] + 1 + _CUT / 2, color="#999999", lw=0.5, zorder=3)
    ticks = _address_ticks(addresses, row_bytes, position, cut)
    axes.set_yticks([y for y, _ in ticks], [text(address) for _, address in ticks])
    axes.set_ylabel(name)


def _address_ticks(
    addresses: Sequence[int], row_bytes: int, position: Ints, cut: Ints
) -> list[tuple[int, int]]:
    """Choose (row, address) pairs, well apart: each range's start, and round addresses."""
    if not len(position):
        return []
    distance = (position[-1] + 1) / _LINES
    step = row_bytes << max(int(np.ceil(np.log2(distance))), 0)
    chosen: list[tuple[int, int]] = []
    starts = np.concatenate(([0], cut + 1))
    for rank, index in [(0, i) for i in starts] + [(1, i) for i in range(len(addresses))]:
        if rank and addresses[index] % step:
            continue
        if all(abs(position[index] - row) >= distance * 0.6 for row, _ in chosen):
            chosen.append((int(position[index]), addresses[index]))
    return sorted(chosen)
