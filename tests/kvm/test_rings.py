# SPDX-License-Identifier: Apache-2.0
"""Rings of entries in memory: all that was written is read once, in order, or counted as lost."""

import struct

import numpy as np
import pytest
from fake_bpf import Writer
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import NotUnderstood
from pmlkit.kvm.frames import LOG, MARKS, PAGES_HEAD, Frame
from pmlkit.kvm.rings import BLOCK_HEAD, Rings, ring_bytes
from pmlkit.sources.kvm.stream import KvmStream

HEADER = {
    "source": "kvm", "mode": "log", "epoch_ns": 0, "domain": {"name": "a", "vcpus": 1},
    "capture": {"kind": "bpf", "clock": "mono", "header_page": "", "formats": {}},
}  # fmt: skip
STEPS = st.lists(
    st.one_of(st.tuples(st.integers(0, 2), st.integers(1, 40)), st.none()), max_size=40
)


def rings(count, entries):
    memory = bytearray(count * ring_bytes(entries))
    return Rings(memory, count, entries), Writer(memory, entries)


def parsed(blocks):
    """Return, by CPU, what was read: numbers of entries, and ("lost", n)."""
    found = {}
    for cpu, block in blocks:
        lost, count = BLOCK_HEAD.unpack_from(block)
        assert len(block) == BLOCK_HEAD.size + 16 * count
        if lost:
            found.setdefault(cpu, []).append(("lost", lost))
        rows = struct.iter_unpack("<QQ", block[BLOCK_HEAD.size :])
        found.setdefault(cpu, []).extend(word >> 22 for _, word in rows)
    return found


@given(STEPS)
def test_what_was_written_is_read_once_in_order_or_lost_where_it_was(steps):
    """Three rings of 16 entries; a step writes some to one of them, or reads (None)."""
    reader, writer = rings(3, 16)
    expected, found, number = {}, {}, 0
    for step in [*steps, None, None]:
        if step is None:
            for cpu, read in parsed(reader.drain()).items():
                found.setdefault(cpu, []).extend(read)
            continue
        cpu, count = step
        for _ in range(count):
            number += 1
            mine = expected.setdefault(cpu, [])
            if writer.write(cpu, number, number, 7):
                mine.append(number)
            elif mine and isinstance(mine[-1], tuple):
                mine[-1] = ("lost", mine[-1][1] + 1)
            else:
                mine.append(("lost", 1))
    for cpu, read in parsed(reader.owed()).items():
        found[cpu] = found.get(cpu, []) + read
    assert found == expected
    lost = sum(one[1] for mine in expected.values() for one in mine if isinstance(one, tuple))
    assert (reader.lost(), reader.read()) == (lost, number - lost)


def test_sixteen_writers_and_a_slow_reader_lose_what_is_reported():
    """2^20 entries of 16 CPUs come before a reader that sees the rings eight times."""
    reader, writer = rings(16, 1 << 12)
    blocks, number = [], 0
    for _ in range(8):
        for cpu in range(16):
            for _ in range(1 << 13):
                number += 1
                writer.write(cpu, number, number & 0xFFFFF, cpu + 1)
        blocks += reader.drain()
    blocks += reader.owed()
    stream, entries, lost = KvmStream(HEADER), 0, 0
    for cpu, block in blocks:
        pages = stream.take(Frame.ENTRIES, PAGES_HEAD.pack(LOG, 0, 0, cpu) + block)
        assert (pages.thread == cpu + 1).all() and (np.diff(pages.time) > 0).all()
        entries, lost = entries + len(pages.time), lost + int(pages.lost[:, 1].sum())
    assert number == 1 << 20
    assert (entries, lost) == (1 << 19, 1 << 19)
    assert (reader.read(), reader.lost()) == (entries, lost)


def test_what_came_before_the_start_is_left_out():
    reader, writer = rings(1, 4)
    for number in range(7):
        writer.write(0, number, number, 1)
    reader.skip()
    writer.write(0, 7, 7, 1)
    assert parsed(reader.drain()) == {0: [7]}
    assert (reader.lost(), reader.read(), list(reader.owed())) == (0, 1, [])


def test_a_long_ring_comes_in_pieces():
    reader, writer = rings(1, 1 << 18)
    for number in range(200_000):
        writer.write(0, number, number, 1)
    blocks = list(reader.drain())
    assert max(len(block) for _, block in blocks) <= 1 << 21
    assert parsed(blocks) == {0: list(range(200_000))}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "without BPF"),
        (PAGES_HEAD.pack(2, 0, 0, 0), "stream 2"),
        (PAGES_HEAD.pack(LOG, 0, 0, 0) + b"123", "shorter than their head"),
        (
            PAGES_HEAD.pack(LOG, 0, 0, 0) + BLOCK_HEAD.pack(0, 2) + bytes(31),
            "more than it can contain",
        ),
        (
            PAGES_HEAD.pack(MARKS, 0, 0, 0)
            + BLOCK_HEAD.pack(0, 1)
            + struct.pack("<QQ", 5, 3 << 42),
            "unknown kind",
        ),
        (PAGES_HEAD.pack(LOG, 0, 0, 0) + BLOCK_HEAD.pack(1 << 63, 0), "lost an impossible number"),
        (
            PAGES_HEAD.pack(LOG, 0, 0, 0) + BLOCK_HEAD.pack(0, 1) + struct.pack("<QQ", 1 << 63, 0),
            "impossible time",
        ),
    ],
)
def test_entries_that_cannot_be_are_refused(payload, why):
    with pytest.raises(NotUnderstood, match=why):
        KvmStream(HEADER).take(Frame.ENTRIES, payload)
