# SPDX-License-Identifier: Apache-2.0
"""Properties of techniques for the law: channels, looks, and the cost of a look.

A technique that reports the pages of a window T is described by its fields and by the channels that
it needs (`STATED`). `RULED` has those whose answer a rule makes of the curves. `OUTSIDE` lists the
exceptions: what they report is decided by a guest whose memory they change, or by its swapping.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pmlkit.errors import NeedsError, UnknownName
from pmlkit.law.looks import Parts
from pmlkit.law.regions import Regions
from pmlkit.law.rules import (
    Ages,
    Plateau,
    Queues,
    Resting,
    Scanner,
    Threshold,
    full_buffers,
    log_events,
)
from pmlkit.techniques import TECHNIQUES
from pmlkit.techniques.channels import AREA_BITS, BUFFER, REGION_BITS, TABLE_FRAMES
from pmlkit.techniques.dirty_rate import DirtyRing
from pmlkit.techniques.flag_sample import ONE_IN
from pmlkit.techniques.mglru import MOST_LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.law.curves import Curves
    from pmlkit.law.looks import Looks, Rule
    from pmlkit.techniques.protocol import Technique

    Events = dict[str, float]

__all__ = ["OUTSIDE", "RULED", "STATED", "Parts", "events_of", "first_events_of", "parts_of"]

RING = DirtyRing.entries


class Stated(NamedTuple):
    """The parts of a technique, and the events of a look and before the first look."""

    parts: Callable[[Any, int | None], Parts]
    events: Callable[[Parts, Curves, float], Events]
    first: Callable[[Parts, Curves, float], Events] | None = None


def parts_of(technique: Technique, memory_pages: int | None) -> Parts:
    """Return the parts of a technique for a VM with that much memory.

    Raises
    ------
    UnknownName
        If the law does not cover it: `OUTSIDE` gives the reason.
    """
    if technique.name in RULED:
        return RULED[technique.name](technique, memory_pages)
    if technique.name not in STATED:
        raise UnknownName("technique of the law", technique.name, [*STATED, *RULED])
    return STATED[technique.name].parts(technique, memory_pages)


def events_of(technique: Technique, looks: Looks) -> Events:
    """Return the events of one look, as expected by the recording's curves."""
    if looks.parts.rule is not None:
        return looks.parts.rule.events(looks)
    return STATED[technique.name].events(looks.parts, looks.curves, looks.period_ns)


def first_events_of(technique: Technique, looks: Looks) -> Events:
    """Return the events before the first look: flags are as old as the VM, and are cleared once."""
    if looks.parts.rule is not None:
        return looks.parts.rule.first_events(looks)
    first = STATED[technique.name].first
    return first(looks.parts, looks.curves, looks.period_ns) if first else {}


# ------------------------------------------------------------------------------
# Events of a look. Counts are mean numbers of uses between two looks.


def _log(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return log_events(curves, parts.sees, period_ns)


def _ring(parts: Parts, curves: Curves, period_ns: float) -> Events:
    entries = curves.mean(parts.sees, period_ns)
    return {"rounds": 1, "log_entries": entries, "pml_exits": full_buffers(entries, RING)}


def _tables(channel: str, curves: Curves, period_ns: float) -> Events:
    tables = curves.mean(channel, period_ns)
    entries = curves.mean("log", period_ns) + tables
    marked = {
        "marked_entries": entries,
        "pml_exits": full_buffers(entries, BUFFER),
        "tables_found": tables,
    }
    return {"rounds": 1, **marked}


def _page_tables(parts: Parts, curves: Curves, period_ns: float) -> Events:
    real = curves.recorded.mapped is not None
    events = _tables("leaves" if real else "regions", curves, period_ns)
    frames = curves.mean("mapped", period_ns) if real else events["tables_found"] * TABLE_FRAMES
    return {**events, "flags_read": frames, "flag_looks": 1}


def _entries(parts: Parts, curves: Curves, period_ns: float) -> Events:
    events = _tables("leaves", curves, period_ns)
    return {**events, "entries_read": events["tables_found"] * TABLE_FRAMES}


def _scan(parts: Parts, curves: Curves, period_ns: float) -> Events:
    cleared = curves.mean(parts.sees, period_ns)
    return {"pages_scanned": curves.recorded.known_memory_pages, "flags_cleared": cleared}


def _pruned(parts: Parts, curves: Curves, period_ns: float) -> Events:
    bits = AREA_BITS - REGION_BITS
    all_regions = (curves.recorded.size - 1 >> REGION_BITS) + 1
    return {
        "pruned_looks": 1,
        "regions_read": min(curves.mean("areas", period_ns) * (1 << bits), all_regions),
        "pruned_flags": curves.mean("regions", period_ns) * (1 << REGION_BITS),
        "pruned_set": curves.mean("accesses", period_ns),
    }


def _first_pruned(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"pruned_looks": 1}


def _aging(parts: Parts, curves: Curves, period_ns: float) -> Events:
    pages = curves.recorded.known_memory_pages
    return {"pages_aged": pages, "pages_young": curves.mean(parts.sees, period_ns)}


def _blind_aging(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"pages_walked": curves.recorded.known_memory_pages}


def _soft_dirty(parts: Parts, curves: Curves, period_ns: float) -> Events:
    written = curves.mean("writes", period_ns)
    return {
        "soft_dirty_pages": curves.recorded.known_memory_pages,
        "soft_dirty_writes": written,
        "soft_dirty_reads": curves.mean("accesses", period_ns) - written,
    }


def _flags_and_log(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return log_events(curves, "log", period_ns) | _flags(parts, curves, period_ns)


def _traps(parts: Parts, curves: Curves, period_ns: float) -> Events:
    """Return the faults of a draw: within its period, and later of pages that are drawn again.

    A page that was not touched in its period stays inaccessible; its fault is counted when it is
    drawn again. Each page has `drawn` draws in the recording, and all but the last are drawn again.
    """
    memory, watched = curves.recorded.known_memory_pages, _watched(parts)
    drawn = curves.recorded.duration_ns / period_ns * watched / memory
    again = 1 + math.expm1(-drawn) / drawn
    until = min(period_ns * memory / watched, curves.recorded.duration_ns)
    now, later = (curves.mean(parts.sees, time) for time in (period_ns, until))
    faults = watched / memory * (now + again * (later - now))
    return _draw(parts, curves, period_ns) | {"faults": faults}


def _draw(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"pages_unmapped": _watched(parts), "transition": 1}


def _samples(parts: Parts, curves: Curves, period_ns: float) -> Events:
    if parts.samples is not None:
        return {"access_samples": parts.samples / parts.looks}
    assert parts.one_in is not None
    return {"access_samples": curves.uses(parts.sees, period_ns) / parts.one_in}


def _clearing(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"pages_scanned": curves.recorded.known_memory_pages}


def _flags(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"flags_read": _watched(parts), "flag_looks": 1}


def _bitmap(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"rounds": 1, "write_faults": curves.mean(parts.sees, period_ns)}


def _hashes(parts: Parts, curves: Curves, period_ns: float) -> Events:
    return {"pages_hashed": 2 * _watched(parts)}


def _watched(parts: Parts) -> int:
    assert parts.watched is not None
    return parts.watched


# ------------------------------------------------------------------------------
# The table.


def _sees(channel: str, **more: Any) -> Callable[[Any, int | None], Parts]:
    """Return the parts of a technique that watches all of a channel."""
    return lambda technique, memory: Parts(channel, technique.looks, **more)


def _flag_sample(technique: Any, memory: int | None) -> Parts:
    pages = _known(technique, memory)
    wanted = max(pages // ONE_IN, 1) if technique.watched is None else technique.watched
    return Parts("accesses", technique.looks, min(wanted, pages))


def _flag_sample_pml(technique: Any, memory: int | None) -> Parts:
    return replace(_flag_sample(technique, memory), known="log")


def _vmware(technique: Any, memory: int | None) -> Parts:
    watched = min(technique.watched, _known(technique, memory))
    averages = technique.slow, technique.fast
    return Parts("accesses", 1, watched, redrawn=True, averages=averages)


def _sampler(technique: Any, memory: int | None) -> Parts:
    of_time = None if technique.watched is not None else technique.one_in
    more = {"one_in": of_time, "samples": technique.watched, "redrawn": True}
    return Parts("accesses", technique.looks, unseen="unseen" in technique.name, **more)


def _mglru(channel: str) -> Callable[[Any, int | None], Parts]:
    return lambda technique, memory: Parts(channel, min(technique.looks, MOST_LOOKS))


def _qemu_sampling(technique: Any, memory: int | None) -> Parts:
    pages = _known(technique, memory)
    published = max(round(technique.per_gib * pages / (1 << 18)), technique.least)
    wanted = published if technique.watched is None else technique.watched
    return Parts("writes", technique.looks, min(wanted, pages), again=True, redrawn=True)


def _known(technique: Any, memory: int | None) -> int:
    if memory is None:
        raise NeedsError(
            technique.name, "size of the memory", "import it again with `pmlkit import --memory`"
        )
    return memory


def _ruled(channel: str, rule: type[Rule]) -> Callable[[Any, int | None], Parts]:
    """Return the parts of a technique that watches all of a channel and reports by a rule."""
    return lambda technique, memory: Parts(channel, _looks(technique), rule=rule(technique))


def _looks(technique: Any) -> int:
    return getattr(technique, "looks", None) or 1


def _intermittent(technique: Any, memory: int | None) -> Parts:
    pages = _known(technique, memory)
    share = max(technique.rate, min(technique.least / pages, 1))
    if technique.watched is not None:
        share = min(technique.watched / pages, 1)
    watched = max(round(share * pages), 1)
    return Parts("accesses", technique.looks, watched, rule=Resting(technique))


def _hint_faults(technique: Any, memory: int | None) -> Parts:
    watched = min(technique.watched, _known(technique, memory))
    return Parts("accesses", technique.looks, watched, rule=Scanner(technique))


def _regions(technique: Any, memory: int | None) -> Parts:
    watched = min(technique.watched, _known(technique, memory))
    rule = Regions(technique)
    return Parts("accesses", _looks(technique), watched, redrawn=True, rule=rule)


STATED: dict[str, Stated] = {
    "pml": Stated(_sees("log"), _log),
    "pml-page-tables": Stated(_sees("accesses"), _page_tables, _clearing),
    "pml-entries": Stated(_sees("entries"), _entries),
    "prl": Stated(_sees("accesses"), _log),
    "idle-pages": Stated(_sees("accesses"), _scan),
    "pruned-scan": Stated(_sees("accesses"), _pruned, _first_pruned),
    "cold-age": Stated(_sees("accesses"), _scan, _clearing),
    "mglru": Stated(_mglru("accesses"), _aging, _aging),
    "mglru-blind": Stated(_mglru("firsts"), _blind_aging, _blind_aging),
    "flag-sample-pml": Stated(_flag_sample_pml, _flags_and_log, _flags),
    "vmware": Stated(_vmware, _traps, _draw),
    "access-sampler": Stated(_sampler, _samples),
    "access-sampler-unseen": Stated(_sampler, _samples),
    "soft-dirty": Stated(_sees("writes"), _soft_dirty),
    "flag-sample": Stated(_flag_sample, _flags, _flags),
    "qemu-sampling": Stated(_qemu_sampling, _hashes),
    "qemu-bitmap": Stated(_sees("writes"), _bitmap),
    "qemu-ring": Stated(_sees("log", adds=True), _ring),
}

# Techniques whose report is made by a rule of `pmlkit.law.rules` or `pmlkit.law.regions`.
RULED: dict[str, Callable[[Any, int | None], Parts]] = {
    "pml-threshold": _ruled("log", Threshold),
    "pml-plateau": _ruled("log", Plateau),
    "prl-plateau": _ruled("accesses", Plateau),
    "vtmm": _ruled("accesses", Queues),
    "far-memory": _ruled("accesses", Ages),
    "intermittent": _intermittent,
    "hint-faults": _hint_faults,
    "damon": _regions,
    "telescope": _regions,
}

_LOOP = "it changes the guest's memory, and reports the size at which the guest's swapping settles"
_SWAP = "it sees what is swapped, not what is used"
OUTSIDE: dict[str, str] = {
    "self-ballooning": "it reports what the guest's kernel has promised, not what is used",
    "zballoond": _LOOP,
    "senpai": _LOOP,
    "mpa": "it reports what the guest's kernel has allocated, not what is used",
    "exclusive-cache": _LOOP,
    "geiger": _SWAP,
    "badis": _SWAP,
}
assert {*STATED, *RULED, *OUTSIDE} == set(TECHNIQUES)
assert len(STATED) + len(RULED) + len(OUTSIDE) == len(TECHNIQUES)
