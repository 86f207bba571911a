# SPDX-License-Identifier: Apache-2.0
"""Techniques that estimate a working set, with one protocol for all.

>>> from pmlkit import techniques                                      # doctest: +SKIP
>>> recorded = techniques.Recorded.of(pmlkit.open("redis.trace"))      # doctest: +SKIP
>>> techniques.run("vmware", recorded, window="1s").estimates          # doctest: +SKIP

A new technique is a module here and an entry in ``registry``; nothing else needs to change. Each
technique has its own module, shared only with its variants. ``protocol``, ``costs`` and
``registry`` are short because authors of techniques read them.

Modules
-------
protocol    the base class of techniques
recorded    a recorded VM, and the inputs that a technique can need of it
view        the view that a technique gets: the channels that it declared, up to now
channels    PML's log, references, accessed flags, traps, content, disk, guest, memory
host_channels  channels of a Linux host: MGLRU's aging, soft-dirty bits, access samples
setting     the setting of channels: a recording, a clock, an account of costs
costs       costs of events, and the sources of the constants
memory      a guest of changing size: a replay of the accesses
runs        run a technique
scores      errors against W(t, T), and windows until a step is followed
published   the rrww/rwrw/wwrr experiment of Bitchebe et al., published and reproduced
recent      the number of distinct frames in the last few looks
ghosts      the lists of evicted pages that two techniques share
registry    the techniques by name
"""

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need, Recorded
from pmlkit.techniques.registry import TECHNIQUES, make
from pmlkit.techniques.runs import Run, run

__all__ = ["TECHNIQUES", "Need", "Recorded", "Run", "Technique", "make", "run"]
