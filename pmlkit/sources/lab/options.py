# SPDX-License-Identifier: Apache-2.0
"""How to run a guest in the lab, and which wishes cannot be met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.sources.lab.guests import MEMORY_MIB
from pmlkit.xen.job import PAGE_TABLES, LogOptions

if TYPE_CHECKING:
    from pmlkit.types import Json


MEMORY_LIMITS_MIB = (MEMORY_MIB, 4096)  # measured: a machine for more does not come up


@dataclass(frozen=True)
class LabOptions(LogOptions):
    """How to run a guest in the lab: `pmlkit.xen.job.LogOptions`, and the machine.

    `mode` "auto" is the patched interface where Xen is patched. `rounds` 0 is 8 rounds, of a Linux
    guest all until its work is done. `period_s` counts the emulated clock. `lockstep` applies to
    guests that are made with the kit.

    Attributes
    ----------
    memory_mib, vcpus : int, optional
        The guest's; default: what it asks for.
    phase_rounds : bool
        Linux: where the workload marks a phase, a round ends, so that none belongs to two.
    stock : bool
        Debian's unpatched Xen, and stock log-dirty.
    xen_debug : bool
        A debug build of the patched Xen.
    xen_cmdline : str
        Added to Xen's command line.
    fast : bool
        With `stock`: pmlkit's build of Bochs, four times faster. The patched Xen always has it.
    snapshot : bool
        Start from a saved state of dom0 (needs `fast`).
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

    period_s: float = 0.2
    lockstep: bool = True
    memory_mib: int | None = None
    vcpus: int | None = None
    phase_rounds: bool = True
    stock: bool = False
    xen_debug: bool = False
    xen_cmdline: str = ""
    fast: bool = False
    snapshot: bool = True
    settings: Json = field(default_factory=dict)
    boot: bool = False
    script: str = ""
    time_limit_s: float = 1500
    overwrite: bool = False
    keep: bool = False

    @property
    def interface(self) -> str:
        """The interface to log by, "pml" or "stock"."""
        if self.mode != "auto":
            return self.mode
        return "stock" if self.stock else "pml"


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
    if not low <= memory_mib <= high:
        raise UsageError(f"the lab has no room for a guest of {memory_mib} MiB", f"{low} to {high}")
    snapshots = "snapshots" in PAGE_TABLES[options.page_tables]
    if options.interface == "stock" and (options.harvest or snapshots):
        what = "a harvest" if options.harvest else "snapshots of page tables"
        raise UsageError(f"{what} needs the patched Xen's interface", "leave out --stock")
    if options.harvest in ("guided", "both") and options.page_tables == "off":
        why = f"harvest {options.harvest} goes by the page tables in the log"
        raise UsageError(why, "choose --page-tables mark or snapshot")
