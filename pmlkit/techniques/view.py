# SPDX-License-Identifier: Apache-2.0
"""A technique's view of a recorded VM: the declared channels, up to the present.

No attribute of a view leads to the recording: only the closures of `pmlkit.techniques.channels`
refer to it. Time moves forward when the technique waits (`View.every`). A channel answers for the
time up to now. It charges the view for each look, so a technique cannot omit the cost.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.costs import prices
from pmlkit.errors import NeedsError, UsageError, argument
from pmlkit.techniques import channels
from pmlkit.techniques.recorded import known_memory
from pmlkit.techniques.setting import Clock, Setting, notable
from pmlkit.units import exact_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import SupportsFloat

    from pmlkit.techniques.channels import (
        AccessedChannel,
        ContentChannel,
        DirtyChannel,
        DiskChannel,
        GuestChannel,
        LogChannel,
        MemoryChannel,
        TablesChannel,
        TrapsChannel,
    )
    from pmlkit.techniques.host_channels import (
        AgingChannel,
        SamplesChannel,
        SoftDirtyChannel,
    )
    from pmlkit.techniques.memory import MemoryModel
    from pmlkit.techniques.recorded import Need, Recorded


__all__ = ["View", "look"]

PARTS_FAR = 0.1  # share of T by which its parts together may differ from it
MOST_LOOKS = 1_000_000  # most looks of a technique in the gaps of a recording


class View:
    """The input of a technique.

    It also has one attribute for each channel that the technique needs, and no others: see
    `pmlkit.techniques.channels`.

    Attributes
    ----------
    memory_pages : int
        Size of the VM's memory. Reading it raises `NeedsError` if an imported trace lacks it.
    window_ns : int
        T: the window of the working set to estimate.
    random : numpy.random.Generator
    """

    pml: LogChannel
    references: LogChannel
    dirty: DirtyChannel
    tables: TablesChannel
    accessed: AccessedChannel
    traps: TrapsChannel
    content: ContentChannel
    disk: DiskChannel
    guest: GuestChannel
    memory: MemoryChannel
    aging: AgingChannel
    soft_dirty: SoftDirtyChannel
    samples: SamplesChannel

    def __init__(
        self,
        name: str,
        memory_pages: int | None,
        window_ns: int,
        scale: float,
        resolution_ns: int,
        seed: int,
        clock: Clock,
        idle_ns: int,
    ) -> None:
        self._name, self._memory_pages = name, memory_pages
        self.window_ns = window_ns
        self.random = np.random.default_rng(seed)
        self._scale, self._resolution_ns = scale, resolution_ns
        self._clock, self._idle_ns = clock, idle_ns  # time in gaps of the recording
        self._events: Counter[str] = Counter()
        self._estimates: list[tuple[int, float, dict[str, int]]] = []  # time, pages, events
        self._notes: dict[str, str] = {}

    @property
    def memory_pages(self) -> int:
        return known_memory(self._name, self._memory_pages)

    def notable(self, pages: int) -> int:
        """Return `pages` if a technique can store per-page state; otherwise raise `NeedsError`."""
        return notable(self._name, pages)

    def published(self, duration: str, scaled: bool = True) -> int:
        """Convert a published duration to one that this recording resolves.

        Parameters
        ----------
        duration : str
            For example ``"30s"``.
        scaled : bool
            Whether the run's time scale applies, as for intervals chosen by people. If not, only
            the recording's resolution applies, as for intervals of the machine's own pace.

        Returns
        -------
        int
            ns, a multiple of the recording's resolution. A change adds a note.
        """
        published = parse_duration_ns(duration)
        wanted = published * self._scale if scaled else published
        rounds = max(round(wanted / self._resolution_ns), 1)
        duration_ns = rounds * self._resolution_ns
        if duration_ns != published:
            self._notes[duration] = f"{duration} became {exact_ns(duration_ns)}"
        return duration_ns

    def parts(self, count: int) -> tuple[int, int]:
        """Divide T into `count` parts of whole rounds.

        Returns
        -------
        period_ns : int
            Length of a part: a multiple of the recording's resolution, at least one.
        parts : int
            Number of parts: fewer than `count` if rounds do not allow that many. Together they have
            the length T, within `PARTS_FAR` of it unless the notes report otherwise.
        """
        whole = max(round(self.window_ns / self._resolution_ns), 1)  # rounds of T
        most = min(count, whole)
        # Fewer parts may fill T better: of 10 rounds, 3 parts cover 9, and 4 cover 8 or 12.
        fits = [(abs(n * max(round(whole / n), 1) - whole), n) for n in range(most, most // 2, -1)]
        close = [fit for fit in fits if fit[0] <= PARTS_FAR * whole]
        _, parts = close[0] if close else min(fits, key=lambda fit: fit[0])
        rounds = max(round(whole / parts), 1)
        if parts < count:
            self._notes["parts"] = f"{parts} parts of T, not {count}: rounds are too long for more"
        if not close:
            self._notes["span"] = f"{parts} parts of {rounds} rounds represent T of {whole} rounds"
        return rounds * self._resolution_ns, parts

    def every(self, period_ns: int) -> Iterator[int]:
        """Wait for one period after another until the recording ends.

        Yields
        ------
        int
            The time now, ns since the recording's start.
        """
        if period_ns <= 0:
            raise UsageError(f"a period of {period_ns} ns is too short: give more than 0")
        if self._idle_ns // period_ns > MOST_LOOKS:
            what = f"gaps short enough for a look every {exact_ns(period_ns)}"
            raise NeedsError(self._name, what, f"choose a longer {argument('window')}")
        due = self._clock.now() + period_ns
        while (now := self._clock.wait(due)) is not None:
            yield now
            due = max(due + period_ns, now - now % period_ns + period_ns)

    def charge(self, **events: int) -> None:
        """Count events of the technique's own work; channels count their own."""
        for name, count in events.items():
            if name not in prices():
                raise UsageError(
                    f"{name!r} is not an event with a price: use {', '.join(prices())}"
                )
            if count:
                self._events[name] += int(count)

    def report(self, pages: SupportsFloat) -> None:
        """Report the present estimate, in pages. NaN: no estimate."""
        self._estimates.append((self._clock.now(), float(pages), dict(self._events)))
        self._events.clear()

    def note(self, text: str) -> None:
        """Add a sentence about an assumption or change, for readers of the results."""
        self._notes[text] = text

    def result(self) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
        """Return the reported estimates, the events, and the notes.

        Returns
        -------
        estimates : DataFrame
            ``t_ns`` and ``pages``, and a column for each event: its count since the previous row.
        events : dict of str to int
            In all.
        notes : list of str
        """
        each = [events for *_, events in self._estimates]
        names = sorted(set().union(*each))
        columns = {
            "t_ns": np.array([t_ns for t_ns, *_ in self._estimates], np.int64),
            "pages": np.array([pages for _, pages, _ in self._estimates], float),
            **{name: np.array([one.get(name, 0) for one in each], np.int64) for name in names},
        }
        events = Counter({name: int(columns[name].sum()) for name in names})
        events.update(self._events)
        return pd.DataFrame(columns), dict(events), list(self._notes.values())


def look(
    recorded: Recorded,
    needs: frozenset[Need],
    window_ns: int,
    scale: float = 1.0,
    seed: int = 0,
    memory: MemoryModel | None = None,
) -> View:
    """Create a view of a recorded VM.

    Parameters
    ----------
    needs : iterable of Need
        The channels of the view.
    scale : float
        The factor for published intervals (`View.published`).
    memory : pmlkit.techniques.memory.MemoryModel, optional
        The behaviour of a guest of changing size.

    Raises
    ------
    NeedsError
        If the recording lacks the input of a channel.
    """
    clock = Clock(recorded.t_ns, recorded.idle)
    view = View(
        recorded.name, recorded.memory_pages, window_ns, scale, recorded.resolution_ns, seed,
        clock, recorded.idle_ns,
    )  # fmt: skip
    setting = Setting(recorded, clock, view.charge, memory)
    for need in sorted(needs, key=lambda need: need.value):
        setattr(view, need.value, channels.OPEN[need](setting))
    return view
