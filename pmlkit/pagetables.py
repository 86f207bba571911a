# SPDX-License-Identifier: Apache-2.0
"""Page tables in a PML log: their frames, and the frames that they map.

Why a log of writes contains information about reads. With EPT accessed and dirty flags enabled, the
processor treats its walks of the guest's page tables as writes (Intel SDM, volume 3, section
29.3.5). The tables on the path of any access, including reads, are therefore logged once after each
re-arm.

Why the log is complete. A re-arm clears the dirty flags and ends with INVEPT, so no translation and
no part of one is cached when a round begins. The first access to a page in the round therefore
walks. It reads the leaf entry of its page from a *leaf table* (for a large page, from a directory),
whose frame is logged if it was not yet. A later access either uses the translation that was cached
then, or walks again. Hence **every frame that is touched through page tables in a round lies under
a table that is logged in that round**. The EPT accessed flags of the frames that these tables map
(the guided harvest) identify these frames exactly. Exceptions:

- frames that the processor touches without a walk. These are the tables themselves (each is in the
  log, by the same argument) and the frames of a guest with paging disabled. With PAE, the page of
  the four entries that are kept in registers (CR3 loads it) is one of them;
- an entry that was changed between its use and the end of the round: its earlier frame is no longer
  found below it. The change is a write to the table, so the table is in the log. Its earlier
  content is lost, unless a previous snapshot contains it;
- frames that the processor does not touch for the guest: foreign mappings of dom0, devices, Xen
  itself.

Snapshots (`Trace.tables`) contain the entries of each logged table at the end of the round,
including the *guest's* accessed flags. Those flags stay set: they were set at some time, not
necessarily in this round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NeedsError, PmlkitError, UsageError, argument
from pmlkit.kernels.pages import sorted_distinct
from pmlkit.trace.kinds import TableFlag, is_page_table, page_table_level

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Gfns, Ints

__all__ = [
    "covered",
    "entries",
    "expand",
    "is_marked",
    "logged",
    "pack",
    "spans",
    "table_frames",
    "unique_pairs",
    "without",
]


ACCESSED, LEAF, USER = (int(f) for f in (TableFlag.ACCESSED, TableFlag.LEAF, TableFlag.USER))
CLEARED = int(TableFlag.CLEARED)
PAGES_OF_A_TABLE = 512
WHOSE = ("user", "all")
_COLUMNS = ["round", "table", "level", "index", "target", "flags"]
_HOLE_PAGES = 1 << 20  # the hole below 4 GiB; as much memory lies beyond it


def is_marked(trace: Trace) -> bool:
    """Whether the log of a trace distinguishes page tables (bool)."""
    return any(len(batch) for batch in trace.pml.iter_entries(["round"], kinds="p"))


def logged(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Find the page tables in the log, each once per round.

    Parameters
    ----------
    trace : Trace
        A PML log with marks, or an access trace that has one nested in it.

    Returns
    -------
    DataFrame
        ``round``, ``table`` (gfn), ``level`` (1: leaf) and ``place``: its first position in the
        round's log, from 0 (first) to 1. After each re-arm this is the order of first walks.

    Raises
    ------
    NeedsError
        If there is no log, or if it has entries and no marks.
    """
    log = trace.pml.to_pandas(["round", "gfn", "kind"], start_ns=start_ns, end_ns=end_ns)
    if len(log) and not is_page_table(log["kind"].to_numpy()).any() and not is_marked(trace):
        what = "marks of page tables"
        if (trace.meta.source, trace.meta.kind) == ("recorder", "access"):
            raise NeedsError(trace, what, "it contains all reads itself, so use `pmlkit wss`")
        raise NeedsError(trace, what, "log it with `pmlkit collect --page-tables mark`")
    number = log.groupby("round").cumcount()
    size = log.groupby("round")["gfn"].transform("size")
    log["place"] = number / np.maximum(size - 1, 1)
    tables = log[is_page_table(log["kind"].to_numpy())].drop_duplicates(["round", "gfn"])
    level = page_table_level(tables["kind"])
    tables = tables.assign(level=level).rename(columns={"gfn": "table"})
    return tables[["round", "table", "level", "place"]].reset_index(drop=True)


def entries(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Read the snapshots.

    Returns
    -------
    DataFrame
        ``round``, ``table``, ``level``, ``index``, ``target``, ``flags`` (`kinds.TableFlag`).

    Raises
    ------
    NeedsError
        If the trace has no snapshots.

    Notes
    -----
    To the hypervisor, a freed table remains a table until the end of the round in which it is
    written. Its snapshot then contains data. A table with entries beyond the guest's memory is
    omitted for that reason.
    """
    if not trace.pml.has_tables:
        what = "snapshots of its page tables"
        raise NeedsError(
            trace,
            what,
            "log it with `pmlkit collect --page-tables snapshot`, or use "
            f"{argument('method', 'leaves')}",
        )
    batches = trace.pml.iter_tables(columns=_COLUMNS, start_ns=start_ns, end_ns=end_ns)
    parts = [batch.to_pandas() for batch in batches]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    return _real(trace, rows)


def _real(trace: Trace, rows: pd.DataFrame) -> pd.DataFrame:
    """Omit snapshots of frames that are no longer tables but contain data."""
    limit = trace.meta.gfn_limit or trace.memory_pages + _HOLE_PAGES
    wild = rows["target"].to_numpy() >= limit
    if not wild.any():
        return rows
    tables = pack(rows["round"].to_numpy(np.int64), rows["table"].to_numpy(np.uint64))
    return rows[~np.isin(tables, tables[wild])].reset_index(drop=True)


def spans(rows: pd.DataFrame) -> Ints:
    """Return how many frames each entry maps if it is a leaf (int64): 1, 512, 1024 or 262144.

    Only a guest without PAE has tables of 1024 entries, and large pages of 4 MiB.
    """
    level = rows["level"].to_numpy(np.int64)
    small = np.int64(PAGES_OF_A_TABLE) ** np.maximum(level - 1, 0)
    return np.where(level == 2, 1024, small) if _without_pae(rows) else small


def _without_pae(rows: pd.DataFrame) -> bool:
    """Whether the tables have 1024 entries: seen in an index, or in large pages 4 MiB apart."""
    if len(rows) == 0 or rows["level"].max() > 2:
        return False
    if rows["index"].max() >= PAGES_OF_A_TABLE:
        return True
    large = rows[(rows["level"] == 2) & ((rows["flags"] & LEAF) != 0)]
    return len(large) > 1 and not (large["target"] % 1024).any()


def covered(
    rows: pd.DataFrame, accessed: bool = True, whose: str = "user", large: bool = True
) -> tuple[Ints, Gfns]:
    """Expand snapshots to the frames that their entries map.

    Parameters
    ----------
    rows : DataFrame
        From `entries`.
    accessed : bool
        Only entries whose accessed flag is set.
    whose : {"user", "all"}
        The entries that a user's program may use, or all. In a supervisor's entries the flag means
        nothing. Linux creates them with the flag set, and maps all memory a second time (the direct
        map), mostly in large pages. Expanded, they would report all memory as used. If no entry has
        the flag ``USER``, there are no programs, and "user" means all.
    large : bool
        Includes large pages, with all of their frames.

    Returns
    -------
    rounds : ndarray of int64, shape (frames,)
    gfns : ndarray of uint64, shape (frames,)
        Each (round, gfn) once, even if several entries or tables map it.
    """
    keep = _chosen(rows, accessed, whose, large)
    chosen, counts = rows[keep], spans(rows)[keep]
    first = np.repeat(chosen["target"].to_numpy(np.uint64), counts)
    rounds = np.repeat(chosen["round"].to_numpy(np.int64), counts)
    offsets = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return unique_pairs(rounds, first + offsets.astype(np.uint64))


def _chosen(rows: pd.DataFrame, accessed: bool, whose: str, large: bool) -> Bools:
    if whose not in WHOSE:
        raise UsageError(f"whose is {whose!r}: use {' or '.join(WHOSE)}")
    flags, level = (rows[name].to_numpy() for name in ("flags", "level"))
    keep = (flags & LEAF) != 0
    if accessed:
        keep &= (flags & ACCESSED) != 0
    if not large:
        keep &= level == 1
    if whose == "user" and (flags & USER).any():
        keep &= (flags & USER) != 0
    return keep


def pack(rounds: ArrayLike, gfns: ArrayLike) -> Gfns:
    """Combine each pair of round and frame into one uint64: 24 bits and 40 (4 PiB), in their order.

    Raises
    ------
    PmlkitError
        If a value needs more bits: no processor's page tables lead to such a frame.
    """
    rounds, gfns = np.asarray(rounds).astype(np.uint64), np.asarray(gfns, np.uint64)
    if int(rounds.max(initial=0)) >> 24 or int(gfns.max(initial=0)) >> 40:
        what = "page tables are not supported in more than 2^24 rounds, or from 4 PiB on"
        raise PmlkitError(what, "use a shorter trace, of a machine's memory")
    return (rounds << np.uint64(40)) | gfns


def unpack(pairs: Gfns) -> tuple[Ints, Gfns]:
    """Return the rounds and frames of numbers from `pack`."""
    rounds = (pairs >> np.uint64(40)).astype(np.int64)
    return rounds, pairs & np.uint64((1 << 40) - 1)


def unique_pairs(rounds: Ints, gfns: Gfns) -> tuple[Ints, Gfns]:
    """Return each pair of round and frame once, sorted by round and frame."""
    return unpack(sorted_distinct(pack(rounds, gfns)))


def without(rounds: Ints, gfns: Gfns, other_rounds: Ints, other_gfns: Gfns) -> tuple[Ints, Gfns]:
    """Remove the pairs of round and frame that are in another list (arrays of equal length)."""
    keep = ~np.isin(pack(rounds, gfns), pack(other_rounds, other_gfns))
    return rounds[keep], gfns[keep]


def expand(
    trace: Trace,
    rounds: Ints,
    gfns: Gfns,
    region: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> tuple[Ints, Gfns]:
    """Replace the logged tables by the frames that they map: `page_tables` = "expand".

    Parameters
    ----------
    trace : Trace
        A PML log with marks and snapshots.
    rounds, gfns : arrays, shape (entries,)
        The log's data entries that are selected.
    region, start_ns, end_ns
        As in `Trace.iter_entries`.

    Returns
    -------
    rounds, gfns : ndarrays of int64 and uint64
        Both together, by round, without frames that are known to be tables in their round.
    """
    rows = entries(trace, start_ns, end_ns)
    more = covered(rows)
    if region is not None:
        keep = np.isin(more[1], trace.frames(region))
        more = more[0][keep], more[1][keep]
    both = unique_pairs(np.concatenate((rounds, more[0])), np.concatenate((gfns, more[1])))
    return without(*both, *table_frames(trace, rows, start_ns, end_ns))


def table_frames(
    trace: Trace,
    rows: pd.DataFrame | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> tuple[Ints, Gfns]:
    """Return (rounds, gfns) of the page tables: marked in the log, or in a snapshot.

    A table that is made within a round is logged as data, and known at the round's end.
    """
    known = logged(trace, start_ns, end_ns)[["round", "table"]]
    if rows is not None:
        known = pd.concat([known, rows[["round", "table"]].drop_duplicates()])
    return known["round"].to_numpy(np.int64), known["table"].to_numpy(np.uint64)
