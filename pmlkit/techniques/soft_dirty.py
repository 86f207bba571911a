# SPDX-License-Identifier: Apache-2.0
"""Soft-dirty bits of the VMM's memory: written pages, by faults of the host's own tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import report_recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class SoftDirty(Technique):
    """Write 4 to ``clear_refs`` of the VMM, and read bit 55 in its ``pagemap`` later.

    The host's kernel write-protects the VMM's memory, so that it detects writes, including the
    guest's. KVM follows by removing the guest's mappings: each touched page faults, even if it is
    only read. The cost is therefore that of all uses, while the count is that of the writes. It
    needs no logging, no tracing and no support by the VMM (`pmlkit collect --mode soft-dirty`).

    Attributes
    ----------
    looks : int
        Looks per window T.
    """

    name = "soft-dirty"
    title = "Soft-dirty bits of the VMM"
    source = "Linux 3.11, Documentation/admin-guide/mm/soft-dirty.rst"
    needs = frozenset({Need.SOFT_DIRTY})
    looks: int = 1

    def observe(self, view: View) -> None:
        report_recent(view, self.looks, view.soft_dirty.collect)
