# SPDX-License-Identifier: Apache-2.0
"""Options of logging, and the agent's job, which carries them to the host as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Json


MODES = ("log", "soft-dirty", "lru-gen")
SWITCHES = ("auto", "listen", "qmp", "libvirt")
PAGE_TABLES = ("off", "mark", "snapshot")
HARVESTS = ("", "sampled")
DRAWS = ("round", "fixed")
CAPTURES = ("auto", "ftrace", "bpf")
_CHOICES = {"mode": MODES, "switch": SWITCHES, "capture": CAPTURES, "page_tables": PAGE_TABLES,
            "harvest": HARVESTS, "draw": DRAWS}  # fmt: skip
# Types of options, by their annotations.
_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float),
                                       "bool": (bool,), "Json": (dict,)}  # fmt: skip
_KIB_RANGE = (64, 1 << 20)


@dataclass(frozen=True)
class KvmOptions:
    """How to log a VM.

    Attributes
    ----------
    mode : {"log", "soft-dirty", "lru-gen"}
        Capture the log ("log"). Without tracing on the host: read the soft-dirty bits of the VMM's
        memory at each round's end, or count pages by the aging of MGLRU, which gives sizes and no
        frames.
    switch : {"auto", "listen", "qmp", "libvirt"}
        How logging is switched on: by QEMU's monitor or libvirt; "listen": the VMM does it. "auto"
        selects the method by which the VM was named.
    capture : {"auto", "ftrace", "bpf"}
        The method of capture. "auto" selects BPF if kernel and rights allow it: it costs the guest
        less than ftrace (``data/kvm-costs``).
    rounds : int
        Rounds to log; 0: until it is stopped.
    seconds : float
        End after this time; 0: no limit.
    most_bytes : int
        End when the spool reaches this size, bytes; 0: no limit.
    period_s : float
        Length of a round, seconds, if we define the round: by QMP or libvirt, soft-dirty, MGLRU.
    marks : bool
        Also capture VM entries and page faults. Drains are then separated exactly, and an entry's
        time lies between two exits.
    buffer_kib : int
        Size of the ring buffer of each CPU, KiB.
    page_tables : {"off", "mark", "snapshot"}
        Read the logged frames from the VMM's memory after each round, and mark those that are page
        tables; or also keep the entries of these.
    harvest : {"", "sampled"}
        Examine the idle flags of a sample of the host's pages in each round.
    one_in : int
        The sample has one frame in this number: a power of 2.
    draw : {"round", "fixed"}
        New frames in each round, or always the same.
    """

    mode: str = "log"
    switch: str = "auto"
    capture: str = "auto"
    rounds: int = 0
    seconds: float = 0.0
    most_bytes: int = 0
    period_s: float = 1.0
    marks: bool = True
    buffer_kib: int = 4096
    page_tables: str = "mark"
    harvest: str = ""
    one_in: int = 16
    draw: str = "round"

    def __post_init__(self) -> None:
        self._check_types()
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise UsageError(f"the job's {name} is {getattr(self, name)!r}: it must be one of "
                                 f"{', '.join(map(repr, values))}")  # fmt: skip
        if not self.period_s > 0:
            raise UsageError(f"a round of {self.period_s} s is too short: give a period above 0")
        if self.rounds < 0 or self.seconds < 0 or self.most_bytes < 0:
            raise UsageError("rounds, seconds and bytes cannot be below 0: give 0 for no limit")
        if self.one_in < 2 or self.one_in & (self.one_in - 1):
            raise UsageError(
                f"a sample of one frame in {self.one_in} is not possible: give a power of 2"
            )
        if self.harvest and self.mode != "log":
            raise UsageError(f"--mode {self.mode} does not support a sample: leave --harvest out")
        low, high = _KIB_RANGE
        if not low <= self.buffer_kib <= high:
            problem = f"a buffer of {self.buffer_kib} KiB per CPU is not possible"
            raise UsageError(problem, f"give {low} to {high}")

    def _check_types(self) -> None:
        for one in fields(self):
            value, kind = getattr(self, one.name), _KINDS[str(one.type)]
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                raise UsageError(f"the job's {one.name} is {value!r:.60}: it must be {one.type}")
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"the job's {one.name} is {value}: give a number")


@dataclass(frozen=True)
class Job(KvmOptions):
    """The agent's job: a VM, the options of logging, and the destination of the spool.

    Attributes
    ----------
    vm : str
        Libvirt's name, the path of a QMP socket, or the process id of the VMM.
    spool : str
        File to write; "-" is standard output.
    header : dict
        Content of the spool's header.
    silence_s : float
        Stop if the starter of the agent has been silent for this time; 0: never.
    ready : str
        File to create as soon as the capture has started.
    """

    vm: str = ""
    spool: str = "-"
    header: Json = field(default_factory=dict)
    silence_s: float = 0.0
    ready: str = ""

    @classmethod
    def of(cls, values: Json) -> Job:
        """Create a job from a dict; unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
