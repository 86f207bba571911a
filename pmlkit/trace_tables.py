# SPDX-License-Identifier: Apache-2.0
"""The small tables of a trace, and what follows from them: its rounds, phases and regions."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import consistency, manifest
from pmlkit.errors import NeedsError, TraceDamaged, UnknownName, UsageError
from pmlkit.parquet import read_table, verify
from pmlkit.schema import HARVESTS, TABLES, TraceMeta
from pmlkit.units import format_ns

if TYPE_CHECKING:
    import pyarrow as pa

    from pmlkit.types import Array, Gfns, Ints, Json, PathLike


__all__ = ["TraceTables"]

LIMIT_REGION_PAGES = 1 << 24  # 64 GiB of frames, whose numbers take 128 MiB


class TraceTables:
    """All of a trace that fits into memory: its description and its tables; see `trace.Trace`.

    Parameters
    ----------
    path : path-like
        The folder.
    document : dict
        Its ``trace.json``.
    """

    def __init__(self, path: PathLike, document: Json) -> None:
        self.path = Path(path)
        self.files = document["files"]
        try:
            self.meta = TraceMeta.from_json(document)
        except (UsageError, TypeError) as error:
            raise TraceDamaged(path, manifest.NAME, f"contradicts the format ({error})") from error
        self._verified: set[str] = set()

    def _verify(self, name: str) -> None:
        if name not in self._verified:
            verify(self.path, name, self.files[name])
            self._verified.add(name)

    # The description

    @property
    def duration_ns(self) -> int:
        """Time from the recording's start to the end of the last round, ns."""
        return int(self._rounds_table["t_end_ns"][-1].as_py()) if self.n_rounds else 0

    @property
    def memory_pages(self) -> int:
        """Size of the domain's memory, pages."""
        return self.meta.memory_pages

    @property
    def resolution_ns(self) -> int | None:
        """Length of a round as asked for, ns; None if it was not asked for in time."""
        return self.meta.resolution_ns

    @property
    def is_harvest(self) -> bool:
        """Whether its entries are harvests of accessed flags, which know less than a recording.

        Which frames a round touched, and by the log which of them it wrote: not in which order,
        not whether what was written was read as well, and not what was executed.
        """
        return self.meta.kind == "access" and bool(set(self._batches["reason"]) & set(HARVESTS))

    @property
    def bytes_per_entry(self) -> float:
        """Bytes on disk per entry, of the entries' files; 0 if there is no entry."""
        size = sum(s["bytes"] for name, s in self.files.items() if name.startswith("entries/"))
        return size / self.meta.entries if self.meta.entries else 0.0

    # The tables

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self._rounds_table)

    @property
    def rounds(self) -> pd.DataFrame:
        """The rounds (`schema.ROUNDS`): DataFrame, one row per round; times in ns."""
        return self._rounds.copy(deep=False)

    @property
    def batches(self) -> pd.DataFrame:
        """The drained buffers (`schema.BATCHES`): DataFrame, one row per batch; times in ns."""
        return self._batches.copy(deep=False)

    @property
    def guest(self) -> pd.DataFrame | None:
        """The guest's own view (`schema.GUEST`): DataFrame, one row per sample, or None."""
        return None if self._guest is None else self._guest.copy(deep=False)

    @property
    def disk(self) -> pd.DataFrame | None:
        """The guest's disk requests (`schema.DISK`): DataFrame, one row per frame, or None."""
        return None if self._disk is None else self._disk.copy(deep=False)

    @property
    def regions(self) -> pd.DataFrame:
        """Frames that the workload named (`schema.REGIONS`): DataFrame, one row per run of them."""
        return self._regions.copy(deep=False)

    @property
    def phases(self) -> pd.DataFrame:
        """Starts of the phases: DataFrame of name, round, t_ns, insn (-1: not known)."""
        columns = {"name": object, "round": "int64", "t_ns": "int64", "insn": "int64"}
        return pd.DataFrame(self.meta.phases, columns=list(columns)).astype(columns)  # type: ignore[arg-type]

    @cached_property
    def _rounds(self) -> pd.DataFrame:
        return self._rounds_table.to_pandas(split_blocks=True)

    @cached_property
    def _rounds_table(self) -> pa.Table:
        """The rounds as they are read: a third of the DataFrame's memory, if there are many."""
        rounds = self.table("rounds")
        self._refuse("rounds.parquet", consistency.rounds_fault(rounds))
        self._refuse(manifest.NAME, consistency.phases_fault(self.meta.phases, len(rounds)))
        return rounds

    @cached_property
    def _edges(self) -> tuple[Ints, Ints]:
        """The starts and the ends of the rounds, ns."""
        starts, ends = (self._rounds_table[name].to_numpy() for name in ("t_start_ns", "t_end_ns"))
        return starts, ends

    @cached_property
    def _batches(self) -> pd.DataFrame:
        batches = self.table("batches")
        self._refuse("batches.parquet", consistency.batches_fault(batches, self.n_rounds))
        return batches.to_pandas(split_blocks=True, self_destruct=True)

    @cached_property
    def _guest(self) -> pd.DataFrame | None:
        return self.table("guest").to_pandas() if "guest.parquet" in self.files else None

    @cached_property
    def _disk(self) -> pd.DataFrame | None:
        return self.table("disk").to_pandas() if "disk.parquet" in self.files else None

    @cached_property
    def _regions(self) -> pd.DataFrame:
        regions = self.table("regions")
        self._refuse("regions.parquet", consistency.regions_fault(regions, self.memory_pages))
        return regions.to_pandas()

    def _refuse(self, file: str, fault: str | None) -> None:
        if fault:
            raise TraceDamaged(self.path, file, f"is wrong: {fault}")

    def table(self, name: str) -> pa.Table:
        """Read one of the tables (rounds, batches, guest, regions, disk) as a `pyarrow.Table`."""
        file = f"{name}.parquet"
        if name not in TABLES:
            raise UsageError(f"a trace has no table {name!r}: its tables are {list(TABLES)}")
        if file not in self.files:
            return TABLES[name].empty_table()
        size = sum(seal["bytes"] for seal in self.files.values())  # compared when it was opened
        return read_table(self.path, file, self.files[file], TABLES[name], size)

    # Time and place

    def rounds_between(
        self, start_ns: int | None = None, end_ns: int | None = None
    ) -> tuple[int, int]:
        """Find the rounds that share time with ``[start_ns, end_ns)``.

        Consecutive ranges that meet where a round ends have no round in common, and miss none.

        Parameters
        ----------
        start_ns, end_ns : int, optional
            Times since the recording's start, ns; None: from its start, to its end.

        Returns
        -------
        (int, int)
            The first round, and the one after the last.
        """
        if None not in (start_ns, end_ns) and start_ns > end_ns:  # type: ignore[operator]
            times = f"{format_ns(start_ns)} to {format_ns(end_ns)}"  # type: ignore[arg-type]
            what = f"the range from {times} ends before it starts"
            raise UsageError(f"{what}: give a start before its end")
        starts, ends = self._edges
        stop = len(starts) if end_ns is None else int(np.searchsorted(starts, end_ns))
        if start_ns is None:
            return 0, stop
        # A round of no length (two marks at one instant) belongs to the range that starts there.
        first = min(np.searchsorted(ends, start_ns, "right"), np.searchsorted(starts, start_ns))
        return min(int(first), stop), stop

    def phase_of_rounds(self) -> Array:
        """Name the phase of each round.

        Returns
        -------
        ndarray of object (str), shape (n_rounds,)
            A round in which a phase starts belongs to it (to the last, if several do);
            ``""`` before the first.
        """
        phases = self.phases
        names = np.array(["", *phases["name"]], dtype=object)
        last = np.searchsorted(phases["round"].to_numpy(), np.arange(self.n_rounds), "right")
        return names[last]

    def frames(self, region: str) -> Gfns:
        """Give the frames of a region.

        Parameters
        ----------
        region : str

        Returns
        -------
        ndarray of uint64, sorted, distinct

        Raises
        ------
        NeedsError
            If the trace has no regions.
        UsageError
            If it has none of this name.
        """
        rows = self._regions[self._regions["name"] == region]
        if not len(self._regions):
            raise NeedsError(self, "regions", "use a workload that reports its buffers")
        if not len(rows):
            raise UnknownName("region", region, dict.fromkeys(self._regions["name"]))
        pages = sum(map(int, rows["pages"]))
        if pages > LIMIT_REGION_PAGES:
            size = f"{pages:,} pages, and at most {LIMIT_REGION_PAGES:,} can be looked at"
            raise UsageError(f"the region {region!r} of the trace {self.path} has {size}")
        found, at = np.empty(pages, dtype=np.uint64), 0
        for gfn, length in zip(rows["gfn"], rows["pages"], strict=True):
            found[at : at + int(length)] = np.arange(gfn, gfn + length, dtype=np.uint64)
            at += int(length)
        return found if (found[1:] > found[:-1]).all() else np.unique(found)
