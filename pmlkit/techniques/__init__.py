# SPDX-License-Identifier: Apache-2.0
"""The techniques that estimate a working set: ours and the others', one module each, one protocol.

>>> from pmlkit import techniques                                      # doctest: +SKIP
>>> recorded = techniques.Recorded.of(pmlkit.open("redis.trace"))      # doctest: +SKIP
>>> techniques.run("vmware", recorded, window="1s").estimates          # doctest: +SKIP

What there is
-------------
protocol    what a technique says of itself: `Technique`, `Need`
recorded    all that a trace knows of a VM: `Recorded`
view        what a technique sees of it: the channels that it declared, up to now
channels    the channels: PML log, references, accessed flags, traps, content; channels_guest:
            its own view, disk, memory; channel, what one is
costs       what the events cost that a look causes, and where the constants come from
memory      a guest of changing size: a replay of the accesses
limits      how far that is off, against guests that had too little memory
runs        running a technique, with several seeds where it draws random numbers
scores      the yardstick: errors against W(t, T), windows until a step is followed, overhead
published   the rrww/rwrw/wwrr experiment of Bitchebe et al., theirs and ours
pml, plateau, page_tables, prl, vtmm, vmware, idle_pages, damon, dirty_rate, intermittent,
self_ballooning, zballoond, mpa, exclusive_cache, geiger, badis
            the techniques; curves has the ghost lists that two of them share
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.errors import UnknownName, UsageError
from pmlkit.techniques.badis import Badis
from pmlkit.techniques.damon import Damon
from pmlkit.techniques.dirty_rate import DirtyBitmap, DirtyRing, DirtySampling
from pmlkit.techniques.exclusive_cache import ExclusiveCache
from pmlkit.techniques.geiger import Geiger
from pmlkit.techniques.idle_pages import IdlePages
from pmlkit.techniques.intermittent import Intermittent
from pmlkit.techniques.mpa import Mpa
from pmlkit.techniques.page_tables import PmlEntries, PmlPageTables
from pmlkit.techniques.plateau import PmlPlateau, PrlPlateau
from pmlkit.techniques.pml import Pml, PmlThreshold
from pmlkit.techniques.prl import Prl
from pmlkit.techniques.protocol import Need, Technique
from pmlkit.techniques.recorded import Recorded
from pmlkit.techniques.runs import Run, run
from pmlkit.techniques.self_ballooning import SelfBallooning
from pmlkit.techniques.vmware import Vmware
from pmlkit.techniques.vtmm import Vtmm
from pmlkit.techniques.zballoond import Zballoond

if TYPE_CHECKING:
    from typing import Any


__all__ = ["TECHNIQUES", "Need", "Recorded", "Run", "Technique", "make", "run"]

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
    """Make a technique by its name, with other parameters than its defaults.

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
            has = ", ".join(known) or "none"
            raise UsageError(f"{name} has no parameter {parameter!r}: it has {has}")
    return TECHNIQUES[name](**parameters)
