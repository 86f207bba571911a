# SPDX-License-Identifier: Apache-2.0
"""Options of logging, and the agent's job, which carries them to dom0 as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Json


MODES = ("auto", "pml", "stock")
REARM = ("never", "round", "flush")
HARVESTS = ("", "accessed", "guided", "both", "pruned", "sampled")
SAMPLES = tuple(1 << order for order in range(1, 10))
DRAWS = ("round", "fixed")
BEST_HARVEST = "pruned"  # the default kind of harvest
# Flags of the patched Xen (`pmlkit.xen.pml.OPTION_FLAGS`) by value of the option.
PAGE_TABLES = {
    "off": (),
    "mark": ("tables",),
    "drop": ("tables", "drop"),
    "snapshot": ("tables", "snapshots"),
    "clear": ("tables", "snapshots", "clear"),
}
_CHOICES = {"mode": MODES, "rearm": REARM, "page_tables": PAGE_TABLES, "harvest": HARVESTS,
            "draw": DRAWS}  # fmt: skip


@dataclass(frozen=True)
class LogOptions:
    """Options of logging a domain: checked on creation, and flat in JSON.

    Attributes
    ----------
    mode : {"auto", "pml", "stock"}
        The patched interface, stock log-dirty, or the first available one.
    rounds : int
        0: until the collection is stopped.
    most_bytes : int
        End after the round in which the spool exceeds this size, bytes; 0: no limit.
    period_s : float
        Length of a round, seconds; not used in lock step.
    lockstep : bool
        Lab: one of the guest's rounds runs in each round of the log.
    free : bool
        Never pause the guest: rounds of `period_s` are separated in the log afterwards. Pages are
        re-armed at flushes. Needs the patched interface.
    rearm : {"never", "round", "flush"}
        When a logged page is re-armed.
    rearm_every : int
        With "flush": after this number of drained buffers.
    slots : int
        Buffers of 512 entries in a vCPU's ring: a power of two, 2 to 4096.
    buffers : int
        Hardware buffers per vCPU, 1 to 8.
    page_tables : {"off", "mark", "drop", "snapshot", "clear"}
        "clear": snapshots, and the guest's accessed flags are cleared after each, which changes the
        guest.
    harvest : {"", "accessed", "guided", "both", "pruned", "sampled"}
        The accessed flags that are read and cleared at a round's end. Choices: all memory; those
        below the logged page tables; first these and then the rest; those that the upper levels of
        the EPT show as used; or a sample of the last.
    harvest_every : int
        Harvest once in this number of rounds; "sampled": in each round.
    one_in : int
        "sampled": examine one frame in this number; a power of two, 2 to 512.
    draw : {"round", "fixed"}
        "sampled": "round" draws new frames in each round, so that the error of the sample averages
        out over rounds. "fixed" always examines the same frames, so that windows of several rounds
        count each of them once.
    bitmaps : bool
        Keep the log-dirty bitmap of each round in the spool.
    """

    mode: str = "auto"
    rounds: int = 0
    most_bytes: int = 0
    period_s: float = 1.0
    lockstep: bool = False
    free: bool = False
    rearm: str = "round"
    rearm_every: int = 1
    slots: int = 64
    buffers: int = 2
    page_tables: str = "mark"
    harvest: str = ""
    harvest_every: int = 1
    one_in: int = 16
    draw: str = "round"
    bitmaps: bool = False

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise UsageError(f"the job's {name} is {getattr(self, name)!r}: it must be one of "
                                 f"{', '.join(map(repr, values))}")  # fmt: skip
        if not self.lockstep and not self.period_s > 0:
            raise UsageError(f"a round of {self.period_s} s is too short: give a period above 0")
        if self.rounds < 0 or self.harvest_every < 1:
            raise UsageError("rounds cannot be below 0, nor harvest_every below 1")
        if self.most_bytes < 0:
            raise UsageError(
                f"a spool of at most {self.most_bytes} bytes is not possible: give 0 for no limit"
            )
        if self.slots & (self.slots - 1) or not 2 <= self.slots <= 4096:
            problem = f"a ring of {self.slots} records is not possible"
            raise UsageError(problem, "a power of two, 2 to 4096")
        if self.one_in not in SAMPLES:
            raise UsageError(
                f"a sample of one in {self.one_in} is not possible: give a power of two, 2 to 512"
            )
        if self.harvest == "sampled" and self.harvest_every > 1:
            raise UsageError("a sample is taken in every round: leave harvest_every out")
        if self.free and self.harvest:
            raise UsageError(
                "accessed flags are harvested when a round is closed, which free "
                "collections do not do"
            )

    def log_options(self) -> Json:
        """Return the fields of `LogOptions`, without those that a subclass adds."""
        return {f.name: getattr(self, f.name) for f in fields(LogOptions)}


@dataclass(frozen=True)
class Job(LogOptions):
    """The agent's job: a domain, the options of logging, and the destination of the spool.

    Attributes
    ----------
    domain : str
        Name or id.
    spool : str
        File to write; "-" is standard output.
    state : str
        Folder with a mark of each running collection: the next one cleans up after a killed one.
    header : dict
        Content of the spool's header.
    silence_s : float
        Stop if the starter of the agent has been silent for this time; 0: never.
    limit_s : float
        Lab: limit for any single wait for a guest, seconds.
    mailbox : bool
        Lab: the guest has a mailbox, and runs freely unless `lockstep` is set.
    wait_for, stop_at : str
        Lab: begin and end when a line of the guest's console starts with this text.
    console : str
        Lab: file with the guest's console; its lines go to the spool.
    phase_rounds : bool
        Lab: a line "phase ..." ends the round immediately.
    """

    domain: str = ""
    spool: str = "-"
    state: str = "/run/pmlkit"
    header: Json = field(default_factory=dict)
    silence_s: float = 0.0
    limit_s: float = 120
    mailbox: bool = False
    wait_for: str = ""
    stop_at: str = ""
    console: str = ""
    phase_rounds: bool = False

    @classmethod
    def of(cls, values: Json) -> Job:
        """Create a job from a dict; unknown names are ignored."""
        values, known = _flat(values), {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _flat(values: Json) -> Json:
    """Read a job of pmlkit's first format: with a dict `pml`, flags, and `accessed`."""
    values = {**values, **values.get("pml", {})}
    if values.get("accessed"):
        values["harvest"] = values.get("harvest") or "accessed"
    if "flags" in values:
        flags = set(values["flags"]) - {"accessed"}  # a flag that follows from the harvest
        names = [name for name, needed in PAGE_TABLES.items() if flags == set(needed)]
        values["page_tables"] = names[0] if names else ", ".join(sorted(flags))
    return values
