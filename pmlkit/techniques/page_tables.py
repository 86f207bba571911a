# SPDX-License-Identifier: Apache-2.0
"""PML with page tables: the logged page tables indicate which accessed flags to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import report_recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

SUBSTITUTE = "a substitute: tables are assumed to map 2 MiB of neighbouring frames each"


@dataclass(frozen=True)
class PmlPageTables(Technique):
    """Harvest the accessed flags of the frames whose leaf page tables were logged, and no others.

    After a re-arm, no access happens without a page walk. With EPT accessed and dirty flags a walk
    writes, so its leaf table is logged. The touched frames therefore lie below the logged tables
    (see `pmlkit.pagetables`).

    Snapshots of the logged tables are used if a trace has them (from the lab, or a Xen host). Other
    traces get a substitute, for example the recorder's, which sees no page walks. A "table" is then
    2 MiB of guest-physical addresses, and it counts as logged if a frame in it was touched. The
    harvest is exact with the substitute, too; the cost is that of a guest whose tables map
    neighbouring frames.

    Attributes
    ----------
    looks : int
        Rounds per window T: an estimate is at most T / looks old.
    """

    name = "pml-page-tables"
    title = "PML with page tables"
    source = "this project; close to vTMM (EuroSys'23) and HMM-V (arXiv 2209.13111)"
    needs = frozenset({Need.TABLES, Need.ACCESSED})
    looks: int = 4

    def observe(self, view: View) -> None:
        view.accessed.scan()  # the flags are as old as the VM: clear all of them first

        def harvest() -> Ints:
            frames, real = view.tables.mapped()
            if not real:
                view.note(SUBSTITUTE)
            return frames[view.accessed.harvest(frames)]

        report_recent(view, self.looks, harvest)


@dataclass(frozen=True)
class PmlEntries(Technique):
    """The written pages, and those whose entries in the logged page tables have the accessed flag.

    This is the limit of what PML alone reveals about reads, without the hypervisor's own accessed
    flags: method ``accessed`` of `pmlkit.reads`. It counts the programs' entries of logged leaf
    tables that are present and have the guest's accessed flag set. It assumes that pages accessed
    at some time are used again; pages that only the kernel reads are missing. It needs snapshots of
    the logged tables, which traces from the lab and from Xen hosts have.

    Attributes
    ----------
    looks : int
        Rounds per window T.
    """

    name = "pml-entries"
    title = "PML and tables' entries"
    source = "this project: pmlkit.reads.methods, method accessed (2026)"
    needs = frozenset({Need.TABLES})
    looks: int = 4

    def observe(self, view: View) -> None:
        report_recent(view, self.looks, view.tables.entries)
