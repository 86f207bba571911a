# SPDX-License-Identifier: Apache-2.0
"""Aging of the host's MGLRU, with and without KVM's notifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pmlkit.techniques.host_channels import GENERATIONS
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View

MOST_LOOKS = GENERATIONS - 2  # the newest generation is empty; the oldest one has all other pages


@dataclass(frozen=True)
class Mglru(Technique):
    """Age the VM's control group `looks` times per T; count the pages of its young generations.

    Writing ``+ MEMCG NODE SEQ 1 1`` to ``/sys/kernel/debug/lru_gen`` walks all mappings of the VMM,
    moves the accessed pages into the youngest generation, and begins another one. Linux keeps four.
    The new one is empty, and the oldest absorbs all older ones, so two are useful. With more than
    two looks per T, the pages of T can no longer be counted.

    From Linux 6.12 on (commit 1d4832becdc2) the walk asks KVM for the accessed flags of the EPT. In
    the lab it sees the guest's pages and a few of the VMM's own (``data/host-sees``). The latter
    are not in a recording, so this model is exact except for the age of a look.

    Attributes
    ----------
    looks : int
        Agings per window T.
    """

    name = "mglru"
    title = "MGLRU aging, from Linux 6.12 on"
    source = "Linux 6.12, mm/vmscan.c (lru_gen), commit 1d4832becdc2"
    needs = frozenset({Need.AGING})
    notifies: ClassVar[bool] = True
    looks: int = 1

    def observe(self, view: View) -> None:
        view.aging.age(self.notifies)  # earlier accesses no longer count
        if self.looks > MOST_LOOKS:
            view.note(f"{MOST_LOOKS} looks per T, not {self.looks}: there are four generations")
        period, looks = view.parts(min(self.looks, MOST_LOOKS))
        for turn, _ in enumerate(view.every(period), start=1):
            generations = view.aging.age(self.notifies)
            if turn >= looks:
                view.report(np.sum(generations[1 : 1 + looks]))


@dataclass(frozen=True)
class BlindMglru(Mglru):
    """As `Mglru` before Linux 6.12: aging reads the VMM's own tables, and sees no guest accesses.

    A page has the accessed flag there when the host maps it for the guest, at its first use, and
    never again. The count is therefore that of pages that the guest uses for the first time. The
    first use in the recording represents it, which is too many if the guest ran before. In the lab,
    where the guest touches the same pages repeatedly, the count is that of the VMM's own pages
    (``data/host-sees``).

    Attributes
    ----------
    looks : int
        Agings per window T.
    """

    name = "mglru-blind"
    title = "MGLRU aging, before Linux 6.12"
    source = "Linux 6.1, mm/vmscan.c (lru_gen)"
    notifies = False
