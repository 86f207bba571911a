# SPDX-License-Identifier: Apache-2.0
"""Badis: VMware's sampling or Geiger, depending on memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.geiger import Geiger
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.vmware import Vmware

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Badis(Technique):
    """VMware's sampling while the VM has enough memory, Geiger as soon as memory is short.

    VMware's estimate cannot exceed the VM's memory, and Geiger's cannot fall below it. The first
    can shrink a VM, and the second can grow it. Badis uses Geiger's estimate if there is one,
    because evictions happen only then. Otherwise it uses VMware's. The paper's Badis also decides
    how a hypervisor packs VMs, which is not an estimate. Of the paper (Working Set Size Estimation
    Techniques in Virtualized Environments: One Size Does not Fit All, Proc. ACM Meas. Anal. Comput.
    Syst. 2(1)) only the abstract and the findings were available. The rule by which Badis switches
    is ours.

    Attributes
    ----------
    watched : int
        Number of pages that VMware's sampling traps.
    looks : int, optional
        Estimates per window T; default: those of VMware's sampling as published.
    """

    name = "badis"
    title = "Badis (VMware and Geiger)"
    source = "Nitu et al., SIGMETRICS'18 (from its abstract and findings)"
    needs = Vmware.needs | Geiger.needs
    random = True
    watched: int = Vmware.watched
    looks: int | None = None

    def observe(self, view: View) -> None:
        looks = 1 if self.looks is None else view.parts(self.looks)[1]
        infer = Geiger().following(view, looks)
        for sampled in Vmware(self.watched, self.looks).estimates(view):
            inferred = infer()
            view.report(sampled if np.isnan(inferred) else inferred)
