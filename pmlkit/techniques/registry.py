# SPDX-License-Identifier: Apache-2.0
"""The techniques by name. A new one is imported here and added to `TECHNIQUES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.errors import UnknownName, UsageError
from pmlkit.techniques.badis import Badis
from pmlkit.techniques.damon import Damon
from pmlkit.techniques.dirty_rate import DirtyBitmap, DirtyRing, DirtySampling
from pmlkit.techniques.exclusive_cache import ExclusiveCache
from pmlkit.techniques.flag_sample import FlagSample
from pmlkit.techniques.geiger import Geiger
from pmlkit.techniques.idle_pages import IdlePages
from pmlkit.techniques.intermittent import Intermittent
from pmlkit.techniques.mpa import Mpa
from pmlkit.techniques.page_tables import PmlEntries, PmlPageTables
from pmlkit.techniques.plateau import PmlPlateau, PrlPlateau
from pmlkit.techniques.pml import Pml, PmlThreshold, Prl
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.self_ballooning import SelfBallooning
from pmlkit.techniques.vmware import Vmware
from pmlkit.techniques.vtmm import Vtmm
from pmlkit.techniques.zballoond import Zballoond

if TYPE_CHECKING:
    from typing import Any

__all__ = ["TECHNIQUES", "make"]

TECHNIQUES = {
    technique.name: technique
    for technique in (
        Pml,
        PmlThreshold,
        PmlPlateau,
        PmlPageTables,
        PmlEntries,
        Prl,
        PrlPlateau,
        Vtmm,
        Vmware,
        IdlePages,
        FlagSample,
        Damon,
        DirtySampling,
        DirtyBitmap,
        DirtyRing,
        Intermittent,
        SelfBallooning,
        Zballoond,
        Mpa,
        ExclusiveCache,
        Geiger,
        Badis,
    )
}


def make(name: str, **parameters: Any) -> Technique:
    """Make a technique by its name; `parameters` replace its defaults.

    Raises
    ------
    UsageError
        If there is no such technique or parameter.
    """
    if name not in TECHNIQUES:
        raise UnknownName("technique", name, TECHNIQUES)
    known = TECHNIQUES[name].parameters()
    for parameter in parameters:
        if parameter not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"{name} has no parameter {parameter!r}: it has {names}")
    return TECHNIQUES[name](**parameters)
