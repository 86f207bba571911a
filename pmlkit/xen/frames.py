# SPDX-License-Identifier: Apache-2.0
"""What the agent writes into a spool: kinds of frames, and how they are packed.

All little-endian. Times are nanoseconds since the collection's start, from the TSC where Xen is
patched, from dom0's monotonic clock where it is not.
"""

import json
import struct
from enum import IntEnum


class Frame(IntEnum):
    """Kinds of frames."""

    ROUND = 1  # JSON: a closed round
    BATCH = 2  # a drained buffer: `BATCH_HEAD`, then entries (gfn << 12 | kind), u64 each
    TABLES = 3  # snapshots of page tables: `BATCH_HEAD`, then 25 u64 each
    DIRTY = 4  # `BITMAP_HEAD`, then the log-dirty bitmap of a round
    ACCESSED = 5  # `BITMAP_HEAD`, then the accessed bitmap of a round
    CONSOLE = 6  # JSON: a line that the guest said, and when it was read
    END = 7  # JSON: the last status of the domain and its vCPUs


# round, count, tsc_start, tsc_end, drain_tsc, lost_entries, lost_records, seq, dropped, flags,
# vcpu, reason
BATCH_HEAD = struct.Struct("<IIQQQQQQIIHH")
_BATCH_FIELDS = [
    "round",
    "count",
    "tsc_start",
    "tsc_end",
    "drain_tsc",
    "lost_entries",
    "lost_records",
    "seq",
    "dropped",
    "flags",
    "vcpu",
    "reason",
]
BITMAP_HEAD = struct.Struct("<IQ")  # round, bits


def pack_json(**values):
    """Pack facts as JSON."""
    return json.dumps(values).encode()


def pack_batch(record):
    """Pack a record as `pmlkit.xen.pml.PmlLog.read` yields it."""
    return BATCH_HEAD.pack(*(record[name] for name in _BATCH_FIELDS)) + record["data"]


def unpack_batch(payload):
    """Return the fields as a dict, `data` being the entries' bytes."""
    values = dict(zip(_BATCH_FIELDS, BATCH_HEAD.unpack_from(payload), strict=True))
    return {**values, "data": payload[BATCH_HEAD.size :]}


def pack_bitmap(round_number, bits):
    """Pack a bitmap; trailing zero bytes are left out."""
    return BITMAP_HEAD.pack(round_number, len(bits) * 8) + bits.rstrip(b"\0")


def unpack_bitmap(payload):
    """Return the round, and the bitmap's bytes in full."""
    number, bits = BITMAP_HEAD.unpack_from(payload)
    return number, payload[BITMAP_HEAD.size :].ljust(bits // 8, b"\0")
