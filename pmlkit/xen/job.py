# SPDX-License-Identifier: Apache-2.0
"""What is asked of the agent, as JSON carries it to dom0."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Json


HARVESTS = ("", "accessed", "guided", "both", "pruned", "sampled")
MODES = ("auto", "pml", "stock")
SAMPLES = tuple(1 << order for order in range(1, 10))


@dataclass(frozen=True)
class Job:
    """What is asked of the agent.

    Attributes
    ----------
    domain : str
        Name or id.
    mode : {"auto", "pml", "stock"}
        The patched interface, log-dirty as any Xen has it, or the first that there is.
    rounds : int
        0: until it is stopped.
    period_s : float
        Length of a round, seconds; not used in lock step.
    free : bool
        Never close a round, so that the guest is never paused: rounds are cut out of the log
        afterwards, every `period_s`. Needs the patched interface, re-arming at flushes.
    pml : dict
        `pmlkit.xen.pml.Options`.
    harvest : {"", "accessed", "guided", "both", "pruned", "sampled"}
        Which accessed flags are harvested when a round is closed.
    harvest_every : int
        In every so many rounds; "sampled": in each.
    one_in : int
        "sampled": of so many frames one is looked at; a power of two, 2 to 512.
    accessed : bool
        Short for harvest "accessed".
    bitmaps : bool
        Put the log-dirty bitmap into the spool.
    spool : str
        File to write; "-" is standard output.
    state : str
        Folder with a mark of each collection that runs, so that the next one can switch off what
        a killed one left on.
    header : dict
        Goes into the spool's header.
    silence_s : float
        Stop when whoever started us has not been heard of for so long; 0: never.
    limit_s : float
        Seconds for any single wait for a guest of the lab.
    lockstep, mailbox : bool
        Lab: the guest has a mailbox; one of its rounds runs in each of ours, or freely.
    wait_for, stop_at : str
        Lab: begin, end when the guest's console says a line that starts with this.
    console : str
        Lab: file with what the guest says; lines are put into the spool.
    phase_rounds : bool
        Lab: a line "phase ..." ends the round at once.
    """

    domain: str = ""
    mode: str = "auto"
    rounds: int = 0
    period_s: float = 1.0
    free: bool = False
    pml: Json = field(default_factory=dict)
    harvest: str = ""
    harvest_every: int = 1
    one_in: int = 16
    accessed: bool = False
    bitmaps: bool = False
    spool: str = "-"
    state: str = "/run/pmlkit"
    header: Json = field(default_factory=dict)
    silence_s: float = 0.0
    limit_s: float = 120
    lockstep: bool = False
    mailbox: bool = False
    wait_for: str = ""
    stop_at: str = ""
    console: str = ""
    phase_rounds: bool = False

    def __post_init__(self) -> None:
        for name, values in (("mode", MODES), ("harvest", HARVESTS)):
            if getattr(self, name) not in values:
                raise UsageError(f"the job's {name} is {getattr(self, name)!r}: it has to be one "
                                 f"of {', '.join(map(repr, values))}")  # fmt: skip
        if not self.lockstep and not self.period_s > 0:
            raise UsageError(f"a round of {self.period_s} s: give a period above 0")
        if self.rounds < 0 or self.harvest_every < 1:
            raise UsageError("rounds cannot be below 0, nor harvest_every below 1")
        if self.one_in not in SAMPLES:
            raise UsageError(f"a sample of one in {self.one_in}: give a power of two, 2 to 512")
        if self.harvest == "sampled" and self.harvest_every > 1:
            raise UsageError("a sample is taken in every round: leave harvest_every out")
        if self.free and self.harvesting:
            raise UsageError("accessed flags are harvested when a round is closed: not with free")

    @property
    def harvesting(self) -> str:
        """Which harvest is asked for; "" for none."""
        return self.harvest or ("accessed" if self.accessed else "")

    def options(self) -> Json:
        """Return the options of the patched interface (a dict), with what a harvest needs."""
        told = {**self.pml, "flags": tuple(self.pml.get("flags", ("tables",)))}
        needed = {"": (), "guided": ("tables", "accessed"), "both": ("tables", "accessed")}
        for flag in needed.get(self.harvesting, ("accessed",)):
            if flag not in told["flags"]:
                told["flags"] += (flag,)
        if self.free:
            told["rearm"] = "flush"
        return told

    @classmethod
    def of(cls, told: Json) -> Job:
        """Make a job out of a dict; what is not known is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})
