# SPDX-License-Identifier: Apache-2.0
"""The frames of a KVM spool: their kinds, and how they are packed.

The agent writes them and `pmlkit.sources.kvm` reads them. Times are nanoseconds of the host's
monotonic clock, which is also the clock of the traced events.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Frame(IntEnum):
    """Kinds of frames."""

    PAGES = 1  # `PAGES_HEAD`, then pages of a ring buffer, each cut after its events
    TICK = 2  # JSON: the time ``ns`` at which all buffers were read, and the kernel's counts
    ROUND = 3  # JSON: a round has ended: ``round``, ``start_ns``, ``end_ns``, ``agent_cpu_ns``
    PAGE_SET = 4  # `SET_HEAD`, then frames (u64): the pages of a round, without order or time
    ENTRIES = 5  # `PAGES_HEAD`, then blocks of entries as `rings.Rings` yields them
    END = 7  # JSON: the reason of the end, and the last counts
    EVENT = 8  # JSON: a message (``what``), and its time (``ns``)
    LOOKED = 10  # JSON: the frames of a round were examined: ``round``, ``logged``, ``left``...
    SAMPLE = 11  # `SET_HEAD`, then frames (u64): the touched frames of a round's sample
    # `LOOK_HEAD`, frames (u64), the state of each (u8); of the candidates the numbers of present
    # entries (u16), then the places of all these in their pages (u16), and the entries (u64).
    LOOK = 12


# Streams of frames of pages.
LOG, MARKS, CALLS = range(3)
STREAMS = ("log", "marks", "calls")
PAGES_HEAD = struct.Struct("<BBHI")  # stream, 0, 0, CPU
SET_HEAD = struct.Struct("<II")  # round, 0
LOOK_HEAD = struct.Struct("<II")  # round, frames
# States of an examined frame: not a page table; without a present entry; a possible page table,
# whose entries follow; not readable.
OTHER, EMPTY, CANDIDATE, HOLE = range(4)


def pack_json(**values: object) -> bytes:
    """Pack values as JSON."""
    return json.dumps(values).encode()


def words(numbers: Iterable[int], kind: str = "Q") -> bytes:
    """Pack numbers as u64; as u16 with the kind "H"."""
    packed = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
