# SPDX-License-Identifier: Apache-2.0
"""Techniques that estimate a working set, all of one protocol.

>>> from pmlkit import techniques                                      # doctest: +SKIP
>>> recorded = techniques.Recorded.of(pmlkit.open("redis.trace"))      # doctest: +SKIP
>>> techniques.run("vmware", recorded, window="1s").estimates          # doctest: +SKIP

A new technique is a module here and an entry in ``registry``; nothing else has to change. Each has
a module of its own, shared only by its variants. ``protocol``, ``costs`` and ``registry`` are short
because they are what the author of a technique reads.

Modules
-------
protocol    the base class of techniques
recorded    a recorded VM, and what a technique can need of it
view        the view that a technique gets: the channels that it declared, up to now
channels    PML's log, references, accessed flags, traps, content, disk, guest, memory
host_channels  what a Linux host has: MGLRU's aging, soft-dirty bits, access samples
setting     what channels are opened on: a recording, a clock, where costs go
costs       what events cost, and where the constants come from
memory      a guest of changing size: a replay of the accesses
runs        running a technique
scores      errors against W(t, T), and windows until a step is followed
published   the rrww/rwrw/wwrr experiment of Bitchebe et al., theirs and ours
recent      the distinct frames of the last few looks
ghosts      the lists of evicted pages that two techniques share
registry    the techniques by name
"""

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need, Recorded
from pmlkit.techniques.registry import TECHNIQUES, make
from pmlkit.techniques.runs import Run, run

__all__ = ["TECHNIQUES", "Need", "Recorded", "Run", "Technique", "make", "run"]
