# SPDX-License-Identifier: Apache-2.0
"""The frames of a Xen spool: their kinds, and how they are packed.

The agent writes them and the host reads them, so the format is separate from both. All numbers are
little-endian. Times are nanoseconds since the collection's start: from the TSC with a patched Xen,
otherwise from dom0's monotonic clock.

A RECORDS frame contains many records of the rings: ``count u64``, then the heads of all records
(each is ``struct xenpml_record`` up to its data), then the data of all, `count` words each, without
gaps. The spool's header describes the layout of a head, so that readers need no other declaration.
``record`` has the name, offset and bytes of each field; ``head_bytes`` is the size.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Frame(IntEnum):
    """Kinds of frames."""

    ROUND = 1  # JSON: a closed round, or (``tick``) a mark of a collection that closes none
    RECORDS = 2  # drained buffers, and snapshots of page tables
    DIRTY = 4  # `BITMAP_HEAD`, then a piece of the log-dirty bitmap of a round
    ACCESSED = 5  # `BITMAP_HEAD`, then a piece of the accessed bitmap of a round
    CONSOLE = 6  # JSON: a line of the guest's console, and the time of reading
    END = 7  # JSON: the reason of the end; the last status of the domain and its vCPUs
    EVENT = 8  # JSON: a message (``what``), and its time (``ns``)
    TOUCHED = 9  # `TOUCHED_HEAD`, then words (gfn << 12 | kind): a guided harvest, or part of it


RECORDS_HEAD = struct.Struct("<Q")
BITMAP_HEAD = struct.Struct("<IQQ")  # round, bits of the whole bitmap, first byte of this piece
TOUCHED_HEAD = struct.Struct("<I")  # round
PIECE_BYTES = 1 << 20


def pack_json(**values: object) -> bytes:
    """Pack values as JSON."""
    return json.dumps(values).encode()


def bitmap_pieces(round_number: int, bits: bytes | memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of frames for a bitmap, without the pieces that are all zero.

    The first piece is always there, and shows that the round has a bitmap.
    """
    view = memoryview(bits)
    for first in range(0, max(len(view), 1), PIECE_BYTES):
        piece = bytes(view[first : first + PIECE_BYTES]).rstrip(b"\0")
        if piece or not first:
            yield BITMAP_HEAD.pack(round_number, len(view) * 8, first), piece


def unpack_bitmap_piece(payload: bytes) -> tuple[int, int, int, bytes]:
    """Return the round, the bits of the whole bitmap, the piece's first byte, and the piece."""
    number, bits, first = BITMAP_HEAD.unpack_from(payload)
    return number, bits, first, payload[BITMAP_HEAD.size :]
