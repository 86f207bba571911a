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
BEST_HARVEST = "pruned"  # where accessed flags are wanted, and nothing else is said
# What the patched Xen is asked for (`pmlkit.xen.pml.OPTION_FLAGS`).
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
    """How a domain is logged: checked when it is made, and flat in JSON.

    Attributes
    ----------
    mode : {"auto", "pml", "stock"}
        The patched interface, stock log-dirty, or the first that there is.
    rounds : int
        0: until the collection is stopped.
    most_bytes : int
        End after the round in which the spool has grown to so many bytes; 0: no limit.
    period_s : float
        Length of a round, seconds; not used in lock step.
    lockstep : bool
        Lab: one of the guest's rounds runs in each of ours.
    free : bool
        Never pause the guest: rounds of `period_s` are cut out of the log afterwards. Pages are
        re-armed at flushes. Needs the patched interface.
    rearm : {"never", "round", "flush"}
        When a logged page is armed again.
    rearm_every : int
        With "flush": after how many drained buffers.
    slots : int
        Buffers of 512 entries that a vCPU's ring holds: a power of two, 2 to 4096.
    buffers : int
        Hardware buffers per vCPU, 1 to 8.
    page_tables : {"off", "mark", "drop", "snapshot", "clear"}
        "clear": snapshots, and the guest's accessed flags are cleared after each: they change.
    harvest : {"", "accessed", "guided", "both", "pruned", "sampled"}
        Which accessed flags are read and cleared at a round's end: those of all memory, those under
        the logged page tables, first these and then the rest, those that the upper levels of the
        EPT do not rule out, or a sample of the last.
    harvest_every : int
        Harvest in every so many rounds; "sampled": in each.
    one_in : int
        "sampled": look at one frame of so many; a power of two, 2 to 512.
    draw : {"round", "fixed"}
        "sampled": draw the frames anew in each round, so that the error of the sample averages out
        over rounds; or look at the same ones always, so that windows of several rounds count each
        of them once.
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
                raise UsageError(f"the job's {name} is {getattr(self, name)!r}: it has to be one "
                                 f"of {', '.join(map(repr, values))}")  # fmt: skip
        if not self.lockstep and not self.period_s > 0:
            raise UsageError(f"a round of {self.period_s} s: give a period above 0")
        if self.rounds < 0 or self.harvest_every < 1:
            raise UsageError("rounds cannot be below 0, nor harvest_every below 1")
        if self.most_bytes < 0:
            raise UsageError(f"a spool of at most {self.most_bytes} bytes: give 0 for no limit")
        if self.slots & (self.slots - 1) or not 2 <= self.slots <= 4096:
            problem = f"a ring of {self.slots} records cannot be had"
            raise UsageError(problem, "a power of two, 2 to 4096")
        if self.one_in not in SAMPLES:
            raise UsageError(f"a sample of one in {self.one_in}: give a power of two, 2 to 512")
        if self.harvest == "sampled" and self.harvest_every > 1:
            raise UsageError("a sample is taken in every round: leave harvest_every out")
        if self.free and self.harvest:
            raise UsageError("accessed flags are harvested when a round is closed: not with free")

    def log_options(self) -> Json:
        """Return the fields of `LogOptions`, without those that a subclass adds."""
        return {f.name: getattr(self, f.name) for f in fields(LogOptions)}


@dataclass(frozen=True)
class Job(LogOptions):
    """What the agent is asked for: a domain, how to log it, and where the spool goes.

    Attributes
    ----------
    domain : str
        Name or id.
    spool : str
        File to write; "-" is standard output.
    state : str
        Folder with a mark of each running collection: the next one switches off what a killed one
        left on.
    header : dict
        Goes into the spool's header.
    silence_s : float
        Stop when whoever started the agent has not been heard of for so long; 0: never.
    limit_s : float
        Lab: seconds for any single wait for a guest.
    mailbox : bool
        Lab: the guest has a mailbox, and runs freely unless `lockstep` is set.
    wait_for, stop_at : str
        Lab: begin and end when a line of the guest's console starts with this.
    console : str
        Lab: file with the guest's console; its lines are put into the spool.
    phase_rounds : bool
        Lab: a line "phase ..." ends the round at once.
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
        """Make a job out of a dict; unknown names are ignored."""
        values, known = _flat(values), {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _flat(values: Json) -> Json:
    """Read a job as pmlkit wrote it at first: with a dict `pml`, flags, and `accessed`."""
    values = {**values, **values.get("pml", {})}
    if values.get("accessed"):
        values["harvest"] = values.get("harvest") or "accessed"
    if "flags" in values:
        flags = set(values["flags"]) - {"accessed"}  # which follows from the harvest
        names = [name for name, needed in PAGE_TABLES.items() if flags == set(needed)]
        values["page_tables"] = names[0] if names else ", ".join(sorted(flags))
    return values
