# SPDX-License-Identifier: Apache-2.0
"""Soft-dirty bits of the VMM's memory: what is written, by faults of the host's own tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import Recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class SoftDirty(Technique):
    """Write 4 to ``clear_refs`` of the VMM, and read bit 55 in its ``pagemap`` after a while.

    The host's kernel write-protects the VMM's memory, so that it learns of writes, the guest's
    included. KVM follows by taking away the guest's mappings: each page that is touched faults,
    also if it is only read. So the cost is that of all uses, and the count that of the writes. It
    needs no logging, no tracing and no help of the VMM (`pmlkit collect --mode soft-dirty`).

    Attributes
    ----------
    looks : int
        Per window T.
    """

    name = "soft-dirty"
    title = "Soft-dirty bits of the VMM"
    source = "Linux 3.11, Documentation/admin-guide/mm/soft-dirty.rst"
    needs = frozenset({Need.SOFT_DIRTY})
    looks: int = 1

    def observe(self, view: View) -> None:
        period, looks = view.parts(self.looks)
        recent = Recent(looks)
        for _ in view.every(period):
            pages = recent.add(view.soft_dirty.collect())
            if recent.full:
                view.report(pages)
