# SPDX-License-Identifier: Apache-2.0
"""Techniques whose answer is no count of the last T: a rule makes it of the curves.

Most techniques report V(t, T) of what they see. The techniques here do something else with it: they
never forget a page, keep it for longer than T, look at one part of memory after another, or rest. A
rule states this in terms of the recording's curves. Nothing is fitted, and no draw is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.by_page import references, sliding
from pmlkit.law.looks import Rule
from pmlkit.law.noise import NORMAL, sample_error
from pmlkit.techniques.channels import BUFFER
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from pmlkit.law.curves import Curves
    from pmlkit.law.looks import Looks
    from pmlkit.techniques.view import View
    from pmlkit.types import Floats, Ints

    Events = dict[str, float]

__all__ = [
    "Ages",
    "Plateau",
    "Queues",
    "Resting",
    "Scanner",
    "Threshold",
    "full_buffers",
    "log_events",
]


def log_events(curves: Curves, channel: str, period_ns: float) -> Events:
    """Return the events of a look at a log that is drained and re-armed."""
    entries = curves.mean(channel, period_ns)
    return {"rounds": 1, "log_entries": entries, "pml_exits": full_buffers(entries, BUFFER)}


def full_buffers(entries: float, buffer: int) -> float:
    """Return how often a buffer fills: half a buffer is left over at a look, on average."""
    return max(entries / buffer - 0.5, 0.0)


class Threshold(Rule):
    """Counts the pages of at least m looks of those in T: a page counts once for each look."""

    phases = 8

    def events(self, of: Looks) -> Events:
        return log_events(of.curves, of.parts.sees, of.period_ns)

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        return self.between(of)

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        refs = of.curves.refs(of.parts.sees)
        look = np.searchsorted(ends, of.curves.instant(refs.round))
        order = np.argsort(look, kind="stable")
        by_look = references(look[order], refs.gfn[order], len(ends) + 1, distinct=True)
        pages = sliding(by_look, of.looks, self.technique.m)[: len(ends)].astype(float)
        pages[: of.looks - 1] = np.nan
        return pages, np.zeros(len(ends))


class Plateau(Rule):
    """Counts all pages since the start, once no look has found a new one for some time."""

    def events(self, of: Looks) -> Events:
        return log_events(of.curves, of.parts.sees, of.period_ns)

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        ever = of.curves.pages(of.parts.sees, _ever(of.curves))
        return ever, np.zeros(len(ever))

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        counts = of.seen[0][ends]
        reported = np.full(len(ends), np.nan)
        before, unchanged, estimate = 0.0, 0, np.nan
        for look, count in enumerate(counts.tolist()):
            unchanged = unchanged + 1 if count == before else 0
            estimate = before if unchanged >= self.technique.stable else estimate
            before, reported[look] = count, estimate
        return reported, np.zeros(len(ends))


class Queues(Rule):
    """vTMM's queues: a page stays counted for some looks after its last use.

    A page that is in use sits in the highest queue. After its last use it sinks by one queue per
    look at it, and the looks become rarer. `kept` follows the rule for one such page. So V is the
    pages used within that time: by a write, or by any use. A page that is used once sinks from a
    lower queue, and a read is found late: the law neglects both.
    """

    def events(self, of: Looks) -> Events:
        """Return them: pages in use are looked at each time, those that sink or rest less often."""
        counted = float(np.mean(of.seen[0]))
        used = of.curves.mean("accesses", of.period_ns)
        resting = of.curves.recorded.known_memory_pages - counted
        sinking = max(counted - used, 0) / 4
        due = used + sinking + resting / (1 << self.technique.levels - 1)
        log = log_events(of.curves, "log", of.period_ns)
        return log | {"flags_read": due, "flag_looks": 1}

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        lives = {"log": self.kept(written=True), "accesses": self.kept(written=False)}
        pages = of.curves.alive({sees: life * of.period_ns for sees, life in lives.items()})
        return pages, np.zeros(len(pages))

    def kept(self, written: bool) -> float:
        """Return for how many looks a page stays counted after its use has ended, a mean."""
        technique = self.technique
        cycle = 1 << technique.levels
        ends = []
        for last in range(cycle, 2 * cycle):
            queue, heat, turn = technique.levels - 1, 0.0, last
            heat = 2 * (1 + technique.write_weight * written)  # a steady use: h = h / 2 + gain
            while queue > 0 or heat > technique.warm:
                turn += 1
                if turn % (1 << (technique.levels - 1 - queue)) == 0:
                    queue, heat = max(queue - 1, 0), heat / 2
            ends.append(turn - last)
        return float(np.mean(ends))


class Ages(Rule):
    """kreclaimd's rule: pages younger than the age from which on few pages come back.

    Of the pages found in the look at u, those of age k or more are ``W(u, (k + 1) s) - W(u - s, k
    s)`` without the ones that are new, s being the time between looks. A curve of W for each k
    gives them all.
    """

    def events(self, of: Looks) -> Events:
        cleared = of.curves.mean(of.parts.sees, of.period_ns)
        return self.first_events(of) | {"flags_cleared": cleared}

    def first_events(self, of: Looks) -> Events:
        return {"pages_scanned": of.curves.recorded.known_memory_pages}

    def pace(self, view: View) -> tuple[int, int]:
        return view.published(self.technique.scan), 1

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        return self.between(of)

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        technique, count = self.technique, len(ends)
        minutes = parse_duration_ns(technique.scan) / 60e9
        ever = of.curves.pages(of.parts.sees, _ever(of.curves))[ends]
        new = np.diff(ever, prepend=0)
        sizes = [np.zeros(count)]  # of k looks, for each k
        sizes += [
            of.curves.pages(of.parts.sees, k * of.period_ns)[ends] for k in range(1, count + 2)
        ]
        reported, best = np.full(count, np.nan), []
        for look in range(count):
            earlier = [size[look - 1] if look else 0.0 for size in sizes[:-1]]
            back = np.array([size[look] for size in sizes[1:]]) - earlier - new[look]
            allowed = technique.promotions * minutes * sizes[1][look]
            best.append(max(int(np.count_nonzero(back > allowed)), 1))
            if look + 1 >= technique.warm_up:
                usual = int(np.percentile(best, technique.percentile, method="higher"))
                reported[look] = sizes[min(max(usual, best[-1]), count)][look]
        return reported, np.zeros(count)


class Resting(Rule):
    """Sampled re-use times, reported once in T, with rests while nothing changes.

    The footprint of T is the sum of ``min(gap, T) / T`` over the uses in T. The sample is the same
    all the time, so its scatter does not start or end a rest: the expected values do.
    """

    def events(self, of: Looks) -> Events:
        watched, memory = of.parts.watched or 0, of.curves.recorded.known_memory_pages
        faults = of.curves.mean(of.parts.sees, of.period_ns) * watched / memory
        flags = {"flags_read": watched / of.looks, "flag_looks": 1 / of.looks}
        awake = self.awake(of)
        again = {"pages_unmapped": faults * awake, "transition": awake}  # each that faulted
        return flags | again | {"faults": faults * awake}

    def first_events(self, of: Looks) -> Events:
        return {"pages_unmapped": of.parts.watched or 0, "transition": 1}

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        pages = of.curves.footprint(of.parts.sees, of.span_ns)
        memory = of.curves.recorded.known_memory_pages
        assert of.parts.watched is not None
        return pages, sample_error(pages, memory, of.parts.watched) / NORMAL

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        seen, sd = of.seen
        held, _ = self._followed(of, ends, seen)
        known = held >= 0
        where = np.where(known, held, 0)
        return np.where(known, seen[where], np.nan), sd[where]

    def awake(self, of: Looks) -> float:
        """Return the share of the windows in which it tracks uses."""
        resting = self._followed(of, of.ends(0), of.seen[0])[1]
        return float(1 - np.mean(resting)) if len(resting) else 1.0

    def _followed(self, of: Looks, ends: Ints, seen: Floats) -> tuple[Ints, list[bool]]:
        """Return the instant whose estimate stands at each look (-1: none), and who rests."""
        technique, memory = self.technique, of.curves.recorded.known_memory_pages
        share = (of.parts.watched or memory) / memory
        touched = of.curves.pages(of.parts.sees, of.span_ns) * share
        held, rested = np.full(len(ends), -1), []
        since = rest = 0
        before, current = 0.0, -1
        recent: list[float] = []
        for turn in range(of.looks, len(ends) + 1, of.looks):
            end = int(ends[turn - 1])
            rested.append(rest > 0)
            if rest:
                changed = abs(touched[end] - before) > 2 * technique.same * max(before, 20)
                rest = 0 if changed else rest - 1
                since, recent = (since, recent) if rest else (turn, [])
            elif turn - since >= 2 * of.looks:
                current = end
                recent = [*recent, float(seen[end])][-technique.settled :]
                calm = max(recent) - min(recent) <= technique.same * max(np.mean(recent), 1)
                rest = technique.rest if calm and len(recent) == technique.settled else 0
            before = touched[end]
            held[turn - 1] = current
        return held, rested


class Scanner(Rule):
    """Hint faults: each part of memory has a look of its own, of another age.

    The report is the sum of each part's count at its last look, and stands for the parts that had
    none yet. Where in memory the scanner begins is as unknown as when. The ages are its staleness.
    The parts without a look are its sampling: a sample of neighbouring pages.
    """

    def events(self, of: Looks) -> Events:
        """Return them: a step, and the faults of a part until the scanner is there again."""
        memory, size = of.curves.recorded.known_memory_pages, self.size(of)
        lasts = of.curves.recorded.duration_ns
        cycle = -(-memory // size) * of.period_ns
        again = max(1 - cycle / lasts, 0)  # of the steps: those whose part has a later one
        now, later = (of.curves.mean(of.parts.sees, ns) for ns in (of.span_ns, cycle))
        faults = (now + again * max(later - now, 0)) * size / memory
        return {"pages_unmapped": size, "transition": 1, "faults": faults}

    def first_events(self, of: Looks) -> Events:
        return {"pages_unmapped": self.size(of), "transition": 1}

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        """Return W: a look at all memory would see it; and what the covered part of it misses."""
        true = of.curves.pages(of.parts.sees, of.span_ns)
        off = np.zeros(len(true))
        phases = list(enumerate(of.phases(self.phases).tolist()))[::4]
        for case, phase in phases:
            ends = of.ends(phase)
            fresh = self._sums(of, ends, case, fresh=True)
            known = np.flatnonzero(~np.isnan(fresh))
            if not len(known):
                continue
            at = np.searchsorted(ends[known], np.arange(len(true)), "right") - 1
            some = at >= 0
            off[some] += np.abs(fresh[known][at[some]] - true[ends[known]][at[some]])
        return true, off / len(phases) / NORMAL

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        return self._sums(of, ends, case), np.zeros(len(ends))

    def size(self, of: Looks) -> int:
        """Return the pages of a step."""
        memory = of.curves.recorded.known_memory_pages
        return min(self.technique.watched, -(-memory // of.looks))

    def _sums(self, of: Looks, ends: Ints, case: int, fresh: bool = False) -> Floats:
        """Return the reports; `fresh`: as if all counted parts had been looked at just now."""
        memory, size = of.curves.recorded.known_memory_pages, self.size(of)
        parts = -(-memory // size)
        start = case * parts // min(self.phases, parts) % parts
        looked = np.arange(of.looks - 1, len(ends))
        part = (start + looked - of.looks + 1) % parts
        counts = of.counted(size)
        pages = np.minimum(size, memory - part * size)
        reported = np.full(len(ends), np.nan)
        early = of.curves.t_ns[ends] < of.span_ns
        if not len(looked):
            return reported
        if fresh:
            for at, look in enumerate(looked):
                listed = np.unique(part[: at + 1])
                covered = np.minimum(size, memory - listed * size).sum()
                total = counts.at(listed, np.full(len(listed), ends[look])).sum()
                reported[look] = total * memory / covered
                if len(listed) == parts:
                    break
            reported[look + 1 :] = of.curves.pages(of.parts.sees, of.span_ns)[ends[look + 1 :]]
            return np.where(early, np.nan, reported)
        found = _latest_sum(counts.at(part, ends[looked]), parts)
        reported[looked] = found * memory / _latest_sum(pages, parts)
        return np.where(early, np.nan, reported)


def _latest_sum(values: Ints, parts: int) -> Floats:
    """Return, after each step, the sum of the latest value of each part."""
    before = np.append(np.zeros(parts), values)[: len(values)]  # parts follow each other in turn
    return np.cumsum(values - before)


def _ever(curves: Curves) -> int:
    """Return a window that is as long as the recording, ns."""
    return int(curves.t_ns[-1]) + 1
