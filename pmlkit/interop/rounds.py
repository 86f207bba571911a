# SPDX-License-Identifier: Apache-2.0
"""`Imported`, the result of a format's module; its rows become rounds and batches.

The cost depends on rows and pages. It does not grow with rounds, ticks, or the highest address.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa

from pmlkit.kernels.pages import PageIndex, grown
from pmlkit.trace.kinds import Kind
from pmlkit.trace.parquet import constant
from pmlkit.trace.schema import DEFAULTS, PAGE_SIZE, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pmlkit.trace.writer import TraceWriter
    from pmlkit.types import Array, Ints, Json

    Column = Array | int  # an array, or an int for all rows
    Chunk = tuple[Column, Column, Column, Array, Column]  # start, end, vcpu, gfn, kind


__all__ = ["Imported", "Late", "OutOfOrder", "Rows", "columns", "from_zero", "regular_ns", "tables"]

REGULAR_SHARE = 0.9  # share of the rounds that must have the length that is called the period
_CHUNK = 1 << 18
_EXEC = int(Kind.EXEC)


class Late(TypedDict, total=False):
    """Attributes of `Imported` that are known only after the last row."""

    complete: bool | None
    notes: tuple[str, ...]
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Imported:
    """The content of a foreign file.

    Attributes
    ----------
    rounds : iterable of (start, end, vcpu, gfn, kind)
        Rows in order of use: frames (ndarray), and for each the interval that contains it (ns), the
        vCPU and the kind. Each of these is an array of the frames' length, or an int for all of
        them. Consecutive rows with the same start and end belong to one interval, also across
        chunks. Intervals do not overlap. A chunk without frames, with an int as start and end, is
        an interval without entries.
    kind : {"access", "pml"}
    notes : sequence of str
        Unknown facts about it.
    clock : str
    round_ns : int, optional
        The period, if known; otherwise that of the rounds if they are regular.
    ordered : bool
        Whether the order within an interval is known. If so, every use is kept: a round ends where
        a page returns. If not, a page counts once per interval for each kind.
    each_a_use : bool
        Whether each row is a separate use (a request). If not, a row of another kind for a page of
        the same interval is the same use, and only a repeated kind ends the round.
    distinct : bool
        Whether no page occurs twice in an interval, so that no search is needed.
    losses : {"counted", "not counted"}
        Whether the file states what was lost.
    lost : int
        Number of lost entries; they are assigned to the last round.
    lost_at : sequence of (int, int)
        Instead of `lost`: the time of each loss (ns), and its number.
    base_ns : int, optional
        Time of the file's clock at the time 0 of `rounds`. Without it, times that begin later than
        they last are moved to 0, and their beginning is the base.
    address : {"guest-physical", "virtual", "block"}
        The unit of frame numbers.
    page_size : int
        Bytes.
    complete : bool or None
        None: not known.
    counts : dict of str to int
        Further counts for the notes.
    late : callable, optional
        Called after the last row.
    """

    rounds: Iterable[Chunk]
    kind: str = "access"
    notes: tuple[str, ...] = ()
    clock: str = "host"
    round_ns: int | None = None
    ordered: bool = True
    each_a_use: bool = False
    distinct: bool = False
    losses: str = "not counted"
    lost: int = 0
    lost_at: tuple[tuple[int, int], ...] = ()
    base_ns: int | None = None
    address: str = "guest-physical"
    page_size: int = PAGE_SIZE
    complete: bool | None = True
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    late: Callable[[], Late] | None = None

    def finished(self) -> Imported:
        """Return a copy with the attributes of `late`."""
        return self if self.late is None else dataclasses.replace(self, **self.late())


class OutOfOrder(Exception):
    """A row whose interval goes back in time, or overlaps another. Attribute: `row`."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(row)


class Rows:
    """Write rows as entries of rounds and batches.

    Attributes
    ----------
    rows, cuts, merged, pages, rounds : int
        Numbers of rows added; rounds that begin where a page returned; rows merged into others;
        distinct pages; rounds, including those without entries.
    reordered : bool
        Whether executed frames were moved to the end of their round.
    highest, highest_vcpu : int
        The highest frame (-1 without any) and vCPU.
    """

    def __init__(self, writer: TraceWriter, imported: Imported) -> None:
        from pmlkit.kernels import loops

        self._kernel = loops
        self._writer = writer
        self._how = _how_to_cut(imported)
        self._index = PageIndex()
        self._last_round = np.empty(0, np.int64)
        self._last_kinds = np.empty(0, np.uint8)
        self._state = np.zeros(6, np.int64)
        self._state[loops.ROUND] = -1
        self._spans: list[Ints] = []
        self._held: dict[str, Array] = {}  # executed frames of the open round
        self._batch = (-1, -1, -1)  # number, round and vCPU of the open batch
        self._runs: list[tuple[Array, Array, Array]] = []  # number, round and vCPU of batches
        self.rows, self.highest, self.highest_vcpu, self.reordered = 0, -1, 0, False

    @property
    def cuts(self) -> int:
        return int(self._state[self._kernel.CUTS])

    @property
    def merged(self) -> int:
        return int(self._state[self._kernel.MERGED])

    @property
    def pages(self) -> int:
        """Distinct pages so far."""
        return len(self._index)

    @property
    def rounds(self) -> int:
        """Rounds so far, including those without entries."""
        return int(self._state[self._kernel.ROUND]) + 1

    def add(self, start: Column, end: Column, vcpu: Column, gfn: Array, kind: Column) -> None:
        """Add a chunk that `columns` returned.

        Raises
        ------
        OutOfOrder
            If an interval goes back, ends before it starts, or overlaps another.
        """
        if not len(gfn):
            self._add_empty(int(start), int(end))
            return
        columns = [np.broadcast_to(column, len(gfn)) for column in (start, end, vcpu, gfn, kind)]
        for at in range(0, len(gfn), _CHUNK):
            self._add(*(np.ascontiguousarray(column[at : at + _CHUNK]) for column in columns))

    def _add_empty(self, start: int, end: int) -> None:
        kernel, state = self._kernel, self._state
        if end < start or (state[kernel.ROUND] >= 0 and start < state[kernel.END]):
            raise OutOfOrder(self.rows)
        spans = [(start, end)]
        if state[kernel.ROUND] >= 0 and start > state[kernel.END]:
            spans.insert(0, (int(state[kernel.END]), start))
        self._spans.append(np.array(spans, np.int64))
        state[kernel.ROUND] += len(spans)
        state[kernel.START], state[kernel.END] = start, end

    def _ids(self, gfn: Array) -> Array:
        """Number the pages, if the rounds depend on returning pages."""
        if self._how == self._kernel.KEEP:
            return np.zeros(len(gfn), np.int32)
        return self._index.ids(gfn)

    def _add(self, start: Ints, end: Ints, vcpu: Array, gfn: Array, kind: Array) -> None:
        ids = self._ids(gfn)
        self._last_round = grown(self._last_round, max(1, self.pages), -1)
        self._last_kinds = grown(self._last_kinds, max(1, self.pages), 0)
        numbers, spans = np.empty(len(gfn), np.int64), np.empty((2 * len(gfn), 2), np.int64)
        state = self._last_round, self._last_kinds, self._state, numbers, spans
        done = self._kernel.cut_rounds(start, end, ids, kind, self._how, *state)
        if done < len(gfn):
            raise OutOfOrder(self.rows + done)
        self._spans.append(spans[: self._state[self._kernel.EMITTED]].copy())
        self.rows += len(gfn)
        self.highest = max(self.highest, int(gfn.max()))
        self.highest_vcpu = max(self.highest_vcpu, int(vcpu.max()))
        rows = {"round": numbers, "vcpu": vcpu, "gfn": gfn, "kind": kind}
        if (numbers < 0).any():
            rows = {name: column[numbers >= 0] for name, column in rows.items()}
        self._write(self._in_order(rows))

    def _in_order(self, rows: dict[str, Array]) -> dict[str, Array]:
        """Sort executed frames to the end of their round; keep those of the last round."""
        if self._how == self._kernel.KEEP or not (self._held or (rows["kind"] == _EXEC).any()):
            return rows
        if self._held:
            rows = {name: np.concatenate([self._held[name], rows[name]]) for name in rows}
        executed = rows["kind"] == _EXEC
        place = np.where(executed, rows["gfn"], np.uint64(0))
        order = np.lexsort((place, executed, rows["round"]))
        rows = {name: column[order] for name, column in rows.items()}
        open_still = (rows["kind"] == _EXEC) & (rows["round"] == self.rounds - 1)
        self._held = {name: column[open_still] for name, column in rows.items()}
        self.reordered |= bool((order != np.arange(len(order))).any())
        return {name: column[~open_still] for name, column in rows.items()}

    def _write(self, rows: dict[str, Array]) -> None:
        """Write entries: to keep the order, a batch for each run of one vCPU within a round."""
        rounds, vcpus = rows["round"], rows["vcpu"].astype(np.int64)
        if not len(rounds):
            return
        number, last_round, last_vcpu = self._batch
        before = np.append(last_round, rounds[:-1])
        new = (rounds != before) | (vcpus != np.append(last_vcpu, vcpus[:-1]))
        # A round without entries has a batch of its own, empty.
        batches = number + np.cumsum(new + np.maximum(rounds - before - 1, 0))
        self._runs.append((batches[new], rounds[new], rows["vcpu"][new]))
        self._batch = int(batches[-1]), int(rounds[-1]), int(vcpus[-1])
        self._writer.add_entries(rounds, batches, rows["vcpu"], rows["gfn"], rows["kind"])

    def account(self) -> str:
        """Return a line on the numbers of rows that became entries, rounds, and merged rows."""
        line = (
            f"{self.rows:,} rows became {self.rows - self.merged:,} entries in {self.rounds:,} "
            "rounds"
        )
        if self.cuts:
            line += f", {self.cuts:,} of which begin where a page returned within an interval"
        if self.merged:
            line += f"; {self.merged:,} were merged, as their order within an interval is not known"
        return line

    def close(self) -> None:
        """Write the executed frames that were kept."""
        if self._held:
            self._write(self._held)
        self._held = {}

    def spans(self) -> Ints:
        """Return the start and end of each round, int64, shape (rounds, 2)."""
        return np.concatenate([np.empty((0, 2), np.int64), *self._spans])

    def batches(self) -> tuple[Array, Array]:
        """Return the round and the vCPU of each batch."""
        number, last_round, _ = self._batch
        count = number + self.rounds - last_round
        rounds, vcpus = np.full(count, -1, np.int64), np.zeros(count, np.uint16)
        for numbers, of_rounds, of_vcpus in self._runs:
            rounds[numbers], vcpus[numbers] = of_rounds, of_vcpus
        used = np.zeros(self.rounds, bool)
        used[rounds[rounds >= 0]] = True
        rounds[rounds < 0] = np.flatnonzero(~used)  # both in order
        return rounds, vcpus


def _how_to_cut(imported: Imported) -> int:
    """Return the mode of `loops.cut_rounds` for a page that returns within an interval."""
    from pmlkit.kernels.loops import KEEP, MERGE, SPLIT, SPLIT_ANY

    if imported.kind == "pml" or imported.distinct:
        return KEEP
    if not imported.ordered:
        return MERGE
    return SPLIT_ANY if imported.each_a_use else SPLIT


def from_zero(spans: Ints, imported: Imported) -> tuple[Ints, Imported]:
    """Shift times to start at 0 if they start later than they last."""
    start, end = int(spans[0, 0]), int(spans[-1, 1])
    if imported.base_ns is not None or 0 <= start <= end - start:
        return spans, imported
    lost_at = tuple((time_ns - start, count) for time_ns, count in imported.lost_at)
    return spans - start, dataclasses.replace(imported, base_ns=start, lost_at=lost_at)


def regular_ns(spans: Ints) -> int | None:
    """Return the length of regular rounds, ns, or None.

    Rounds are regular if nine in ten have one length, and none is longer. A mark may cut one short;
    a round without length, or a gap, makes them irregular.
    """
    lengths = spans[:, 1] - spans[:, 0]
    if len(lengths) < 2 or not lengths.all():
        return None
    longest = int(lengths.max())
    return longest if (lengths == longest).mean() >= REGULAR_SHARE else None


def tables(rows: Rows, spans: Ints, imported: Imported) -> dict[str, pa.Table]:
    """Return the tables of rounds and batches."""
    round_of, vcpus = rows.batches()
    lost = _lost_of_rounds(spans, imported)
    lost_of_batches = np.zeros(len(round_of), np.uint64)
    losing = np.flatnonzero(lost)
    # Every round has a batch.
    np.add.at(lost_of_batches, np.searchsorted(round_of, losing), lost[losing])
    rounds: Json = {"round": np.arange(len(spans)), "lost": lost} | _times(spans)
    batches: Json = {
        "batch": np.arange(len(round_of)),
        "round": round_of,
        "vcpu": vcpus,
    }
    batches |= {"lost": lost_of_batches, "reason": "round"} | _times(spans[round_of])
    return {"rounds": _table("rounds", rounds), "batches": _table("batches", batches)}


def _times(spans: Ints) -> dict[str, Ints]:
    return {"t_start_ns": spans[:, 0], "t_end_ns": spans[:, 1]}


def _lost_of_rounds(spans: Ints, imported: Imported) -> Array:
    lost = np.zeros(len(spans), np.uint64)
    for time_ns, count in imported.lost_at:
        lost[min(int(np.searchsorted(spans[:, 1], time_ns)), len(spans) - 1)] += np.uint64(count)
    if not imported.lost_at:
        lost[-1] = imported.lost
    return lost


def _table(name: str, columns: Json) -> pa.Table:
    """Make a table of a trace; missing columns get their defaults, `entries` is counted later."""
    schema = TABLES[name]
    length = len(columns["t_start_ns"])
    columns = {"entries": 0, **DEFAULTS[name], **columns}
    arrays = [
        pa.array(column.astype(field.type.to_pandas_dtype(), copy=False))
        if isinstance(column := columns[field.name], np.ndarray)
        else constant(pa.scalar(column, field.type), length)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def columns(start: Column, end: Column, vcpu: Column, gfn: Array, kind: Column) -> Chunk:
    """Convert a chunk of `Imported.rounds` to arrays of one length, in the types of a trace."""
    gfn = _whole_numbers("gfn", gfn, np.uint64)
    if not len(gfn):
        return int(start), int(end), vcpu, gfn, kind
    length = len(gfn)
    return (
        np.broadcast_to(_whole_numbers("time", start, np.int64), length),
        np.broadcast_to(_whole_numbers("time", end, np.int64), length),
        np.broadcast_to(_whole_numbers("vcpu", vcpu, np.uint16), length),
        gfn,
        np.broadcast_to(_whole_numbers("kind", kind, np.uint8), length),
    )


def _whole_numbers(name: str, values: Column, dtype: type[np.integer]) -> Array:
    """Convert to a type of a trace; ValueError if a value does not fit."""
    array, limits = np.asarray(values), np.iinfo(dtype)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"a {name} is not a whole number of at most 64 bits")
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise ValueError(f"a {name} is not between {limits.min} and {limits.max}")
    return array.astype(dtype)
