# SPDX-License-Identifier: Apache-2.0
"""The columns of a trace's tables, and `TraceMeta`, its description."""

from __future__ import annotations

import enum
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from pmlkit.costs import Clock
from pmlkit.errors import UsageError
from pmlkit.trace.description import DESCRIPTION, LOSSES, Fault
from pmlkit.trace.description import PAGE_SIZE as PAGE_SIZE

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Json

    Column = pa.ChunkedArray[Any]
    Field = pa.Field[Any]


FORMAT = "pmlkit-trace"
VERSION = 1
# Twice as many would save 0.3 % of the bytes of real logs, and take 64 MB more while writing.
ROW_GROUP_ROWS = 1 << 19
GROUPS_PER_FILE = 16
MIB_PAGES = (1 << 20) // PAGE_SIZE
# The two ways of harvesting accessed flags; `reason` of the batches of such access traces.
HARVESTS = ("guided", "scan")
REASONS = ("full", "round", "stop", *HARVESTS)  # reasons for which a buffer is drained
# Option of an access trace that has only one frame of this many.
SAMPLED = "sampled_one_in"
# Option of such a trace: "fixed" (the default), or "round": other frames in each round.
DRAWN = "sampled_draw"
# Option of an import: true if its memory size is not known but ends at the highest page.
MEMORY_GUESSED = "memory_ends_at_highest_page"
# Option: pairs of the trace's time and the host's monotonic clock, ns, at the start and after gaps.
HOST_CLOCK = "host_clock_ns"
# Option of a log whose page tables were identified by their content: rounds that were not fully
# examined.
UNSEEN = "rounds_with_unseen_tables"
# Values of `domain.address`, the address space of the frames; the first is the default.
ADDRESSES = ("guest-physical", "virtual", "block")
LOST_UNKNOWN = "losses not counted"


def _schema(**types: pa.DataType) -> pa.Schema:
    # Columns that are never null need no definition levels.
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


ENTRIES = _schema(
    round=pa.uint32(), batch=pa.uint32(), vcpu=pa.uint16(), gfn=pa.uint64(), kind=pa.uint8()
)
_SPAN = {
    "t_start_ns": pa.int64(),
    "t_end_ns": pa.int64(),
    "insn_start": pa.uint64(),
    "insn_end": pa.uint64(),
}
ROUNDS = _schema(
    round=pa.uint32(),
    **_SPAN,
    asked_ns=pa.int64(),
    asked_insn=pa.int64(),
    entries=pa.uint64(),
    rearmed=pa.uint64(),
    exits=pa.uint64(),
    pause_ns=pa.int64(),
    lost=pa.uint64(),
)
BATCHES = _schema(
    batch=pa.uint32(),
    round=pa.uint32(),
    vcpu=pa.uint16(),
    **_SPAN,
    reason=pa.string(),
    entries=pa.uint32(),
    lost=pa.uint64(),
    drain_ns=pa.int64(),
)
_SIZES = ("total", "free", "available", "cached", "committed", "anon", "slab", "allocated")
_COUNTERS = ("pswpin", "pswpout", "pgmajfault", "pgfault")
GUEST = _schema(
    t_ns=pa.int64(),
    insn=pa.uint64(),
    **{f"{name}_bytes": pa.int64() for name in _SIZES},
    **{name: pa.int64() for name in _COUNTERS},
)
# The present entries, at the end of a round, of the page tables that were logged in it.
SNAPSHOTS = _schema(
    round=pa.uint32(),
    table=pa.uint64(),
    level=pa.uint8(),
    index=pa.uint16(),
    target=pa.uint64(),
    flags=pa.uint8(),
)
# The guest's disk requests, divided at frame boundaries; `write`: from guest to disk.
DISK = _schema(
    t_ns=pa.int64(),
    insn=pa.uint64(),
    sector=pa.uint64(),
    sectors=pa.uint16(),
    gfn=pa.uint64(),
    write=pa.bool_(),
)
REGIONS = _schema(name=pa.string(), gfn=pa.uint64(), pages=pa.uint64())
TABLES = {"rounds": ROUNDS, "batches": BATCHES, "guest": GUEST, "regions": REGIONS, "disk": DISK}

# Default values of columns. The writer counts `entries` of rounds and batches.
DEFAULTS = {
    "rounds": {
        **dict.fromkeys(("insn_start", "insn_end", "rearmed", "exits", "pause_ns", "lost"), 0),
        **dict.fromkeys(("asked_ns", "asked_insn"), -1),
    },
    "batches": {"vcpu": 0, "insn_start": 0, "insn_end": 0, "lost": 0, "drain_ns": 0},
    "guest": dict.fromkeys(("insn", *_COUNTERS), 0),
    "regions": {},
    "disk": {"insn": 0},
}


class Checksum(TypedDict):
    """Size and BLAKE2b of a file in ``trace.json``; `rows` and `rounds` of files read by round."""

    bytes: int
    blake2b: str
    rows: NotRequired[int]
    rounds: NotRequired[list[int] | None]  # the first and the last; None without rows


def plain(value: object) -> Any:
    """Convert a value for JSON; NumPy numbers, paths, tuples and enums are supported."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value))
    if isinstance(value, str):
        # A file name may contain bytes that are not UTF-8 (surrogates in Python).
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise UsageError(f"the trace's description cannot hold {value!r}: give numbers or text")


@dataclass(frozen=True)
class TraceMeta:
    """The description of a trace: ``trace.json`` without the files.

    Parameters
    ----------
    kind : {"access", "pml"}
        First accesses per round, or a PML log.
    source : str
        recorder, simulator, lab, xen, kvm or synthetic.
    domain : dict
        name, memory_bytes (needed), vcpus, page_size (bytes; 4096).
    memory_map : list of dict
        start, end (bytes, end exclusive) and type ("usable", "reserved", ...) of each range.
    clock : dict
        unit ("ns"), kind ("icount" or "host"), ns_per_insn (float or None).
    period : dict
        ns and insn: the requested length of a round, in one of the two; the other is None.
    phases : list of dict
        name, round, t_ns, insn of each start; a phase lasts until the next one.
    known : list of dict
        phase, region, kind ("read", "written", "touched"), pages: the known answers.
    options, overheads, host, provenance : dict
        How the trace was collected: the cost, the machine, the command and the versions.
    notes : list of str
        Remarks for readers.
    complete : bool or None
        False if the recording was cut short; None if not known.
    losses : {"counted", "not counted"}
        Whether the source counts lost entries.
    created : str, optional
        ISO time, the only time of day in a trace; set by the writer.
    lost : int or None
        Number of lost entries, counted by the writer; None if `losses` are not counted.
    entries : int
        Number of entries, counted by the writer.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    kind: str
    source: str
    domain: Json = field(default_factory=dict)
    memory_map: list[Json] = field(default_factory=list)
    clock: Json = field(default_factory=dict)
    period: Json = field(default_factory=dict)
    phases: list[Json] = field(default_factory=list)
    known: list[Json] = field(default_factory=list)
    options: Json = field(default_factory=dict)
    overheads: Json = field(default_factory=dict)
    host: Json = field(default_factory=dict)
    provenance: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool | None = True
    losses: str = "counted"
    created: str | None = None
    lost: int | None = 0
    entries: int = 0

    def __post_init__(self) -> None:
        fill = {
            "domain": {"name": "guest", "vcpus": 1, "page_size": PAGE_SIZE},
            "clock": {"unit": "ns", "kind": "host", "ns_per_insn": None},
            "period": {"ns": None, "insn": None},
        }
        names = [each.name for each in fields(self)]
        for name in names:
            value = plain(getattr(self, name))
            object.__setattr__(self, name, fill[name] | value if name in fill else value)
        if self.losses != LOSSES[0]:
            object.__setattr__(self, "lost", None)
        document = {name: getattr(self, name) for name in names}
        if fault := DESCRIPTION(document) or _cross_fault(self):
            raise UsageError(f"the trace's {fault}")

    @property
    def lost_text(self) -> str:
        """How many entries were lost, as text."""
        return LOST_UNKNOWN if self.lost is None else f"{self.lost:,} lost"

    @property
    def loss_note(self) -> str:
        """What the loss of entries means for numbers, as text; empty if no loss was counted."""
        if not self.lost:
            return ""
        of = f"{self.lost:,} of {self.entries + self.lost:,} entries"
        return f"{of} were lost, so pages may be missing"

    @property
    def complete_text(self) -> str:
        """Whether the recording, or the imported file, is complete, as text."""
        if self.complete is False:
            why = "its input ended early" if self.is_import else "it is shorter than requested"
            return f"NO: {why}"
        return "yes" if self.complete else "not known"

    @property
    def is_import(self) -> bool:
        """Whether it was imported from another tool's file."""
        return self.source.startswith("import:")

    @property
    def has_file_clock(self) -> bool:
        """Whether its times are those of an imported file, also in a log simulated from it."""
        recording = self.provenance.get("simulated_from") or {"source": self.source}
        return str(recording.get("source")).startswith("import:")

    @property
    def memory_bytes(self) -> int:
        """Size of the domain's memory, bytes."""
        return self.domain["memory_bytes"]

    @property
    def memory_pages(self) -> int:
        """Size of the domain's memory, pages."""
        return self.memory_bytes // self.domain["page_size"]

    @property
    def mib_pages(self) -> float:
        """Number of the domain's pages in a MiB; less than 1 if a page is larger."""
        return (1 << 20) / self.domain["page_size"]

    @property
    def known_memory_pages(self) -> int | None:
        """Size of a machine's memory, pages; None if it is not known, or there is no machine."""
        physical = self.domain.get("address", ADDRESSES[0]) == ADDRESSES[0]
        return self.memory_pages if physical and not self.options.get(MEMORY_GUESSED) else None

    @property
    def resolution_ns(self) -> int | None:
        """Requested length of a round, ns; None if it is not known in time."""
        ns, insn = self.period["ns"], self.period["insn"]
        if ns is None and insn is not None and self.clock["ns_per_insn"]:
            ns = insn * self.clock["ns_per_insn"]
        return None if ns is None else round(ns)

    @property
    def time(self) -> Clock:
        """The clock of its times: the machine, and the length of its instructions.

        An emulator that counts instructions reports this length. For the time of a host, or of an
        imported file, it is not known.
        """
        ns_per_insn = self.clock["ns_per_insn"]
        host = self.host.get("node") or self.source
        machine = f"an emulator ({self.source})" if ns_per_insn else f"the host {host}"
        return Clock(f"the file ({host})" if self.has_file_clock else machine, ns_per_insn or None)

    @property
    def gfn_limit(self) -> int | None:
        """First frame number beyond the memory map's RAM; None without a map."""
        ram = [r for r in self.memory_map if r["type"] in ("usable", "ram", "RAM")]
        ends = [r["end"] for r in ram or self.memory_map]
        return -(-max(ends) // PAGE_SIZE) if ends else None

    @classmethod
    def from_json(cls, document: Json) -> TraceMeta:
        """Extract the description from a parsed ``trace.json``."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in names})

    def to_json(self) -> Json:
        """Return the description as a dict of JSON values."""
        return asdict(self)


def _cross_fault(meta: TraceMeta) -> Fault | None:
    memory, page = meta.memory_bytes, meta.domain["page_size"]
    if memory % page:
        return Fault("domain.memory_bytes", memory, f"a multiple of {page}")
    for n, known in enumerate(meta.known):
        if known["pages"] > meta.memory_pages:
            where = f"known[{n}].pages"
            return Fault(where, known["pages"], f"at most the memory's {meta.memory_pages}")
    for n, part in enumerate(meta.memory_map):
        if part["start"] > part["end"]:
            return Fault(f"memory_map[{n}].start", part["start"], f"at most its end {part['end']}")
    return None
