# SPDX-License-Identifier: Apache-2.0
"""Page tables in a PML log: which frames they are, the tree they form, what they lead to.

Why a log of writes knows of reads. With EPT accessed and dirty flags on, the processor treats its
walks of the guest's page tables as writes (Intel SDM, volume 3, section 29.3.5), so the frames of
the tables on the path of any access, be it a read, are logged: once after each re-arm.

Why nothing escapes. A re-arm clears the dirty flags and ends with INVEPT, so no translation and no
part of one is cached when a round begins. The first access to a page in the round therefore walks,
and reads the leaf entry of its page out of a *leaf table* (or, of a large page, out of a
directory), whose frame is logged if it was not yet. A later access either uses the translation
that was cached then, or walks again. So **every frame that is touched through page tables in a
round lies under a table that is logged in that round**, and the accessed flags in the EPT of the
frames which these tables map (the guided harvest) tell exactly which. What this does not cover:

- frames that the processor touches without a walk: the tables themselves (each is in the log, by
  the same argument), a guest that has paging off, and with PAE the page of the four entries that
  are kept in registers (CR3 loads it);
- an entry that was changed between its use and the end of the round: the frame that it had is no
  longer to be found under it. The change is a write to the table, so the table is in the log, but
  what stood in it is lost, unless an earlier snapshot has it;
- frames that others touch: dom0 through foreign mappings, devices, Xen itself.

Snapshots (`Trace.tables`) say what stood in each logged table at the end of the round, and with it
the *guest's* accessed flags. Those are sticky: they were set at some time, not in this round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pmlkit.errors import NeedsError, PmlkitError, UsageError
from pmlkit.trace.kinds import TableFlag, is_page_table, page_table_level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Floats, Gfns, Ints

__all__ = [
    "ERRORS",
    "FEATURES",
    "coverage",
    "covered",
    "entries",
    "error_rates",
    "expand",
    "features",
    "fit",
    "infer",
    "is_marked",
    "judge",
    "logged",
    "pack",
    "spans",
    "table_frames",
    "tree",
    "unique_pairs",
    "without",
]


ACCESSED, LEAF, USER = (int(f) for f in (TableFlag.ACCESSED, TableFlag.LEAF, TableFlag.USER))
CLEARED = int(TableFlag.CLEARED)
PAGES_OF_A_TABLE = 512
# Its error rate is measured by a test on the bundled traces.
GUESS = "pagetables_infer, of whose finds 8 to 40 % are tables"
WHOSE = ("user", "all")
_COLUMNS = ["round", "table", "level", "index", "target", "flags"]
_HOLE_PAGES = 1 << 20  # below 4 GiB, what is no memory: as much lies beyond it


def is_marked(trace: Trace) -> bool:
    """Say whether the log of a trace tells page tables apart (bool)."""
    return any(len(batch) for batch in trace.pml.iter_entries(["round"], kinds="p"))


def logged(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Find the page tables in the log, each once per round.

    Parameters
    ----------
    trace : Trace
        A PML log with marks, or an access trace that has one nested in it.
    start_ns, end_ns : int, optional

    Returns
    -------
    DataFrame
        ``round``, ``table`` (gfn), ``level`` (1: leaf) and ``place``: where in the round's log it
        first is, from 0 (first) to 1, after each re-arm the order of first walks.

    Raises
    ------
    NeedsError
        If there is no log, or if it has entries and no marks.
    """
    log = trace.pml.to_pandas(["round", "gfn", "kind"], start_ns=start_ns, end_ns=end_ns)
    if len(log) and not is_page_table(log["kind"].to_numpy()).any() and not is_marked(trace):
        what = "marks of page tables"
        if (trace.meta.source, trace.meta.kind) == ("recorder", "access"):
            raise NeedsError(trace, what, "it has all reads itself: pmlkit wss counts them")
        raise NeedsError(trace, what, f"log it with --page-tables mark, or guess: {GUESS}")
    number = log.groupby("round").cumcount()
    size = log.groupby("round")["gfn"].transform("size")
    log["place"] = number / np.maximum(size - 1, 1)
    tables = log[is_page_table(log["kind"].to_numpy())].drop_duplicates(["round", "gfn"])
    level = page_table_level(tables["kind"])
    found = tables.assign(level=level).rename(columns={"gfn": "table"})
    return found[["round", "table", "level", "place"]].reset_index(drop=True)


def entries(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Read the snapshots.

    Parameters
    ----------
    trace : Trace
    start_ns, end_ns : int, optional

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
    To the hypervisor a table that was freed is one until the end of the round in which it is
    written, and its snapshot then is of data. A table that leads beyond the guest's memory is left
    out for that reason.
    """
    if not trace.pml.has_tables:
        what = "snapshots of its page tables"
        raise NeedsError(trace, what, "log it with --page-tables snapshot, or use --method leaves")
    batches = trace.pml.iter_tables(columns=_COLUMNS, start_ns=start_ns, end_ns=end_ns)
    parts = [batch.to_pandas() for batch in batches]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    return _real(trace, rows)


def _real(trace: Trace, rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out snapshots of frames that are tables no more, but hold data."""
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
) -> tuple[Ints, NDArray[np.uint64]]:
    """Expand snapshots into the frames which their entries map.

    Parameters
    ----------
    rows : DataFrame
        From `entries`.
    accessed : bool
        Only entries whose accessed flag is set.
    whose : {"user", "all"}
        The entries that a user's program may use, or all. The flag says nothing in a supervisor's
        entries: Linux makes them with the flag set, and maps all memory once more by them (the
        direct map), mostly in large pages; expanded, they would say that all memory is used.
        Where no entry has the flag ``USER`` there are no programs, and "user" means all.
    large : bool
        Large pages too, all frames of each.

    Returns
    -------
    rounds : ndarray of int64, shape (frames,)
    gfns : ndarray of uint64, shape (frames,)
        Each (round, gfn) once, however many entries of however many tables map it.
    """
    keep = _chosen(rows, accessed, whose, large)
    chosen, counts = rows[keep], spans(rows)[keep]
    first = np.repeat(chosen["target"].to_numpy(np.uint64), counts)
    rounds = np.repeat(chosen["round"].to_numpy(np.int64), counts)
    offsets = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return unique_pairs(rounds, first + offsets.astype(np.uint64))


def _chosen(rows: pd.DataFrame, accessed: bool, whose: str, large: bool) -> Bools:
    if whose not in WHOSE:
        raise UsageError(f"whose is {whose!r}: say {' or '.join(WHOSE)}")
    flags, level = (rows[name].to_numpy() for name in ("flags", "level"))
    keep = (flags & LEAF) != 0
    if accessed:
        keep &= (flags & ACCESSED) != 0
    if not large:
        keep &= level == 1
    if whose == "user" and (flags & USER).any():
        keep &= (flags & USER) != 0
    return keep


def pack(rounds: Any, gfns: Any) -> NDArray[np.uint64]:
    """Make one uint64 of each pair of round and frame: 24 bits and 40 (4 PiB), in their order.

    Raises
    ------
    PmlkitError
        If one has more bits: no processor's page tables lead to such a frame.
    """
    rounds, gfns = np.asarray(rounds).astype(np.uint64), np.asarray(gfns, np.uint64)
    if int(rounds.max(initial=0)) >> 24 or int(gfns.max(initial=0)) >> 40:
        what = "page tables cannot be followed in more than 2^24 rounds, or to 4 PiB and above"
        raise PmlkitError(what, "use a shorter trace, of a machine's memory")
    return (rounds << np.uint64(40)) | gfns


def unpack(pairs: NDArray[np.uint64]) -> tuple[Ints, NDArray[np.uint64]]:
    """Return rounds and frames of what `pack` has made."""
    rounds = (pairs >> np.uint64(40)).astype(np.int64)
    return rounds, pairs & np.uint64((1 << 40) - 1)


def unique_pairs(rounds: Ints, gfns: Gfns) -> tuple[Ints, NDArray[np.uint64]]:
    """Return each pair of round and frame once, sorted by round and frame."""
    packed = np.sort(pack(rounds, gfns))  # np.unique hashes integers, and is ten times slower
    first = np.ones(len(packed), bool)
    np.not_equal(packed[1:], packed[:-1], out=first[1:])
    return unpack(packed[first])


def without(
    rounds: Ints, gfns: Gfns, other_rounds: Ints, other_gfns: Gfns
) -> tuple[Ints, NDArray[np.uint64]]:
    """Leave out the pairs of round and frame that are among others (arrays of equal length)."""
    keep = ~np.isin(pack(rounds, gfns), pack(other_rounds, other_gfns))
    return rounds[keep], gfns[keep]


def expand(
    trace: Trace,
    rounds: Ints,
    gfns: Gfns,
    region: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> tuple[Ints, NDArray[np.uint64]]:
    """Put what the logged tables lead to in the tables' place: `page_tables` = "expand".

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
        Both together, by round; no frame that is known to be a table in its round.
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


# ------------------------------------------------------------------------------
# The tree that snapshots of page tables show, and what each table covers.


def tree(trace: Trace, number: int | None = None) -> pd.DataFrame:
    """Return the tree that the snapshots show: who leads to whom.

    Parameters
    ----------
    trace : Trace
    number : int, optional
        Look at the tables of this round; default: each table as it was seen last.

    Returns
    -------
    DataFrame
        A row per table: ``table``, ``level``, ``parents`` (entries of other tables which lead to
        it: several address spaces may share a table; 0 for a root), ``parent`` (one of them, -1 if
        there is none), ``present``, ``accessed`` (its entries), ``leaf`` (those that map a page).
    """
    rows = entries(trace)
    last = rows.groupby("table")["round"].transform("max") if number is None else number
    rows = rows[rows["round"] == last]
    inner = rows[(rows["flags"] & LEAF) == 0]
    inner = inner[inner["target"].isin(rows["table"].unique())]
    parents = inner.groupby("target")["table"].agg(["size", "first"])
    found = _counts(rows, ["table", "level"])
    found["parents"] = found["table"].map(parents["size"]).fillna(0).astype("int64")
    found["parent"] = found["table"].map(parents["first"]).fillna(-1).astype("int64")
    return found[["table", "level", "parents", "parent", "present", "accessed", "leaf"]]


def coverage(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Say of each snapshot what it covers.

    Returns
    -------
    DataFrame
        A row per (round, table): ``round``, ``table``, ``level``; of its entries the ``present``,
        ``accessed``, ``leaf`` and ``accessed_leaf`` ones; ``pages`` mapped and ``accessed_pages``.
    """
    rows = entries(trace, start_ns, end_ns)
    rows = rows.assign(pages=spans(rows) * ((rows["flags"] & LEAF) != 0))
    return _counts(rows, ["round", "table", "level"])


def _counts(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    flags = rows["flags"].to_numpy()
    used = (flags & ACCESSED) != 0
    leaf = (flags & LEAF) != 0
    columns = {"present": 1, "accessed": used, "leaf": leaf, "accessed_leaf": used & leaf}
    if "pages" in rows:
        columns |= {"pages": rows["pages"], "accessed_pages": rows["pages"] * used}
    return rows[by].assign(**columns).groupby(by, as_index=False).sum()


# ------------------------------------------------------------------------------
# Which frames of a log without marks are page tables: a guess, with its error rate.
#
# What gives a page table away: it is logged before the pages that it leads to, so early in a
# round; it is logged whenever anything under it is used, so in most rounds; it stands alone,
# while data are written in runs of neighbouring frames. The same holds for a hot page of data,
# and so the guess is poor: use marks where they can be had (``--page-tables mark``). The level is
# not told.
#
# Error rate, measured on the logs of the lab with their marks hidden (`ERRORS`, percent):
# ``found`` of the page tables, and ``right`` of the frames that were called one. Four Linux
# guests, each judged by a model that was fitted to the others: 73 to 99 percent found, 8 to 40
# percent right. Seven more that the model which is shipped was not fitted to: 81 to 100 percent
# found, and 36 where processes come and go; 8 to 29 percent right. 4 to 34 rounds of half a
# second each. A guest without an operating system, all of whose frames are used in every round,
# defeats it: 2 percent right.


FEATURES = ("rate", "place", "earliest", "rank", "run", "rate_before", "rate_after")
THRESHOLD = 0.9
_FEWEST_ROUNDS = 3


def features(trace: Trace) -> pd.DataFrame:
    """Describe each frame of a log.

    Returns
    -------
    DataFrame
        Index: gfn. ``rate`` (share of rounds in which it is logged), ``place`` and ``earliest``
        (mean and least place in the round's log, 0 to 1), ``rank`` (mean logarithm of the number
        of entries before it), ``run`` (share of its entries next to one of a frame at most two
        away), ``rate_before`` and ``rate_after`` (mean rate of the entries next to its own).
    """
    log = trace.pml.to_pandas(["round", "gfn"]).drop_duplicates()
    gfn, number = log["gfn"].to_numpy(np.int64), log["round"].to_numpy()
    before = log.groupby("round").cumcount().to_numpy()
    size = log.groupby("round")["gfn"].transform("size").to_numpy()
    rate = log.groupby("gfn")["gfn"].transform("size").to_numpy() / max(trace.pml.n_rounds, 1)
    table = pd.DataFrame(
        {
            "gfn": log["gfn"].to_numpy(),
            "rate": rate,
            "place": before / np.maximum(size - 1, 1),
            "earliest": before / np.maximum(size - 1, 1),
            "rank": np.log1p(before),
            "run": _beside(gfn, number, 1) | _beside(gfn, number, -1),
            "rate_before": _shifted(rate, number, 1),
            "rate_after": _shifted(rate, number, -1),
        }
    )
    how = dict.fromkeys(FEATURES, "mean") | {"earliest": "min"}
    return table.groupby("gfn").agg(how)[list(FEATURES)].astype(float)


def _beside(gfn: Ints, number: NDArray[np.uint32], step: int) -> Bools:
    near = np.abs(gfn - np.roll(gfn, step)) <= 2
    return near & (np.roll(number, step) == number)


def _shifted(values: Floats, number: NDArray[np.uint32], step: int) -> Floats:
    return np.where(np.roll(number, step) == number, np.roll(values, step), 0)


def fit(traces: Sequence[Trace]) -> Pipeline:
    """Fit a model to logs with marks.

    Parameters
    ----------
    traces : list of Trace

    Returns
    -------
    sklearn.pipeline.Pipeline
        Scaled features, then a logistic regression with balanced classes.
    """
    parts = [(features(trace), _marked(trace)) for trace in traces]
    X = pd.concat([table for table, _ in parts])
    y = np.concatenate([table.index.isin(frames) for table, frames in parts])
    if len(np.unique(y)) < 2:
        raise NeedsError(traces[0], "marks of page tables to learn from")
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return model.fit(X.to_numpy(), y)


def _marked(trace: Trace) -> NDArray[np.uint64]:
    log = trace.pml.to_pandas(["gfn", "kind"])
    return log.loc[is_page_table(log["kind"].to_numpy()), "gfn"].unique()


def infer(
    trace: Trace, model: Pipeline | None = None, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Guess which frames of a log are page tables.

    Parameters
    ----------
    trace : Trace
    model : fitted classifier, optional
        From `fit`; default: the one whose error rate is stated above.
    threshold : float
        Least probability of a frame that is called a page table.

    Returns
    -------
    DataFrame
        ``gfn``, ``probability``, ``table`` (bool).

    Raises
    ------
    NeedsError
        If the log has fewer than three rounds: nothing shows, then, that a frame comes again.
    """
    if trace.pml.n_rounds < _FEWEST_ROUNDS:
        raise NeedsError(trace, "third round", "log it for longer")
    table = features(trace)
    probability = _shipped(table) if model is None else model.predict_proba(table.to_numpy())[:, 1]
    found = pd.DataFrame({"gfn": table.index.to_numpy(), "probability": probability})
    return found.assign(table=found["probability"] >= threshold)


def _shipped(table: pd.DataFrame) -> Floats:
    logit = sum(table[name].to_numpy() * weight for name, weight in _WEIGHTS.items()) + _INTERCEPT
    return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))


def error_rates(traces: Mapping[str, Trace], threshold: float = THRESHOLD) -> pd.DataFrame:
    """Measure the guess: each trace by a model of the others.

    Parameters
    ----------
    traces : dict of str to Trace
        With marks, three or more.

    Returns
    -------
    DataFrame
        ``trace``, and what `judge` returns.
    """
    rows = []
    for name, trace in traces.items():
        model = fit([other for key, other in traces.items() if key != name])
        rows.append({"trace": name, **judge(trace, infer(trace, model, threshold))})
    return pd.DataFrame(rows).round(1)


def judge(trace: Trace, guess: pd.DataFrame) -> dict[str, float]:
    """Hold a guess against the marks.

    Parameters
    ----------
    trace : Trace
        With marks.
    guess : DataFrame
        From `infer`, of this trace.

    Returns
    -------
    dict of str to float
        ``frames`` of the log, ``tables`` among them, ``wrong`` (false positives: frames that were
        called a table) and ``missed`` (false negatives); ``found`` (of the tables) and ``right``
        (of what was called one), percent.
    """
    true, called = guess["gfn"].isin(_marked(trace)), guess["table"]
    hits, tables, calls = (int(n.sum()) for n in (true & called, true, called))
    return {
        "frames": len(guess),
        "tables": tables,
        "wrong": calls - hits,
        "missed": tables - hits,
        "found": 100 * hits / max(tables, 1),
        "right": 100 * hits / max(calls, 1),
    }


# The model fitted to the lab's guests (see ERRORS), in log-odds per unit of each feature.
_WEIGHTS = {
    "rate": 3.321,
    "place": 6.004,
    "earliest": -0.734,
    "rank": -2.14,
    "run": -2.705,
    "rate_before": 0.857,
    "rate_after": 0.583,
}
_INTERCEPT = 10.914
# Guest, percent of the page tables found, percent of the frames so called that are tables.
ERRORS = (
    ("start of rrww, 1 GiB", 72.7, 23.8),
    ("rrww, 64 MiB", 98.6, 40.4),
    ("redis", 83.2, 9.5),
    ("sqlite", 96.6, 7.8),
    # Not fitted to:
    ("gcc", 81.3, 8.6),
    ("python", 83.3, 8.2),
    ("sparse", 98.2, 17.4),
    ("largepages", 100.0, 12.2),
    ("forks", 35.6, 26.4),
    ("remap", 87.7, 29.1),
    ("moving", 98.1, 16.1),
)
