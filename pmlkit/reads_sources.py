# SPDX-License-Identifier: Apache-2.0
"""Where the accessed entries (c) err, frame by frame: what they miss, and what they have too much.

Two things make them wrong. The guest's accessed flags are *sticky*: nobody clears them, and so
what was used once counts whenever its table is walked; and Linux sets them itself, for the pages
around a fault (fault-around), used or not. And what only the *kernel* reads is under no program's
entry: its own code, and what it copies through its map of all memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import pagetables, reads
from pmlkit.reads_sets import joined

if TYPE_CHECKING:
    from pmlkit.occurrences import Occurrences
    from pmlkit.trace import Trace

__all__ = ["sources", "unsure"]


def sources(trace: Trace) -> pd.DataFrame:
    """Split the errors of (c) by their cause.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log.

    Returns
    -------
    DataFrame
        Per phase: ``phase``, ``rounds``, and mean pages a round: ``truth`` (harvest), ``estimate``
        (c); touched and not counted: ``kernel`` (no program maps the page) and ``user`` (one does);
        counted and not touched: ``other_rounds`` (touched in other rounds of the recording) and
        ``never`` (in none). ``estimate`` is ``truth - kernel - user + other_rounds + never``.

    Raises
    ------
    NeedsError
        If the trace has no harvests, marks or snapshots.
    """
    truth, found = reads.truth(trace), reads.sets(trace)
    touched, counted = _packed(truth), _packed(found.accessed)
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
    """Count what cleared flags leave unsure: new entries, and what only the kernel's entries map.

    Parameters
    ----------
    trace : Trace
        As for `sources`, and with the guest's accessed flags cleared every round.

    Returns
    -------
    DataFrame
        ``round``, ``fresh`` (frames under accessed entries that are not certain: of new tables,
        or new themselves), ``used`` (those that were touched), ``entries`` (the kernel's large
        pages that were accessed), ``pages`` (touched, and under no other entry). Rounds in which
        no flags were cleared are left out.
    """
    found, truth = reads.sets(trace), reads.truth(trace)
    counted = joined(found.certain, found.accessed)
    sets = (found.certain, counted, joined(found.certain, truth), joined(counted, truth))
    sure, all_, sure_hit, all_hit = (reads.window_sizes(occ) for occ in sets)
    table = pd.DataFrame({"round": np.arange(found.n_rounds), "fresh": all_ - sure})
    table["entries"] = reads.window_sizes(found.kernel)
    table["pages"] = all_hit - all_
    table["used"] = sure_hit - sure - table["pages"]
    return table[table["entries"] > 0]


def _packed(occ: Occurrences) -> np.ndarray:
    return np.unique(pagetables.pack(occ.round, occ.gfn))


def _per_round(pairs: np.ndarray, n_rounds: int) -> np.ndarray:
    # A log that was cut off may have snapshots of a round that never ended.
    return np.bincount(pagetables.unpack(pairs)[0], minlength=n_rounds)[:n_rounds]
