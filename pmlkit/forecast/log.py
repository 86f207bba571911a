# SPDX-License-Identifier: Apache-2.0
"""A PML log in memory, as the forecast's features read it: of a trace, or composed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.kinds import is_page_table
from pmlkit.selection import window_rounds
from pmlkit.units import parse_window

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.trace import Trace
    from pmlkit.types import Json


__all__ = ["Log", "read"]


@dataclass(frozen=True)
class Log:
    """The entries of a PML log, and what is known of its rounds.

    Attributes
    ----------
    name : str
        What it is called in tables; that of a composed one starts with ``composed``.
    program : str
        The program that ran, by which logs are held out together.
    gfn : ndarray of uint64, shape (entries,)
        In log order.
    round : ndarray of int64, shape (entries,)
        From 0; never decreasing.
    table : ndarray of bool, shape (entries,)
        Whether the entry is known to be a page-table page.
    exits, pause_ns : ndarray of int64, shape (rounds,)
        Log-full exits, and the time for which the guest stood still.
    phase : ndarray of object, shape (rounds,)
        The phase that the workload marked, ``""`` if it marks none.
    round_ns : int
        Length of a round.
    memory_pages : int
    day_ns : int or None
        Length of the day of a composed log, which starts at its time 0; None: not known.
    about : dict
        What else is to be kept: the source's digest, how it was composed.
    """

    name: str
    program: str
    gfn: np.ndarray
    round: np.ndarray
    table: np.ndarray
    exits: np.ndarray
    pause_ns: np.ndarray
    phase: np.ndarray
    round_ns: int
    memory_pages: int
    day_ns: int | None = None
    about: Json = field(default_factory=dict)

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.exits)

    @property
    def composed(self) -> bool:
        """Whether recorded phases were put together by `pmlkit.forecast.compose`."""
        return "composed" in self.about

    def window_rounds(self, window: str | int) -> int:
        """Return how many rounds make a window (str, int or Window); see `pmlkit.selection`."""
        return window_rounds(_Rounds(self.round_ns), window)

    def before(self, stop: int) -> Log:
        """Return the log as it was when `stop` rounds were over."""
        n = np.searchsorted(self.round, stop)
        cut = {name: getattr(self, name)[:n] for name in ("gfn", "round", "table")}
        cut |= {name: getattr(self, name)[:stop] for name in ("exits", "pause_ns", "phase")}
        return replace(self, **cut)

    def digest(self) -> str:
        """Return a digest of the entries (hexadecimal), by which data is named."""
        found = hashlib.blake2b(digest_size=16)
        for part in (self.gfn.astype("<u8"), self.round.astype("<u4"), self.table):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class _Rounds:
    resolution_ns: int


def read(
    trace: Trace, program: str | None = None, start: int | None = None, end: int | None = None
) -> Log:
    """Read the PML log of a trace.

    Parameters
    ----------
    trace : Trace
        A PML trace, or an access trace with the log of its run.
    program : str, optional
        By which logs are held out together; default: the first word of the domain's name, so that
        ``redis`` and ``redis-tides`` are one program.
    start, end : int, optional
        Only rounds that share time with this range, ns.

    Returns
    -------
    Log

    Raises
    ------
    NeedsError
        If the trace has no PML log, or its rounds have no length in time.
    """
    log = trace.pml
    if log.resolution_ns is None:
        raise NeedsError(log, "rounds of a length in time", "record with --window in ms")
    first, stop = log.rounds_between(start, end)
    if first == stop:
        raise UsageError(f"the trace {log.path} has no round between start and end: widen them")
    entries = log.entries(["round", "gfn", "kind"], start, end)
    rounds = log.rounds.iloc[first:stop]
    name = trace.path.name.removesuffix(".trace")
    composed = log.meta.options.get("composed")
    found = Log(
        name=name,
        program=program or _program(log, composed),
        gfn=entries["gfn"].to_numpy(),
        round=entries["round"].to_numpy().astype(np.int64) - first,
        table=is_page_table(entries["kind"].to_numpy()),
        exits=rounds["exits"].to_numpy(np.int64),
        pause_ns=rounds["pause_ns"].to_numpy(np.int64),
        phase=log.phase_of_rounds()[first:stop],
        round_ns=int(log.resolution_ns),
        memory_pages=int(log.memory_pages),
        day_ns=composed["day_ns"] if composed else None,
        about={"composed": composed} if composed else {},
    )
    return found


def _program(log: Trace, composed: Any) -> str:
    name = composed["program"] if composed else str(log.meta.domain.get("name") or log.path.stem)
    return name.split("-")[0]


def window_ns(log: Log, window: str | int) -> int:
    """Return the length of a window (str, int or Window) of this log, ns."""
    asked = parse_window(window)
    return asked.ns or asked.rounds * log.round_ns  # type: ignore[operator]
