# SPDX-License-Identifier: Apache-2.0
"""The plugin's messages are cut and decoded whatever way the pipe delivers them."""

import re
import struct
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.sources.recorder import messages
from pmlkit.sources.recorder.messages import Marker, Message, decode, split

SOURCE = Path(messages.__file__).with_name("recorder_plugin.c").read_text()


def packed(kind, payload):
    return struct.pack("<II", kind, len(payload)) + payload


def test_a_span_is_decoded_in_log_order():
    payload = struct.pack("<IIQqQq", 3, 0, 10, 20, 30, 40) + struct.pack("<3I", 9, 7, 8)
    span = decode(Message.PML, payload)
    assert (span.round, span.reason) == (3, "full")
    assert (span.insn_start, span.t_start_ns, span.insn_end, span.t_end_ns) == (10, 20, 30, 40)
    np.testing.assert_array_equal(span.values, [9, 7, 8])


def test_a_round_a_mark_and_the_totals_are_decoded():
    end = decode(Message.ROUND_END, struct.pack("<IIQqQqQQ", 1, 2, 3, 4, 5, 6, 7, 8))
    assert (end.round, end.full_exits, end.accessed, end.dirty) == (1, 2, 7, 8)
    mark = decode(Message.MARK, struct.pack("<IIQq", 5, 2, 100, 200))
    assert (mark.round, mark.marker, mark.insn, mark.t_ns) == (5, Marker.PHASE, 100, 200)
    totals = decode(Message.TOTALS, struct.pack("<7Q", *range(7)))
    assert (totals.slow, totals.wrong) == (0, 6)
    assert decode(Message.HELLO, b"\0" * 16) is None


@given(
    st.lists(st.tuples(st.integers(1, 6), st.binary(max_size=40)), max_size=8),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_split_gives_the_same_messages_however_they_arrive(sent, sizes):
    stream = b"".join(packed(kind, payload) for kind, payload in sent)
    buffer, got, at = bytearray(), [], 0
    while at < len(stream):
        size = sizes[len(got) % len(sizes)]
        buffer += stream[at : at + size]
        at += size
        got += split(buffer)
    assert got == sent
    assert not buffer


def test_split_keeps_a_message_that_is_not_whole():
    whole = packed(2, b"abc")
    buffer = bytearray(whole + whole[:-1])
    assert split(buffer) == [(2, b"abc")]
    assert bytes(buffer) == whole[:-1]


def test_the_numbers_are_those_of_the_plugin():
    """The C enums and this module's must not drift apart."""
    names = re.search(r"enum message \{ (.*?) \}", SOURCE)[1].replace(" = 1", "").split(", ")
    assert [Message(i + 1).name for i in range(len(names))] == names
    markers = re.search(r"enum marker \{ (.*?) \}", SOURCE)[1].replace(" = 1", "").split(", ")
    assert [Marker(i + 1).name for i in range(len(markers))] == markers
    reasons = re.search(r"enum reason \{ (.*?) \}", SOURCE)[1].split(", ")
    assert [reason.upper() for reason in messages.REASONS] == reasons
