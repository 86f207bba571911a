# SPDX-License-Identifier: Apache-2.0
"""The curves of a recording that the law needs: V(t, T) of each channel, its drift and its mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NeedsError
from pmlkit.kernels.by_page import References, references, sliding
from pmlkit.techniques.channels import AREA_BITS, REGION_BITS
from pmlkit.techniques.recorded import Uses
from pmlkit.timeline import Axis, Windows
from pmlkit.units import exact_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Array, Bools, Floats, Ints

__all__ = ["CHANNELS", "Blindness", "Curves", "check_used", "drift", "drifts"]


def _real(recorded: Recorded, uses: Uses | None) -> Uses:
    if uses is None:
        raise NeedsError(
            recorded.name, "snapshots of page tables", "log it in the lab with snapshots"
        )
    return uses


def _upper(uses: Uses, bits: int) -> Uses:
    """Return the uses of entries above the pages, each of 2^bits pages."""
    return Uses(uses.gfn >> bits, uses.starts)


def _firsts(uses: Uses, n_rounds: int) -> Uses:
    """Return the first use of each page in the recording."""
    first = np.sort(np.unique(uses.gfn, return_index=True)[1])
    return Uses.of(uses.rounds_of(0, n_rounds)[first], uses.gfn[first], n_rounds)


# The channels of a recording, by name.
CHANNELS: dict[str, Callable[[Recorded], Uses]] = {
    "accesses": lambda recorded: recorded.accesses,
    "writes": lambda recorded: recorded.writes,
    "log": lambda recorded: recorded.log,
    "entries": lambda recorded: _real(recorded, recorded.entries),
    "mapped": lambda recorded: _real(recorded, recorded.mapped),
    "leaves": lambda recorded: _real(recorded, recorded.leaves),
    "firsts": lambda recorded: _firsts(recorded.accesses, recorded.n_rounds),
    "regions": lambda recorded: _upper(recorded.accesses, REGION_BITS),  # entries for 2 MiB
    "areas": lambda recorded: _upper(recorded.accesses, AREA_BITS),  # entries for 1 GiB
}


@dataclass(frozen=True)
class Blindness:
    """The difference between a channel's working set and the true one, as shares of mean W.

    Attributes
    ----------
    missed : float
        Pages of W that the channel does not contain.
    extra : float
        Pages of the channel that W does not contain.
    bias : float
        ``extra - missed``.
    """

    missed: float
    extra: float

    @property
    def bias(self) -> float:
        return self.extra - self.missed


@dataclass(frozen=True)
class Curves:
    """The working sets of a recorded VM, by channel and window, each computed once.

    Attributes
    ----------
    recorded : Recorded
    """

    recorded: Recorded
    _pages: dict[tuple[str, int], Floats] = field(default_factory=dict, repr=False)
    _between: dict[tuple[str, int, bytes], Floats] = field(default_factory=dict, repr=False)
    _refs: dict[str, References] = field(default_factory=dict, repr=False)
    _gaps: dict[str, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)
    _blind: dict[tuple[str, int], Blindness] = field(default_factory=dict, repr=False)

    @cached_property
    def _axis(self) -> Axis:
        t_ns = self.recorded.t_ns
        return Axis(t_ns[1:] - t_ns[0], self.recorded.resolution_ns)

    @cached_property
    def t_ns(self) -> Ints:
        """Ends of the rounds, ns since the start, each time once (int64, shape (instants,))."""
        return self._axis.at[self._axis.last_of_instants]

    @cached_property
    def weights(self) -> Floats:
        """Lengths of those rounds, ns (float64, shape (instants,))."""
        return np.diff(self.t_ns, prepend=0).astype(float)

    @cached_property
    def gaps(self) -> Bools:
        """Whether the round that ends then is a gap without uses (bool, shape (instants,))."""
        gaps = np.zeros(len(self.t_ns), bool)
        if self.recorded.idle is not None:
            gaps[self.instant(np.flatnonzero(self.recorded.idle))] = True
            gaps[self.instant(np.flatnonzero(~self.recorded.idle))] = False
        return gaps

    @cached_property
    def even(self) -> bool:
        """Whether all rounds have the same length."""
        return bool(np.ptp(self.weights) == 0)

    def refs(self, channel: str) -> References:
        """Return the uses of a channel, sorted by page."""
        if channel not in self._refs:
            uses = CHANNELS[channel](self.recorded)
            self._refs[channel] = _by_page(uses, self.recorded.n_rounds)
        return self._refs[channel]

    def pages(self, channel: str, window_ns: int) -> Floats:
        """Return V(t, T) of a channel at each end of a round (float64, shape (instants,))."""
        key = channel, window_ns
        if key not in self._pages:
            self._pages[key] = self._sliding(self.refs(channel), window_ns)
        return self._pages[key]

    def between(self, channel: str, ends: Ints, looks: int) -> Floats:
        """Return the distinct pages of a channel from each look back to the one `looks` before it.

        Parameters
        ----------
        ends : ndarray of int64, shape (looks made,)
            Instants of the looks; never decreasing.

        Returns
        -------
        ndarray of float64, shape (looks made,)
            The first ones reach back to the start of the recording.
        """
        key = channel, looks, ends.tobytes()
        if key not in self._between:
            instants = self.instant(np.arange(self.recorded.n_rounds))
            found = np.append(np.searchsorted(ends, instants), len(ends)).astype(np.int32)
            windows = Windows(found, np.minimum(found + looks, len(ends)))
            self._between[key] = self.refs(channel).intervals.sliding(windows).astype(float)
        return self._between[key]

    def _sliding(self, refs: References, window_ns: int) -> Floats:
        windows = Windows.on(self._axis.at, window_ns, self.t_ns)
        return sliding(refs, windows).astype(float)

    def uses(self, channel: str, window_ns: float) -> float:
        """Return the mean number of uses in a time: a page counts once per round."""
        return len(self.refs(channel)) * window_ns / max(self._axis.length, 1)

    def counted(self, channel: str, window_ns: int, value: Callable[[Ints], Array]) -> Floats:
        """Return the sum over pages of a function of their uses in the last T.

        Parameters
        ----------
        value : callable
            Function of the number of uses (ndarray of int64), 0 without uses. With ``c > 0`` the
            sum is V(t, T).

        Returns
        -------
        ndarray of float64, shape (instants,)
            One value for each end of a round.
        """
        refs, n = self.refs(channel), len(self.t_ns)
        windows = Windows.on(self._axis.at, window_ns, self.t_ns)
        comes, goes = (side[refs.round].astype(np.int64) for side in (windows.enter, windows.leave))
        sizes = np.diff(refs.starts)
        page = np.repeat(np.arange(len(sizes)), sizes) * (n + 1)
        each = np.arange(len(refs))
        # At one instant uses leave before others enter: these are the counts before each step.
        others = each - np.searchsorted(page + goes, page + comes, "right")
        left = np.searchsorted(page + comes, page + goes, "left") - each
        steps = np.zeros(n + 1)
        np.add.at(steps, comes, value(others + 1) - value(others))
        np.add.at(steps, goes, value(left - 1) - value(left))
        return np.cumsum(steps)[:n]

    def instant(self, rounds: Ints) -> Ints:
        """Return the index in `t_ns` of the end of each round."""
        return np.searchsorted(self.t_ns, self._axis.at[rounds])

    def stays(self, channel: str, window_ns: int) -> tuple[Ints, Ints]:
        """Return from when and until when each use holds its page in the window of T.

        It does so until the next use of the page, or until T later. At each instant, V(t, T) is the
        number of uses that hold a page.

        Returns
        -------
        enter, until : ndarray of int64, shape (uses,)
            Instants, in the order of `refs`; `until` is not contained.
        """
        refs, size = self.refs(channel), len(self.t_ns)
        windows = Windows.on(self._axis.at, window_ns, self.t_ns)
        enter, leave = (
            side[refs.round].astype(np.int64) for side in (windows.enter, windows.leave)
        )
        until = np.append(enter[1:], size)[: len(enter)]
        until[refs.starts[1:] - 1] = size
        return enter, np.minimum(until, leave)

    def alive(self, lives: dict[str, float]) -> Floats:
        """Return the pages with a use in any of several channels within the time of that channel.

        Parameters
        ----------
        lives : dict of str to float
            For each channel, how long one of its uses counts, ns.
        """
        at = self._axis.at
        uses = [self.refs(channel) for channel in lives]
        gfn = np.concatenate([refs.gfn for refs in uses])
        starts = np.concatenate([at[refs.round] for refs in uses])
        life = np.repeat(list(lives.values()), [len(refs) for refs in uses])
        order = np.lexsort((starts, gfn))
        gfn, starts, stops = gfn[order], starts[order], (starts + life)[order]
        # Each use adds what is beyond the latest end so far of its page's uses.
        page = np.cumsum(np.append(0, np.diff(gfn) != 0))[: len(gfn)].astype(float)
        beyond = float(stops.max(initial=0)) + 1
        latest = np.maximum.accumulate(page * beyond + stops) - page * beyond
        before = np.append(0.0, latest[:-1])
        before[np.append(True, np.diff(gfn) != 0)[: len(gfn)]] = 0
        came = np.searchsorted(self.t_ns, np.maximum(starts, before))
        went = np.searchsorted(self.t_ns, np.maximum(stops, before))
        size = len(self.t_ns) + 1
        steps = np.bincount(came, minlength=size) - np.bincount(went, minlength=size)
        return np.cumsum(steps)[:-1].astype(float)

    def footprint(self, channel: str, window_ns: int) -> Floats:
        """Return the sum, over the uses in the last T, of the time since the use before, over T.

        A time longer than T counts as T. The mean over t is that of V(t, T): Denning's identity.
        """
        refs, at = self.refs(channel), self._axis.at
        times = at[refs.round]
        since = np.append(0, times[:-1])[: len(times)]
        since[refs.starts[:-1]] = 0
        share = np.minimum(times - since, window_ns) / window_ns
        windows = Windows.on(at, window_ns, self.t_ns)
        size = len(self.t_ns) + 1
        came, went = (
            np.bincount(side[refs.round], share, size) for side in (windows.enter, windows.leave)
        )
        return np.cumsum(came - went)[:-1]

    def mean(self, channel: str, window_ns: float) -> float:
        """Return the mean number of distinct pages in a time span, over all its possible starts.

        A page counts from its use until its next use, or until `window_ns` later (Denning). The
        mean is the sum of those times, divided by the recording's.
        """
        if channel not in self._gaps:
            gaps = np.sort(_gaps(self.refs(channel), self._axis)).astype(float)
            self._gaps[channel] = gaps, np.append(0.0, np.cumsum(gaps))
        gaps, sums = self._gaps[channel]
        shorter = int(np.searchsorted(gaps, window_ns))
        total = sums[shorter] + window_ns * (len(gaps) - shorter)
        return float(total / max(self._axis.length, 1))

    def scored(self, window_ns: int) -> Bools:
        """Return whether the window T that ends with a round is full."""
        return self.t_ns >= window_ns

    def blindness(self, channel: str, window_ns: int) -> Blindness:
        """Return a channel's missed and extra pages relative to W, computed from the sets."""
        key = channel, window_ns
        if key not in self._blind:
            self._blind[key] = self._difference(channel, window_ns)
        return self._blind[key]

    def _difference(self, channel: str, window_ns: int) -> Blindness:
        uses, all_uses = CHANNELS[channel](self.recorded), self.recorded.accesses
        if uses is all_uses:
            return Blindness(0.0, 0.0)
        either = self._sliding(_either(uses, all_uses, self.recorded.n_rounds), window_ns)
        seen, true = self.pages(channel, window_ns), self.pages("accesses", window_ns)
        scored = self.scored(window_ns)
        weights = self.weights[scored]
        mean = np.average(true[scored], weights=weights)
        missed = np.average((either - seen)[scored], weights=weights)
        extra = np.average((either - true)[scored], weights=weights)
        return Blindness(float(missed / mean), float(extra / mean))

    def drift(self, window_ns: int, channel: str = "accesses") -> pd.DataFrame:
        """Return the turnover curve of W: the distance of W from its value at an earlier time.

        Returns
        -------
        DataFrame
            ``age_ns`` (from 0 to T). ``drift``: the mean of ``|W(t) - W(t - age)|``, divided by the
            mean of W. ``staleness``: its mean over smaller ages, the error of a technique that
            looks once in that time.
        """
        pages = self.pages(channel, window_ns)
        return drifts(self.t_ns, pages, window_ns, self.recorded.resolution_ns)


def check_used(curves: Curves, window_ns: int) -> None:
    """Raise `NeedsError` if all full windows T are empty: an error has no share of W then."""
    if not curves.pages("accesses", window_ns)[curves.scored(window_ns)].any():
        what = f"page in use in any full window T of {exact_ns(window_ns)}"
        raise NeedsError(curves.recorded.name, what, "record a guest that is at work")


def drifts(t_ns: Ints, pages: Floats, window_ns: int, unit_ns: int) -> pd.DataFrame:
    """Return the table of `Curves.drift` of any V.

    Parameters
    ----------
    t_ns : ndarray of int64, shape (instants,)
        Since the start.
    pages : ndarray of float64, shape (instants,)
        V(t, T).
    unit_ns : int
        The length of a round.
    """
    weights = np.diff(t_ns, prepend=0).astype(float)
    ages = np.arange(0, window_ns + 1, max(window_ns // unit_ns // 100, 1) * unit_ns)
    rows = [drift(t_ns, pages, weights, int(age), window_ns) for age in ages]
    table = pd.DataFrame({"age_ns": ages, "drift": rows})
    before = table["drift"].cumsum() - table["drift"]
    return table.assign(staleness=before / np.maximum(np.arange(len(table)), 1))


def drift(t_ns: Ints, pages: Floats, weights: Floats, age_ns: int, from_ns: int) -> float:
    """Return the mean of ``|V(t) - V(t - age)|`` over the mean of V, for ``t - age >= from_ns``.

    Between the ends of rounds, the last V stays valid.
    """
    old = at(t_ns, pages, t_ns - age_ns)
    late = t_ns - age_ns >= from_ns
    if not late.any() or not pages[late].any():
        return float("nan")
    change = np.average(np.abs(pages - old)[late], weights=weights[late])
    return float(change / np.average(pages[late], weights=weights[late]))


def at(t_ns: Ints, pages: Floats, when: Ints) -> Floats:
    """Return the latest of `pages` at other times; before the first time, the first one."""
    return pages[np.maximum(np.searchsorted(t_ns, when, "right") - 1, 0)]


def _by_page(uses: Uses, n_rounds: int) -> References:
    rounds = uses.rounds_of(0, n_rounds)
    return references(rounds, uses.gfn.view(np.uint64), n_rounds, distinct=True)


def _either(one: Uses, other: Uses, n_rounds: int) -> References:
    """Return the uses of both, sorted by page."""
    rounds = np.concatenate([uses.rounds_of(0, n_rounds) for uses in (one, other)])
    gfn = np.concatenate((one.gfn, other.gfn)).view(np.uint64)
    order = np.argsort(rounds, kind="stable")
    return references(rounds[order], gfn[order], n_rounds, distinct=True)


def _gaps(refs: References, axis: Axis) -> Ints:
    """Return the time from each use to the page's next use, or to the end, ns."""
    times = axis.at[refs.round]
    until = np.append(times[1:], axis.length)
    until[refs.starts[1:] - 1] = axis.length
    return until - times
