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
_CHOICES = {"mode": MODES, "switch": SWITCHES}
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
        Capture the log; or, on a host without tracing, look at the soft-dirty bits of the VMM's
        memory at each round's end; or count pages by the aging of MGLRU, which tells sizes and no
        frames.
    switch : {"auto", "listen", "qmp", "libvirt"}
        How logging is switched on: by QEMU's monitor or libvirt; "listen": the VMM does it. "auto"
        takes the one by which the VM was named.
    rounds : int
        Rounds to log; 0: until it is stopped.
    seconds : float
        End after so long; 0: no limit.
    most_bytes : int
        End when the spool has grown to so many bytes; 0: no limit.
    period_s : float
        Length of a round, seconds, where the round is ours: by QMP or libvirt, soft-dirty, MGLRU.
    marks : bool
        Capture VM entries and page faults, too. Drains are then told apart exactly, and an entry's
        time lies between two exits.
    buffer_kib : int
        Size of the ring buffer of each CPU, KiB.
    """

    mode: str = "log"
    switch: str = "auto"
    rounds: int = 0
    seconds: float = 0.0
    most_bytes: int = 0
    period_s: float = 1.0
    marks: bool = True
    buffer_kib: int = 4096

    def __post_init__(self) -> None:
        self._check_types()
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise UsageError(f"the job's {name} is {getattr(self, name)!r}: it has to be one "
                                 f"of {', '.join(map(repr, values))}")  # fmt: skip
        if not self.period_s > 0:
            raise UsageError(f"a round of {self.period_s} s: give a period above 0")
        if self.rounds < 0 or self.seconds < 0 or self.most_bytes < 0:
            raise UsageError("rounds, seconds and bytes cannot be below 0: 0 is no limit")
        low, high = _KIB_RANGE
        if not low <= self.buffer_kib <= high:
            problem = f"a buffer of {self.buffer_kib} KiB a CPU cannot be had"
            raise UsageError(problem, f"give {low} to {high}")

    def _check_types(self) -> None:
        for one in fields(self):
            value, kind = getattr(self, one.name), _KINDS[str(one.type)]
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                raise UsageError(f"the job's {one.name} is {value!r:.60}: it has to be {one.type}")
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"the job's {one.name} is {value}: give a number")


@dataclass(frozen=True)
class Job(KvmOptions):
    """What the agent is asked for: a VM, how to log it, and where the spool goes.

    Attributes
    ----------
    vm : str
        Libvirt's name, the path of a QMP socket, or the process id of the VMM.
    spool : str
        File to write; "-" is standard output.
    header : dict
        Goes into the spool's header.
    silence_s : float
        Stop when whoever started the agent has not been heard of for so long; 0: never.
    ready : str
        File to create as soon as the capture is on.
    """

    vm: str = ""
    spool: str = "-"
    header: Json = field(default_factory=dict)
    silence_s: float = 0.0
    ready: str = ""

    @classmethod
    def of(cls, values: Json) -> Job:
        """Make a job out of a dict; unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
