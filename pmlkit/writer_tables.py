# SPDX-License-Identifier: Apache-2.0
"""The small tables of a trace while it is written: completed, checked against its entries, kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from pmlkit import consistency
from pmlkit.errors import UsageError
from pmlkit.parquet import to_table, write_table
from pmlkit.schema import REGIONS, ROUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pmlkit.schema import TraceMeta
    from pmlkit.tally import Tally
    from pmlkit.types import Json


class TablesWriter:
    """Hold the tables of `schema.TABLES`, and write them once the entries are counted.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    shown : Path
        How messages name it.

    Attributes
    ----------
    files : dict
        What the manifest says of each file, once they are written: bytes, blake2b.
    totals : dict of str to int
        Once they are written: `entries` and `lost` of all rounds.
    """

    def __init__(self, folder: Path, shown: Path) -> None:
        self._folder, self._shown = folder, shown
        self._tables: dict[str, pa.Table] = {}
        self._uncounted: set[str] = set()
        self.files: dict[str, Json] = {}
        self.totals: dict[str, int] = {}

    def set(
        self, name: str, data: Json | Sequence[dict[str, int | str]] | pd.DataFrame | pa.Table
    ) -> None:
        """Set a table: a DataFrame, or what makes one; `entries` may be left to be counted.

        A `pyarrow.Table` is of the table's schema, and its entries are counted: as it may be long,
        it is not turned into a DataFrame.
        """
        if isinstance(data, pa.Table):
            self._uncounted.add(name)
            self._tables[name] = data
            return
        frame = pd.DataFrame(data)
        if name in ("rounds", "batches") and "entries" not in frame and len(frame):
            self._uncounted.add(name)
            frame = frame.assign(entries=0)
        self._tables[name] = to_table(name, frame)

    def close(
        self,
        per_round: Tally,
        per_batch: Tally,
        last_snapshot: int,
        meta: TraceMeta,
        trace_bytes: int = 0,
    ) -> None:
        """Write the tables.

        Parameters
        ----------
        per_round, per_batch : Tally
            The entries written.
        last_snapshot : int
            The last round with a snapshot of a page table; -1 if there is none.
        meta : TraceMeta
            The trace's description.
        trace_bytes : int
            Of the files that are written already.

        Raises
        ------
        UsageError
            If they contradict each other, the entries or the snapshots.
        """
        tables = self._completed({"rounds": per_round, "batches": per_batch})
        rounds, batches = tables["rounds"], tables["batches"]
        fault = consistency.tables_fault(rounds, batches, per_round, per_batch)
        fault = fault or consistency.beyond_fault(last_snapshot, len(rounds))
        fault = fault or consistency.phases_fault(meta.phases, len(rounds))
        fault = fault or consistency.regions_fault(tables["regions"], meta.memory_pages)
        if fault:
            raise UsageError(f"the tables of {self._shown} contradict each other: {fault}")
        for name, table in tables.items():
            self.files[f"{name}.parquet"] = write_table(
                self._folder / f"{name}.parquet", table, trace_bytes
            )
        self.totals = {name: consistency.total(rounds[name]) for name in ("entries", "lost")}
        self._tables = {}  # they may be long, and whoever asks for the totals holds us

    def _completed(self, tallies: dict[str, Tally]) -> dict[str, pa.Table]:
        given = {"rounds": ROUNDS.empty_table(), "regions": REGIONS.empty_table(), **self._tables}
        uncounted = set(self._uncounted)
        if "batches" not in given:
            given["batches"] = to_table("batches", _one_batch_per_round(given["rounds"]))
            uncounted.add("batches")
        return given | {name: _with_counts(given[name], tallies[name]) for name in uncounted}


def _one_batch_per_round(rounds: pa.Table) -> pd.DataFrame:
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end", "lost", "entries"]
    frame = rounds.select(["round", *spans]).to_pandas()
    return frame.assign(batch=frame["round"], reason="round")


def _with_counts(table: pa.Table, tally: Tally) -> pa.Table:
    column = table.schema.get_field_index("entries")
    field = table.schema.field(column)
    return table.set_column(column, field, pa.array(tally.counts(len(table)), field.type))
