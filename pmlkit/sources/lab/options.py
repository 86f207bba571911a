# SPDX-License-Identifier: Apache-2.0
"""How to run a guest in the lab, and which wishes cannot be met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.sources.lab.guests import MEMORY_MIB
from pmlkit.xen.job import Job

if TYPE_CHECKING:
    from pmlkit.types import Json


MEMORY_LIMITS_MIB = (MEMORY_MIB, 4096)  # measured: a machine for more does not come up


@dataclass(frozen=True)
class LabOptions:
    """How to run a guest in the lab.

    Attributes
    ----------
    memory_mib, vcpus : int, optional
        The guest's; default: what it asks for.
    rounds : int, optional
        Default: 8, of a Linux guest until its work is done.
    period_s : float
        Length of a round, seconds of the emulated clock; not in lock step.
    phase_rounds : bool
        Linux: where the workload marks a phase, a round ends, so that none belongs to two.
    lockstep : bool
        A guest made with the kit runs one of its rounds in each of ours.
    stock : bool
        Debian's unpatched Xen, and stock log-dirty.
    xen_debug : bool
        A debug build of the patched Xen.
    mode : {"", "stock", "pml"}
        The interface to log by; default: the patched one, where Xen is patched.
    xen_cmdline : str
        Added to Xen's command line.
    fast : bool
        With `stock`: a Bochs of ours, four times faster. The patched Xen always has it.
    snapshot : bool
        Start from a saved state of dom0 (needs `fast`).
    pml : dict
        `pmlkit.xen.pml.Options`: slots, buffers, rearm, rearm_every, flags.
    harvest : {"", "accessed", "guided", "both", "pruned", "sampled"}
        Which accessed flags are read and cleared at a round's end: all memory's, those under the
        page tables that were logged, first these and then the rest, those that the upper levels of
        the EPT do not rule out; of those a sample.
    harvest_every : int
        In every so many rounds.
    one_in : int
        "sampled": look at one frame of so many; a power of two, 2 to 512.
    accessed, bitmaps : bool
        Short for harvest "accessed"; keep the log-dirty bitmap of each round in the spool.
    settings : dict
        Options of the guest.
    boot : bool
        Linux: log its boot too.
    script : str
        A shell script that dom0 runs in place of the agent (tests).
    time_limit_s : float
        Seconds on the host.
    overwrite, keep : bool
        Replace the trace; keep the spool beside it.
    """

    memory_mib: int | None = None
    vcpus: int | None = None
    rounds: int | None = None
    period_s: float = 0.2
    phase_rounds: bool = True
    lockstep: bool = True
    stock: bool = False
    xen_debug: bool = False
    mode: str = ""
    xen_cmdline: str = ""
    fast: bool = False
    snapshot: bool = True
    pml: Json = field(default_factory=dict)
    harvest: str = ""
    harvest_every: int = 1
    one_in: int = 16
    accessed: bool = False
    bitmaps: bool = False
    settings: Json = field(default_factory=dict)
    boot: bool = False
    script: str = ""
    time_limit_s: float = 1500
    overwrite: bool = False
    keep: bool = False

    @property
    def patched(self) -> bool:
        """Whether the log comes by the patched interface."""
        return (self.mode or ("stock" if self.stock else "pml")) == "pml"


def check(options: LabOptions, memory_mib: int) -> None:
    """Refuse what the lab cannot do, before anything is built or booted.

    Parameters
    ----------
    options : LabOptions
    memory_mib : int
        The guest's.

    Raises
    ------
    UsageError
    """
    low, high = MEMORY_LIMITS_MIB
    slots, flags = options.pml.get("slots", 64), options.pml.get("flags", ("tables",))
    if not low <= memory_mib <= high:
        raise UsageError(f"the lab has no room for a guest of {memory_mib} MiB", f"{low} to {high}")
    Job(harvest=options.harvest, harvest_every=options.harvest_every, one_in=options.one_in)
    if slots & (slots - 1) or not 2 <= slots <= 4096:
        raise UsageError(f"a ring of {slots} records cannot be had", "a power of two, 2 to 4096")
    if not options.patched and (options.harvest or options.accessed or "snapshots" in flags):
        what = "a harvest" if options.harvest or options.accessed else "snapshots of page tables"
        raise UsageError(f"{what} needs the patched Xen's interface", "leave out --stock")
    if options.harvest in ("guided", "both") and "tables" not in flags:
        why = f"harvest {options.harvest} goes by the page tables in the log"
        raise UsageError(why, "choose --page-tables mark or snapshot")
