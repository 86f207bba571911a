# SPDX-License-Identifier: Apache-2.0
"""How a domain is to be collected: options, checked, as the agent's job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.types import Json

__all__ = ["CollectOptions"]

PAGE_TABLES = {
    "off": (),
    "mark": ("tables",),
    "drop": ("tables", "drop"),
    "snapshot": ("tables", "snapshots"),
    "clear": ("tables", "snapshots", "clear"),
}


@dataclass(frozen=True)
class CollectOptions:
    """How to collect.

    Attributes
    ----------
    mode : {"auto", "pml", "stock"}
        The patched interface, stock log-dirty, or the first that there is.
    rounds : int
        0: until it is stopped.
    period_s : float
        Length of a round, seconds.
    free : bool
        Never pause the guest: rounds are cut out of the log afterwards. Pages are re-armed at
        flushes.
    rearm : {"never", "round", "flush"}
    rearm_every : int
        With "flush": after how many drained buffers.
    slots : int
        Buffers of 512 entries that a vCPU's ring holds: a power of two, 2 to 4096.
    buffers : int
        Hardware buffers per vCPU, 1 to 8.
    page_tables : {"off", "mark", "drop", "snapshot", "clear"}
        "clear": snapshots, and the guest's accessed flags are cleared after each: they change.
    harvest : {"", "accessed", "guided", "both", "pruned", "sampled"}
        Which accessed flags are harvested when a round is closed.
    harvest_every : int
        In every so many rounds.
    one_in : int
        "sampled": look at one frame of so many; a power of two, 2 to 512.
    bitmaps : bool
        Keep the log-dirty bitmap of each round in the spool.
    state : str
        Folder in dom0 for the marks of running collections.
    """

    mode: str = "auto"
    rounds: int = 0
    period_s: float = 1.0
    free: bool = False
    rearm: str = "round"
    rearm_every: int = 1
    slots: int = 64
    buffers: int = 2
    page_tables: str = "mark"
    harvest: str = ""
    harvest_every: int = 1
    one_in: int = 16
    bitmaps: bool = False
    state: str = "/run/pmlkit"

    def job(self, domain: str) -> Json:
        """Return the agent's job, checked (a dict that JSON can hold)."""
        from pmlkit.xen.job import Job

        if self.page_tables not in PAGE_TABLES:
            known = ", ".join(PAGE_TABLES)
            raise UsageError(f"page tables cannot be {self.page_tables!r}: choose out of {known}")
        pml = {"slots": self.slots, "buffers": self.buffers, "rearm": self.rearm}
        pml |= {"rearm_every": self.rearm_every, "flags": PAGE_TABLES[self.page_tables]}
        names = ("mode", "rounds", "period_s", "free", "harvest", "harvest_every", "one_in")
        told = {name: getattr(self, name) for name in (*names, "bitmaps", "state")}
        return asdict(Job(domain=str(domain), pml=pml, **told))
