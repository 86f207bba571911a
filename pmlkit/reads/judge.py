# SPDX-License-Identifier: Apache-2.0
"""Estimates of reads against the truth, as tables: by round, by phase, next to published numbers.

The truth is the harvest of accessed flags of the same rounds. Published numbers were measured or
simulated by their authors on other machines. They have separate columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import pagetables, progress
from pmlkit.reads import page_sets, sampled
from pmlkit.reads.methods import estimate
from pmlkit.reads.page_sets import joined, of_log
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pmlkit.kernels.by_page import References
    from pmlkit.reads.calibration import Calibration
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Gfns, Ints

__all__ = [
    "NAMES",
    "PUBLISHED",
    "beside_published",
    "by_phase",
    "compare",
    "published",
    "sources",
    "unsure",
]


NAMES = {
    "written": "PML alone",
    "leaves": "512 per leaf table",
    "present": "present entries",
    "accessed": "accessed entries",
    "cleared": "accessed, flags cleared",
    "density": "density of a sample",
    "sample": "sample alone",
    "guided": "guided harvest",
}
SOURCE = "Bitchebe et al., arXiv 2001.09991 and its published data"
# MB of a buffer of 400 MB; read phase and write phase of RRWW.
PUBLISHED = (
    ("PML", "real", 8.2, 8.2, 308.0, 410.0),
    ("PRL", "simulated", 401.0, 410.0, 401.0, 410.0),
    ("VMware sampling", "real", 184.0, 492.0, 184.0, 492.0),
)


def compare(
    trace: Trace,
    methods: Iterable[str] = ("written", "leaves", "present", "accessed"),
    calibration: Calibration | None = None,
    one_in: int | None = None,
    draws: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Estimate every round by several methods, and compare them with the truth.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests with its log.
    methods : sequence of str
        One of `pmlkit.reads.METHODS`.
    calibration : pmlkit.reads.calibration.Calibration, optional
        As in `pmlkit.reads.estimate`.
    one_in : int, optional
        The sample of ``density`` and ``sample``; default: `pmlkit.reads.sampled.ONE_IN`.
    draws : sequence of int
        Its draws: each round is there once for each.

    Returns
    -------
    DataFrame
        ``round``, ``phase``, ``method``, ``pages``, ``low``, ``high``, ``truth``, ``written``,
        ``error`` (pages over truth, less 1), ``inside`` (truth within the interval), ``missed``
        (share of the truth that PML alone misses), ``why``, ``draw`` (0 of what draws nothing).
        Rounds without a truth are omitted.
    """
    touched = page_sets.truth(trace)
    frames = page_sets.sets(trace) if trace.has_tables else None
    truth = page_sets.window_sizes(touched)
    parts = []
    for method in progress.over(list(methods), name=str):
        if method in ("density", "sample"):
            tables = method == "density"
            known = frames if tables else of_log(trace)
            estimates = {
                draw: sampled.estimate(
                    trace, one_in=one_in, draw=draw, frames=known, touched=touched, tables=tables
                )
                for draw in draws
            }
        else:
            estimates = {0: estimate(trace, method, calibration=calibration, frames=frames)}
        parts += [
            judged(part.assign(method=method), truth).assign(draw=draw)
            for draw, part in estimates.items()
        ]
    return pd.concat(parts, ignore_index=True)


def judged(estimates: pd.DataFrame, truth: Ints) -> pd.DataFrame:
    """Compare estimates of every round with the truth (array, shape (rounds,))."""
    rows = estimates.assign(round=np.arange(len(estimates)), truth=truth)
    rows = rows[rows["truth"] > 0]
    rows["error"] = rows["pages"] / rows["truth"] - 1
    rows["inside"] = (rows["low"] <= rows["truth"]) & (rows["truth"] <= rows["high"])
    rows["missed"] = 1 - rows["written"] / rows["truth"]
    names = ["round", "phase", "method", "pages", "low", "high", "truth", "written"]
    return rows[[*names, "error", "inside", "missed", "why"]]


def by_phase(compared: pd.DataFrame) -> pd.DataFrame:
    """Summarise `compare` by phase and method.

    Returns
    -------
    DataFrame
        ``phase``, ``method``, ``rounds``; means in MiB of ``truth`` and ``estimate``. In percent:
        ``missed`` by PML alone, ``mape`` and ``median`` (mean and median of the absolute error),
        ``bias`` (mean error), ``inside`` (rounds whose truth lies in the interval), and ``width``
        of the interval (median, relative to the truth).
    """
    rows = compared.assign(
        size=compared["error"].abs() * 100,
        truth_mib=compared["truth"] / MIB_PAGES,
        pages_mib=compared["pages"] / MIB_PAGES,
        width=(compared["high"] - compared["low"]) / compared["truth"] * 100,
    )
    groups = rows.groupby(["phase", "method"], sort=False)
    table = pd.DataFrame(
        {
            "rounds": groups["round"].nunique(),
            "truth": groups["truth_mib"].mean(),
            "estimate": groups["pages_mib"].mean(),
            "missed": groups["missed"].mean() * 100,
            "mape": groups["size"].mean(),
            "median": groups["size"].median(),
            "bias": groups["error"].mean() * 100,
            "inside": groups["inside"].mean() * 100,
            "width": groups["width"].median(),
        }
    )
    return table.reset_index().round(2)


def published() -> pd.DataFrame:
    """Return the published results for RRWW: MB of a buffer of 400 MB, with the source."""
    names = ["technique", "how", "read_low", "read_high", "write_low", "write_high"]
    return pd.DataFrame(PUBLISHED, columns=names).assign(source=SOURCE)


def beside_published(
    compared: pd.DataFrame,
    buffer_pages: int,
    reading: Sequence[str] = ("read1", "read2"),
    writing: Sequence[str] = ("write1",),
) -> pd.DataFrame:
    """Compare each method's share of the buffer with the published ones.

    Parameters
    ----------
    compared : DataFrame
        From `compare`, of a trace of rrww.
    reading, writing : sequences of str
        The phases that only read, and those that write.

    Returns
    -------
    DataFrame
        ``technique``, then percent of the buffer in read and in write phases: measured in the lab
        (``lab_read``, ``lab_write``), published and real (``real_read``, ``real_write``), published
        and simulated (``simulated_read``, ``simulated_write``). Above 100: the guest uses more than
        the buffer.
    """
    rows = [_lab_row(rows, name, buffer_pages, reading, writing) for name, rows in _named(compared)]
    rows += [_published_row(*row) for row in PUBLISHED]
    order = ["technique"] + [f"{h}_{p}" for h in ("lab", "real", "simulated") for p in _PHASES]
    return pd.DataFrame(rows).reindex(columns=order)


_PHASES = ("read", "write")


def _named(compared: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    truth = compared.drop_duplicates("round").assign(pages=lambda rows: rows["truth"])
    yield "harvest (truth)", truth
    for method, rows in compared.groupby("method", sort=False):
        yield NAMES.get(str(method), str(method)), rows


def _lab_row(
    rows: pd.DataFrame,
    name: str,
    buffer_pages: int,
    reading: Sequence[str],
    writing: Sequence[str],
) -> dict[str, str | float]:
    share = {
        kind: rows.loc[rows["phase"].isin(phases), "pages"].mean() / buffer_pages * 100
        for kind, phases in (("lab_read", reading), ("lab_write", writing))
    }
    return {"technique": name, **{kind: round(value, 1) for kind, value in share.items()}}


def _published_row(technique: str, how: str, *mb: float) -> dict[str, str | float]:
    low_high = zip(mb[::2], mb[1::2], strict=True)
    read, write = (
        f"{low / 4:.0f}" if low == high else f"{low / 4:.0f}-{high / 4:.0f}"
        for low, high in low_high
    )
    return {"technique": technique, f"{how}_read": read, f"{how}_write": write}


# ------------------------------------------------------------------------------
# The errors of the accessed entries, frame by frame: missed and extra frames.
#
# There are two causes. First, the guest's accessed flags are *sticky*: they are never cleared, so a
# page that was used once counts whenever its table is walked. Linux also sets them for the pages
# around a fault (fault-around), used or not. Second, pages that only the *kernel* reads have no
# entry of a program: its code, and data that it copies through its map of all memory.


def sources(trace: Trace) -> pd.DataFrame:
    """Divide the errors of the method ``accessed`` by their cause.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log.

    Returns
    -------
    DataFrame
        Per phase: ``phase``, ``rounds``, and mean pages per round. ``truth`` is the harvest,
        ``estimate`` is of ``accessed``. Touched but not counted: ``kernel`` (no program maps the
        page) and ``user`` (one does). Counted but not touched: ``other_rounds`` (touched in other
        rounds of the recording) and ``never`` (in none). ``estimate`` is ``truth - kernel - user +
        other_rounds + never``.

    Raises
    ------
    NeedsError
        If the trace has no harvests, marks or snapshots.
    """
    truth, sets = page_sets.truth(trace), page_sets.sets(trace)
    touched, counted = _packed(truth), _packed(sets.accessed)
    rows = pagetables.entries(trace)
    mapped = pagetables.pack(*pagetables.covered(rows, accessed=False))
    missed = np.setdiff1d(touched, counted, assume_unique=True)
    extra = np.setdiff1d(counted, touched, assume_unique=True)
    by_user, again = np.isin(missed, mapped), np.isin(pagetables.unpack(extra)[1], truth.gfn)
    parts = {
        "truth": touched,
        "estimate": counted,
        "kernel": missed[~by_user],
        "user": missed[by_user],
        "other_rounds": extra[again],
        "never": extra[~again],
    }
    pages = {name: _per_round(pairs, trace.n_rounds) for name, pairs in parts.items()}
    table = pd.DataFrame({"phase": np.asarray(trace.phase_of_rounds(), object), **pages})
    groups = table.groupby("phase", sort=False)
    means = groups.mean(numeric_only=True).round(1)
    means.insert(0, "rounds", groups.size())
    return means.reset_index()


def unsure(trace: Trace) -> pd.DataFrame:
    """Count what is uncertain with cleared flags: new entries, and pages that only the kernel maps.

    Parameters
    ----------
    trace : Trace
        As for `sources`; the guest's accessed flags must be cleared in every round.

    Returns
    -------
    DataFrame
        ``round``; ``fresh``: frames under accessed entries that are not certain (of new tables, or
        new themselves); ``used``: those that were touched; ``entries``: the kernel's large pages
        that were accessed; ``pages``: touched frames under no other entry. Rounds in which no flags
        were cleared are omitted.
    """
    frames, truth = page_sets.sets(trace), page_sets.truth(trace)
    counted = joined(frames.certain, frames.accessed)
    unions = (frames.certain, counted, joined(frames.certain, truth), joined(counted, truth))
    sure, all_, sure_hit, all_hit = (page_sets.window_sizes(refs) for refs in unions)
    table = pd.DataFrame({"round": np.arange(frames.n_rounds), "fresh": all_ - sure})
    table["entries"] = page_sets.window_sizes(frames.kernel)
    table["pages"] = all_hit - all_
    table["used"] = sure_hit - sure - table["pages"]
    return table[table["entries"] > 0]


def _packed(refs: References) -> Gfns:
    return np.unique(pagetables.pack(refs.round, refs.gfn))


def _per_round(pairs: Gfns, n_rounds: int) -> Ints:
    # A log that was cut off may have snapshots of an unfinished round.
    return np.bincount(pagetables.unpack(pairs)[0], minlength=n_rounds)[:n_rounds]
