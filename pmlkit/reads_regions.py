# SPDX-License-Identifier: Apache-2.0
"""Regions of a guest's memory, round by round: what is known of each before its pages are counted.

A region is what one leaf table maps (up to 512 frames), or one large page. Its *candidates* are the
frames that may have been read in a round, and of which the log does not say so: mapped by an entry
of a logged table whose accessed flag is set, neither written, nor newly accessed, nor a table. A
frame that several entries map is a candidate of the first of them only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import pagetables, reads
from pmlkit.pagetables import ACCESSED, LEAF, PAGES_OF_A_TABLE, USER
from pmlkit.selection import time_ns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pmlkit.occurrences import Occurrences
    from pmlkit.trace import Trace
    from pmlkit.types import Bools, Floats, Gfns, Ints, Json


__all__ = ["FEATURES", "Candidates", "candidates", "features"]

FEATURES = (
    "prior",
    "known",
    "written",
    "ever_written",
    "new",
    "accessed",
    "share_4",
    "share_16",
    "place",
    "neighbours",
    "large",
    "user",
    "activity",
)
_FACTOR = np.log(4)
_RECENT = (4, 16)  # rounds over which the share of logged ones is taken


@dataclass(frozen=True)
class Candidates:
    """The frames that may have been read, and the regions that they belong to.

    Attributes
    ----------
    frames : DataFrame
        ``round`` (from 0), ``gfn``, ``region`` (row of `regions`).
    regions : DataFrame
        A row per (round, region): ``round``, ``base`` (the leaf table's frame, or a large page's
        first frame), ``large``, ``kernel`` (no program maps it), ``pages`` (candidates),
        ``mapped`` (accessed entries), ``wrote`` and ``sure`` of them, ``first`` (lowest frame),
        ``place``.
    sets : pmlkit.reads.Sets
    """

    frames: pd.DataFrame
    regions: pd.DataFrame
    sets: reads.Sets


def candidates(
    trace: Trace, start: str | int | None = None, end: str | int | None = None
) -> Candidates:
    """Find the candidates of each round of a trace.

    Parameters
    ----------
    trace : Trace
        With marks and snapshots.
    start, end : str, int or None

    Returns
    -------
    Candidates
    """
    span = {"start_ns": time_ns(start), "end_ns": time_ns(end)}
    rows = pagetables.entries(trace, **span)
    found = reads.sets(trace, start, end, rows)
    tables = pagetables.table_frames(trace, rows, **span)
    rows = rows[(rows["flags"] & (LEAF | ACCESSED)) == LEAF | ACCESSED]
    frames = _frames(rows, found.first)
    frames = _drop(frames, tables[0] - found.first, tables[1])
    frames = frames[frames["round"] < found.n_rounds]
    mapped = frames
    frames = _drop(frames, found.certain.round, found.certain.gfn)
    keys = ["round", "large", "base"]
    how = {"mapped": ("gfn", "size"), "first": ("gfn", "min"), "kernel": ("kernel", "all")}
    regions = mapped.groupby(keys, as_index=False).agg(**how)
    frames = frames.merge(regions.reset_index(names="region")[[*keys, "region"]], on=keys)
    counts = frames.groupby("region").size()
    regions["pages"] = counts.reindex(regions.index, fill_value=0)
    _count(regions, mapped, found.written, "wrote")
    _count(regions, mapped, found.certain, "sure")
    regions = _with_places(regions, trace, span, found.first)
    return Candidates(frames[["round", "gfn", "region"]], regions, found)


def _frames(rows: pd.DataFrame, first: int) -> pd.DataFrame:
    """Expand entries into frames with their region, each once: a program's before the kernel's."""
    counts = pagetables.spans(rows)
    large = (rows["level"] > 1).to_numpy()
    base = np.where(large, rows["target"], rows["table"]).astype(np.uint64)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    frames = pd.DataFrame(
        {
            "round": np.repeat(rows["round"].to_numpy(np.int64) - first, counts),
            "gfn": np.repeat(rows["target"].to_numpy(np.uint64), counts) + offset.astype(np.uint64),
            "large": np.repeat(large, counts),
            "kernel": np.repeat((rows["flags"] & USER == 0).to_numpy(), counts),
            "base": np.repeat(base, counts),
        }
    )
    # Of a page of 1 GiB each 2 MiB is a region.
    aligned = frames["gfn"] - frames["gfn"] % PAGES_OF_A_TABLE
    frames["base"] = frames["base"].where(~frames["large"], aligned)
    frames = frames.sort_values(["round", "gfn", "kernel", "large", "base"], kind="stable")
    return frames.drop_duplicates(["round", "gfn"])


def _drop(frames: pd.DataFrame, rounds: Ints, gfns: Gfns) -> pd.DataFrame:
    keep = ~_among(frames, rounds, gfns)
    return frames[keep]


def _among(frames: pd.DataFrame, rounds: Ints, gfns: Gfns) -> Bools:
    mine = pagetables.pack(frames["round"], frames["gfn"])
    return np.isin(mine, pagetables.pack(rounds, gfns))


def _count(regions: pd.DataFrame, mapped: pd.DataFrame, occ: Occurrences, name: str) -> None:
    """Add the column `name`: the frames of each region that are in `occ` in its round."""
    inside = mapped[_among(mapped, occ.round, occ.gfn)]
    keys = ["round", "large", "base"]
    sizes = inside.groupby(keys).size()
    regions[name] = sizes.reindex(pd.MultiIndex.from_frame(regions[keys]), fill_value=0).to_numpy()


def _with_places(regions: pd.DataFrame, trace: Trace, span: Json, first: int) -> pd.DataFrame:
    """Add where in its round's log a leaf table comes first; large pages have the middle."""
    logged = pagetables.logged(trace, **span).drop(columns="level")
    logged = logged.assign(round=logged["round"].astype(np.int64) - first)
    logged = logged.rename(columns={"table": "base"})
    found = regions.merge(logged, how="left", on=["round", "base"])
    found["place"] = found["place"].where(~found["large"]).fillna(0.5)
    return found


def features(found: Candidates, harvested: Mapping[int, Gfns] | None = None) -> pd.DataFrame:
    """Describe each region by numbers that are known without counting its pages.

    Parameters
    ----------
    found : Candidates
    harvested : dict of int to ndarray of uint64, optional
        Frames that a harvest found, by round (from 0 as in `found`): what is known of the past.

    Returns
    -------
    DataFrame
        The columns `FEATURES`, one row per region of ``found.regions``: ``prior``, the share of
        its candidates that the latest harvest before this round found, as log-odds (0 if there
        was none: ``known`` 0); shares of 512 frames: ``written`` in the round, ``ever_written``
        (the most in a round so far), ``new`` (used for certain), ``accessed``; ``share_4`` and
        ``share_16`` of the latest so many rounds in which it is in the log; ``place`` of its first
        log; ``neighbours``: what is written of the two regions beside it; ``large``;
        ``user``: not only the kernel maps it; ``activity``: the logarithm of how many
        pages the round wrote against the latest harvested one, at most a factor of 4 either way.
    """
    regions = found.regions
    table = pd.DataFrame(index=regions.index)
    table["prior"], table["known"] = _prior(found, harvested or {})
    for name, column in (("written", "wrote"), ("new", "sure"), ("accessed", "mapped")):
        table[name] = regions[column] / PAGES_OF_A_TABLE
    by_region = table["written"].groupby([regions["large"], regions["base"]])
    table["ever_written"] = by_region.cummax()
    for recent in _RECENT:
        table[f"share_{recent}"] = _shares(regions, recent)
    table["place"] = regions["place"]
    table["neighbours"] = _neighbours(regions, table["written"])
    table["large"] = regions["large"].astype(float)
    table["user"] = 1.0 - regions["kernel"]
    table["activity"] = _activity(found, harvested or {})
    return table[list(FEATURES)]


def _activity(found: Any, harvested: Mapping[int, Gfns]) -> Floats:
    """Return the change of what each region's round wrote since the latest harvest, a logarithm."""
    written = found.sets.written
    volume = np.log1p(np.bincount(written.round, minlength=found.sets.n_rounds))
    past = np.array(sorted(harvested), int)
    change = np.zeros_like(volume)
    for number in range(found.sets.n_rounds):
        before = past[past < number]
        if len(before):
            change[number] = volume[number] - volume[before[-1]]
    rounds = found.regions["round"].to_numpy()
    return np.clip(change, -_FACTOR, _FACTOR)[rounds]


def _prior(found: Any, harvested: Mapping[int, Gfns]) -> tuple[Floats, Floats]:
    """Return the log-odds of being in the latest harvest, smoothed by one page, and known."""
    regions, frames = found.regions, found.frames
    odds, known = np.zeros(len(regions)), np.zeros(len(regions))
    past = sorted(harvested)
    for number, rows in frames.groupby("round"):
        before = [r for r in past if r < number]
        if not before:
            continue
        hit = np.isin(rows["gfn"].to_numpy(), harvested[before[-1]])
        sums = pd.Series(hit).groupby(rows["region"].to_numpy()).agg(["sum", "size"])
        share = (sums["sum"] + 0.5) / (sums["size"] + 1)
        odds[sums.index] = np.log(share / (1 - share))
        known[sums.index] = 1
    return odds, known


def _shares(regions: pd.DataFrame, recent: int) -> Floats:
    """Return in which share of the latest `recent` rounds, this one included, a region is seen."""
    first = regions["round"].to_numpy()
    shares = np.zeros(len(regions))
    for _, rows in regions.groupby(["large", "base"]).indices.items():
        rounds = first[rows]
        since = np.searchsorted(rounds, rounds - recent, "right")
        shares[rows] = (np.arange(1, len(rows) + 1) - since) / np.minimum(recent, rounds + 1)
    return shares


def _neighbours(regions: pd.DataFrame, written: Any) -> Floats:
    """Return the mean share written of the regions whose frames lie next below and above."""
    order = np.lexsort((regions["first"], regions["large"], regions["round"]))
    values = written.to_numpy()[order]
    group = (regions["round"] * 2 + regions["large"]).to_numpy()[order]
    below = np.where(np.roll(group, 1) == group, np.roll(values, 1), 0)
    above = np.where(np.roll(group, -1) == group, np.roll(values, -1), 0)
    found = np.empty(len(values))
    found[order] = (below + above) / 2
    return found
