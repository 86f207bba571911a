# SPDX-License-Identifier: Apache-2.0
"""What a technique sees of a recorded VM: the channels that it declared, up to now.

The recording itself is held by the functions of `pmlkit.techniques.channels`, not by the view: no
attribute of a view leads to it. Time moves when the technique waits (`View.every`), and never back;
a channel answers for the time up to now. What each look costs is counted here, so that a technique
cannot forget it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NeedsError, UsageError
from pmlkit.techniques import channels
from pmlkit.techniques.channels import Clock, notable
from pmlkit.techniques.costs import COSTS
from pmlkit.techniques.recorded import known_memory
from pmlkit.units import format_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pmlkit.techniques.channels import Channel
    from pmlkit.techniques.memory import MemoryModel
    from pmlkit.techniques.recorded import Need, Recorded


__all__ = ["View", "look"]

MOST_LOOKS = 1_000_000  # of a technique in the gaps of a recording


class View:
    """A technique's eyes.

    Beside these it has an attribute for each channel that the technique needs: see
    `pmlkit.techniques.channels`.

    Attributes
    ----------
    memory_pages : int
        The size of the VM's memory, which every hypervisor knows. Not every imported trace does:
        to ask for it raises `NeedsError` then.
    window_ns : int
        T: the window of the working set that is asked for.
    random : numpy.random.Generator
    """

    # The channels, of which it has those that the technique needs.
    pml: Channel
    references: Channel
    dirty: Channel
    tables: Channel
    accessed: Channel
    traps: Channel
    content: Channel
    disk: Channel
    guest: Channel
    memory: Channel

    idle_ns = 0  # time in gaps of the recording

    def __init__(
        self,
        name: str,
        memory_pages: int | None,
        window_ns: int,
        scale: float,
        resolution_ns: int,
        seed: int,
        wait: Callable[..., Any],
    ) -> None:
        self._name, self._memory_pages = name, memory_pages
        self.window_ns = window_ns
        self.random = np.random.default_rng(seed)
        self._scale, self._resolution_ns, self._wait = scale, resolution_ns, wait
        self._events, self._told, self._notes = Counter(), [], {}  # type: ignore[var-annotated]

    @property
    def memory_pages(self) -> int:
        return known_memory(self._name, self._memory_pages)

    def notable(self, pages: int) -> int:
        """Return `pages`, if a technique can note something of each; else raise `NeedsError`."""
        return notable(self._name, pages)

    def published(self, duration: str, scaled: bool = True) -> int:
        """Turn a duration of the source into one that this recording can show.

        Parameters
        ----------
        duration : str
            As published, ``"30s"``.
        scaled : bool
            Whether the run's time scale applies (to intervals chosen for a human's clock); if not,
            only the recording's resolution does (intervals of the machine's own pace).

        Returns
        -------
        int
            ns, a multiple of the recording's resolution. What was changed becomes a note.
        """
        asked = parse_duration_ns(duration)
        wanted = asked * self._scale if scaled else asked
        rounds = max(round(wanted / self._resolution_ns), 1)
        got = rounds * self._resolution_ns
        if got != asked:
            self._notes[duration] = f"{duration} became {format_ns(got)}"
        return got

    def parts(self, count: int) -> tuple[int, int]:
        """Divide T.

        Parameters
        ----------
        count : int
            Into how many parts.

        Returns
        -------
        period_ns : int
            A part: a multiple of the recording's resolution, and that at least.
        parts : int
            How many of them T has: fewer than asked for where the resolution does not allow more.
        """
        rounds = max(self.window_ns // count // self._resolution_ns, 1)
        period_ns = rounds * self._resolution_ns
        parts = max(round(self.window_ns / period_ns), 1)
        if parts < count:
            self._notes["parts"] = f"{parts} parts of T, not {count}: rounds are too long for more"
        return period_ns, min(parts, count)

    def every(self, period_ns: int) -> Iterator[int]:
        """Wait for one period after another, as long as the recording lasts.

        Yields
        ------
        int
            The time now, ns since the recording's start.
        """
        if period_ns <= 0:
            raise UsageError(f"a period of {period_ns} ns is none: give more than 0")
        if self.idle_ns // period_ns > MOST_LOOKS:
            what = f"gaps short enough to be looked through every {format_ns(period_ns)}"
            raise NeedsError(self._name, what, "choose a longer --window")
        due = self._wait(0) + period_ns
        while (now := self._wait(due)) is not None:
            yield now
            due = max(due + period_ns, now - now % period_ns + period_ns)

    def charge(self, **events: int) -> None:
        """Count events that the technique's own work costs; the channels count theirs."""
        for name, count in events.items():
            if name not in COSTS:
                raise UsageError(f"{name!r} is no event with a cost: use {', '.join(COSTS)}")
            if count:
                self._events[name] += int(count)

    def report(self, pages: Any) -> None:
        """Say how large the working set is, as of now.

        Parameters
        ----------
        pages : float
            NaN: nothing can be said.
        """
        self._told.append((self._wait(0), float(pages), dict(self._events)))
        self._events.clear()

    def note(self, text: str) -> None:
        """Leave a sentence on what was assumed or changed, for the table's reader."""
        self._notes[text] = text

    def result(self) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
        """Return what was told: estimates, events in all, notes.

        Returns
        -------
        estimates : DataFrame
            ``t_ns`` and ``pages``, and a column for each event: those since the row before.
        events : dict of str to int
        notes : list of str
        """
        rows = [{"t_ns": t, "pages": pages, **events} for t, pages, events in self._told]
        names = sorted({name for *_, events in self._told for name in events})
        table = pd.DataFrame(rows, columns=["t_ns", "pages", *names])
        table = table.astype({"t_ns": np.int64, "pages": float})
        table[names] = table[names].fillna(0).astype(np.int64)
        events = Counter({name: int(table[name].sum()) for name in names})
        events.update(self._events)
        return table, dict(events), list(self._notes.values())


def look(
    recorded: Recorded,
    needs: frozenset[Need],
    window_ns: int,
    scale: float = 1.0,
    seed: int = 0,
    memory: MemoryModel | None = None,
) -> View:
    """Make a view of a recorded VM.

    Parameters
    ----------
    recorded : Recorded
    needs : iterable of Need
        The channels that it gets.
    window_ns : int
    scale : float
        Published intervals are multiplied by it (`View.published`).
    seed : int
    memory : pmlkit.techniques.memory.MemoryModel, optional
        How the guest of changing size behaves.

    Returns
    -------
    View

    Raises
    ------
    NeedsError
        If the recording has nothing for one of the channels.
    """
    clock = Clock(recorded.t_ns, recorded.idle)
    size, resolution_ns = recorded.memory_pages, recorded.resolution_ns
    view = View(recorded.name, size, window_ns, scale, resolution_ns, seed, clock.wait)
    view.idle_ns = recorded.idle_ns
    for need in sorted(needs, key=lambda need: need.value):
        channel = channels.OPEN[need](recorded, clock, view.charge, memory)
        if channel is None:
            raise NeedsError(recorded.name, channels.MISSING[need], channels.HOW[need])
        setattr(view, need.value, channel)
    return view
