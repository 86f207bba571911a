# SPDX-License-Identifier: Apache-2.0
"""Badis: the right one of several techniques at the right time."""

from dataclasses import dataclass, field

import numpy as np

from pmlkit.techniques.geiger import Geiger, Inference
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.vmware import Vmware

__all__ = ["Badis"]


@dataclass(frozen=True)
class Badis(Technique):
    """VMware's sampling while the VM has enough memory, Geiger as soon as it lacks some.

    VMware's estimate cannot exceed the memory that there is, Geiger's cannot fall below it: the one
    can shrink a VM and the other grow it. Badis takes Geiger's word when it has one, because only
    then are there evictions, and VMware's otherwise. What else the paper's Badis decides (how a
    hypervisor packs VMs) is no estimate.

    Attributes
    ----------
    shrink : Vmware
    grow : Geiger
    """

    name = "badis"
    title = "Badis (VMware and Geiger)"
    source = "Nitu et al., SIGMETRICS'18 (as its abstract and findings tell it)"
    needs = Vmware.needs | Geiger.needs
    random = True
    shrink: Vmware = field(default_factory=Vmware)
    grow: Geiger = field(default_factory=Geiger)

    def observe(self, view):
        guess = Inference()
        for pages in self.shrink.estimates(view):
            lacking = self.grow.estimate(guess, view)
            view.report(pages if np.isnan(lacking) else lacking)
