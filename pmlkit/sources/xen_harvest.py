# SPDX-License-Identifier: Apache-2.0
"""Harvests of accessed flags become an access trace: the pages touched between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.kinds import Kind
from pmlkit.sources.xen_stream import ns_of
from pmlkit.xen.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pmlkit.sources.xen_ingest import XenTrace
    from pmlkit.types import Bools, Gfns, Json
    from pmlkit.writer import TraceWriter


__all__ = ["harvest_period", "write_harvests"]

_RECORDS = 2048  # read at a time
_COSTS = {"guided": "guided_tsc", "scan": "scan_tsc"}


def harvest_period(made: XenTrace, period: Json) -> Json:
    """Return the period of the access trace, given the log's: flags pile up between harvests."""
    every = made.header.get("job", {}).get("harvest_every", 1)
    return {**period, "ns": period["ns"] and period["ns"] * every}


def write_harvests(made: XenTrace, writer: TraceWriter) -> None:
    """Write the pages touched between harvests: READ, or WRITE if they are in the log too.

    Parameters
    ----------
    made : pmlkit.sources.xen_ingest.XenTrace
    writer : TraceWriter
        Of an access trace.
    """
    batches, first = [], 0  # type: ignore[var-annotated]
    for number, last in enumerate(made.harvests):
        for reason, parts in _harvested(made, first, last):
            for frames, kinds in parts:
                if len(frames):
                    writer.add_entries(number, len(batches), 0, frames, kinds)
            batches.append({"round": number, "reason": reason})
        made.spool.forget()
        first = last + 1
    rounds = _rounds(made)
    writer.set_rounds(rounds)
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end"]
    table = pd.DataFrame(batches).join(rounds[spans], on="round")
    writer.set_batches(table.assign(batch=np.arange(len(table)), drain_ns=_costs(made, table)))
    made.write_rest(writer, True)


def _rounds(made: XenTrace) -> pd.DataFrame:
    """A round of the access trace goes from harvest to harvest."""
    table = made.round_table().iloc[made.harvests].reset_index(drop=True)
    for start, end in (("t_start_ns", "t_end_ns"), ("insn_start", "insn_end")):
        table[start] = np.concatenate([[0], table[end].to_numpy()[:-1]])
    every = made.header.get("job", {}).get("harvest_every", 1)
    asked = table["asked_ns"].where(table["asked_ns"] < 0, table["asked_ns"] * every)
    return table.assign(round=np.arange(len(table)), asked_ns=asked)


def _costs(made: XenTrace, table: pd.DataFrame) -> list[int]:
    said = {why: made.rounds.column(name, made.count) for why, name in _COSTS.items()}
    numbers = [made.harvests[number] for number in table["round"]]
    ticks = [said[why][n] for n, why in zip(numbers, table["reason"], strict=True)]
    return [int(ns_of(t, made.header["tsc_khz"])) for t in ticks]


def _harvested(
    made: XenTrace, first: int, last: int
) -> Iterator[tuple[str, Iterator[tuple[Gfns, NDArray[np.uint8]]]]]:
    """Yield the source, and (frames, kinds) in parts, of the harvest that closed round `last`."""
    spool, taken = made.spool, np.zeros(0, np.uint64)
    if spool.has(Frame.TOUCHED, last):
        words = spool.touched_words(last)
        words = words[np.argsort(words >> np.uint64(12), kind="stable")]
        taken, read = words >> np.uint64(12), (words & np.uint64(0xFF)) == int(Kind.READ)
        # Page tables are written by the walks that read them.
        yield "guided", iter([(taken, _kinds(~read))])
    if spool.has(Frame.ACCESSED, last):
        yield "scan", _scanned(made, first, last, taken)


def _scanned(
    made: XenTrace, first: int, last: int, taken: Gfns
) -> Iterator[tuple[Gfns, NDArray[np.uint8]]]:
    logged = _logged(made, first, last)
    for frames in made.spool.frames_of(Frame.ACCESSED, last):
        frames = frames[~_among(frames, taken)]
        yield frames, _kinds(_among(frames, logged))


def _among(frames: Gfns, known: Gfns) -> Bools:
    """Say which frames are among the known ones; both are sorted."""
    if not len(known):
        return np.zeros(len(frames), bool)
    return known[np.minimum(np.searchsorted(known, frames), len(known) - 1)] == frames


def _kinds(written: Bools) -> NDArray[np.uint8]:
    return np.where(written, int(Kind.WRITE), int(Kind.READ)).astype(np.uint8)


def _logged(made: XenTrace, first: int, last: int) -> NDArray[np.uint64]:
    """Return the frames in the log of some rounds: ndarray of uint64, ascending."""
    rounds, found = made.logs["round"], np.zeros(0, np.uint64)
    start, stop = np.searchsorted(rounds, first), np.searchsorted(rounds, last, "right")
    for at in range(start, stop, _RECORDS):
        words = made.spool.words(made.logs[at : min(at + _RECORDS, stop)])
        found = np.union1d(found, words >> np.uint64(12))
    return found
