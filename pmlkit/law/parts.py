# SPDX-License-Identifier: Apache-2.0
"""What the law has to know of each technique: what it sees, when it looks, what a look costs.

A technique is stated here by its fields and by the channels that it needs. Those that change the
guest's memory, that rest, or whose answer is no count of pages in a window, are `OUTSIDE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pmlkit.errors import NeedsError, UnknownName
from pmlkit.techniques import TECHNIQUES
from pmlkit.techniques.channels import BUFFER, TABLE_FRAMES
from pmlkit.techniques.dirty_rate import DirtyRing
from pmlkit.techniques.flag_sample import ONE_IN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.law.curves import Curves
    from pmlkit.techniques.protocol import Technique

    Events = dict[str, float]

__all__ = ["OUTSIDE", "STATED", "Parts", "events_of", "first_events_of", "parts_of"]

RING = DirtyRing.entries


@dataclass(frozen=True)
class Parts:
    """What decides a technique's error.

    Attributes
    ----------
    sees : str
        One of `pmlkit.law.curves.CHANNELS`.
    looks : int
        Per window T.
    watched : int, optional
        Frames that are drawn at random; without, all are watched.
    again : bool
        A frame can be drawn twice.
    redrawn : bool
        There is a new draw for each window: errors of draws average out over time.
    adds : bool
        The counts of the looks are added, so a page counts once for each look that sees it.
    """

    sees: str
    looks: int
    watched: int | None = None
    again: bool = False
    redrawn: bool = False
    adds: bool = False


class Stated(NamedTuple):
    """The parts of a technique, the events of one of its looks, and those before the first."""

    parts: Callable[[Any, int | None], Parts]
    events: Callable[[Parts, Curves, float], Events]
    first: Callable[[Parts, Curves, float], Events] | None = None


def parts_of(technique: Technique, memory_pages: int | None) -> Parts:
    """Return the parts of a technique on a VM with so much memory.

    Raises
    ------
    UnknownName
        If the law does not cover it: `OUTSIDE` says why.
    """
    return _stated(technique).parts(technique, memory_pages)


def events_of(technique: Technique, parts: Parts, curves: Curves, period_ns: float) -> Events:
    """Return the events of one look, as expected by the recording's curves."""
    return _stated(technique).events(parts, curves, period_ns)


def first_events_of(technique: Technique, parts: Parts, curves: Curves, period_ns: float) -> Events:
    """Return the events before the first look: flags are as old as the VM, and cleared once."""
    first = _stated(technique).first
    return first(parts, curves, period_ns) if first else {}


def _stated(technique: Technique) -> Stated:
    if technique.name not in STATED:
        raise UnknownName("technique of the law", technique.name, STATED)
    return STATED[technique.name]


# ------------------------------------------------------------------------------
# Events of a look. Counts are means of what is used between two looks.


def _log(parts: Parts, curves: Curves, period_ns: float) -> Events:
    entries = curves.mean(parts.sees, period_ns)
    return {"rounds": 1, "log_entries": entries, "pml_exits": _full(entries, BUFFER)}


def _ring(parts: Parts, curves: Curves, period_ns: float) -> Events:
    entries = curves.mean(parts.sees, period_ns)
    return {"rounds": 1, "log_entries": entries, "pml_exits": _full(entries, RING)}


def _full(entries: float, buffer: int) -> float:
    """Return how often a buffer fills: half a buffer is left over at a look, on average."""
    return max(entries / buffer - 0.5, 0.0)


def _tables(channel: str, curves: Curves, period_ns: float) -> Events:
    tables = curves.mean(channel, period_ns)
    entries = curves.mean("log", period_ns) + tables
    marked = {
        "marked_entries": entries,
        "pml_exits": _full(entries, BUFFER),
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


def _qemu_sampling(technique: Any, memory: int | None) -> Parts:
    pages = _known(technique, memory)
    published = max(round(technique.per_gib * pages / (1 << 18)), technique.least)
    wanted = published if technique.watched is None else technique.watched
    return Parts("writes", technique.looks, min(wanted, pages), again=True, redrawn=True)


def _known(technique: Any, memory: int | None) -> int:
    if memory is None:
        raise NeedsError(technique.name, "size of the memory", "import it again with --memory")
    return memory


STATED: dict[str, Stated] = {
    "pml": Stated(_sees("log"), _log),
    "pml-page-tables": Stated(_sees("accesses"), _page_tables, _clearing),
    "pml-entries": Stated(_sees("entries"), _entries),
    "prl": Stated(_sees("accesses"), _log),
    "idle-pages": Stated(_sees("accesses"), _scan),
    "flag-sample": Stated(_flag_sample, _flags, _flags),
    "qemu-sampling": Stated(_qemu_sampling, _hashes),
    "qemu-bitmap": Stated(_sees("writes"), _bitmap),
    "qemu-ring": Stated(_sees("log", adds=True), _ring),
}

_LOOP = "it moves the guest's memory, and reports where that led"
_SWAP = "it sees what is swapped, not what is used"
OUTSIDE: dict[str, str] = {
    "pml-threshold": "it counts the pages of m looks: another set than W",
    "pml-plateau": "it never forgets: no window",
    "prl-plateau": "it never forgets: no window",
    "vtmm": "pages rise and sink in queues, each looked at in its own time",
    "vmware": "the largest of three averages over several T",
    "damon": "regions adapt to what was seen before",
    "intermittent": "it rests while its signal does not change",
    "self-ballooning": _LOOP,
    "zballoond": _LOOP,
    "mpa": _LOOP,
    "exclusive-cache": _LOOP,
    "geiger": _SWAP,
    "badis": _SWAP,
}
assert not set(STATED) & set(OUTSIDE) and set(STATED) <= set(TECHNIQUES)
