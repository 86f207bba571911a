# SPDX-License-Identifier: Apache-2.0
"""The techniques by name. To add one, import it here and add it to `TECHNIQUES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.errors import UnknownName, UsageError
from pmlkit.foreign import foreign_class
from pmlkit.techniques.access_sampler import AccessSampler, UnseenSampler
from pmlkit.techniques.badis import Badis
from pmlkit.techniques.cold_age import ColdAge, FarMemory
from pmlkit.techniques.damon import Damon
from pmlkit.techniques.dirty_rate import DirtyBitmap, DirtyRing, DirtySampling
from pmlkit.techniques.exclusive_cache import ExclusiveCache
from pmlkit.techniques.flag_sample import FlagSample
from pmlkit.techniques.flag_sample_pml import FlagSamplePml
from pmlkit.techniques.geiger import Geiger
from pmlkit.techniques.hint_faults import HintFaults
from pmlkit.techniques.idle_pages import IdlePages
from pmlkit.techniques.intermittent import Intermittent
from pmlkit.techniques.mglru import BlindMglru, Mglru
from pmlkit.techniques.mpa import Mpa
from pmlkit.techniques.page_tables import PmlEntries, PmlPageTables
from pmlkit.techniques.plateau import PmlPlateau, PrlPlateau
from pmlkit.techniques.pml import Pml, PmlThreshold, Prl
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.pruned_scan import PrunedScan
from pmlkit.techniques.self_ballooning import SelfBallooning
from pmlkit.techniques.senpai import Senpai
from pmlkit.techniques.soft_dirty import SoftDirty
from pmlkit.techniques.telescope import Telescope
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
        PrunedScan,
        ColdAge,
        FarMemory,
        Mglru,
        BlindMglru,
        FlagSample,
        FlagSamplePml,
        Damon,
        Telescope,
        AccessSampler,
        UnseenSampler,
        HintFaults,
        DirtySampling,
        DirtyBitmap,
        DirtyRing,
        SoftDirty,
        Intermittent,
        SelfBallooning,
        Zballoond,
        Senpai,
        Mpa,
        ExclusiveCache,
        Geiger,
        Badis,
    )
}


def make(name: str, **parameters: Any) -> Technique:
    """Create a technique by its name; `parameters` replace its defaults.

    ``"module:Class"`` names an external technique, which need not be in `TECHNIQUES`.

    Raises
    ------
    UsageError
        If the technique or parameter does not exist.
    """
    if not isinstance(name, str):
        raise UnknownName("technique", repr(name), TECHNIQUES)
    if ":" in name:
        technique = foreign_class(name, Technique, "technique")  # type: ignore[type-abstract]
    elif name in TECHNIQUES:
        technique = TECHNIQUES[name]
    else:
        raise UnknownName("technique", name, TECHNIQUES)
    known = technique.parameters()
    for parameter in parameters:
        if parameter not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"{name} has no parameter {parameter!r}: it has {names}")
    return technique(**parameters)
