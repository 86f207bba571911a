# SPDX-License-Identifier: Apache-2.0
"""Pack messages as the plugin does, so that ingest is tested without QEMU."""

import struct

from pmlkit.sources.recorder.messages import REASONS, Message

READ, WRITE, EXEC = 1, 2, 4


def span(kind, round_, reason, start, end, values):
    """`start` and `end` are (instructions, ns)."""
    head = struct.pack("<IIQqQq", round_, REASONS.index(reason), *start, *end)
    return kind, head + struct.pack(f"<{len(values)}I", *values)


def access(round_, reason, start, end, entries):
    """`entries` are (gfn, kind)."""
    return span(Message.ACCESS, round_, reason, start, end, [g << 3 | k for g, k in entries])


def pml(round_, reason, start, end, gfns):
    return span(Message.PML, round_, reason, start, end, gfns)


def round_end(round_, start, end, accessed=0, dirty=0, full_exits=0):
    payload = struct.pack("<IIQqQqQQ", round_, full_exits, *start, *end, accessed, dirty)
    return Message.ROUND_END, payload


def mark(round_, marker, at):
    return Message.MARK, struct.pack("<IIQq", round_, marker, *at)


def totals(wrong=0):
    return Message.TOTALS, struct.pack("<7Q", 1, 0, 0, 0, 0, 0, wrong)
