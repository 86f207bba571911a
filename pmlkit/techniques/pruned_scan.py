# SPDX-License-Identifier: Apache-2.0
"""A scan of accessed flags, only where the EPT's upper levels show use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import report_recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class PrunedScan(Technique):
    """Scan the accessed flags below those upper entries of the EPT whose own flags are set.

    A walk sets the flags of all entries on its path. The used pages therefore lie below upper
    entries with the flag set: regions of 1 GiB, and within them, regions of 2 MiB. The scan
    descends there, and clears the flags that it finds at each level. It finds what a scan of all
    memory finds. Its cost grows with the regions in use. It is the harvest ``pruned`` of the
    project's patches for Xen. Telescope (Nair et al., USENIX ATC'24) reads the same flags in an
    application's tables, and does not descend to each page.

    The model treats every use as a walk. After a clearing, a processor that still has the
    translation would not walk. The harvest therefore invalidates it, as PML's re-arm does.

    Attributes
    ----------
    looks : int
        Looks per window T.
    """

    name = "pruned-scan"
    title = "Accessed-flag scan, pruned"
    source = "this project (2026): XEN_PML_ROUND_PRUNED; after Telescope, ATC'24"
    needs = frozenset({Need.ACCESSED})
    looks: int = 4

    def observe(self, view: View) -> None:
        view.accessed.pruned()  # the flags are as old as the VM: clear them first
        report_recent(view, self.looks, view.accessed.pruned)
