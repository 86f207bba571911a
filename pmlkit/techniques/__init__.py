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

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need, Recorded
from pmlkit.techniques.registry import TECHNIQUES, make
from pmlkit.techniques.runs import Run, run

__all__ = ["TECHNIQUES", "Need", "Recorded", "Run", "Technique", "make", "run"]
