# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.xen.frames import pack_batch, pack_bitmap, unpack_batch, unpack_bitmap

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
RECORD = st.fixed_dictionaries(
    dict.fromkeys(("round", "count", "dropped", "flags"), U32)
    | dict.fromkeys(("vcpu", "reason"), U16)
    | dict.fromkeys(
        ("tsc_start", "tsc_end", "drain_tsc", "lost_entries", "lost_records", "seq"), U64
    )
    | {"data": st.binary(max_size=64).map(lambda b: b[: len(b) // 8 * 8])}
)


@given(RECORD)
def test_a_record_comes_back_as_it_was(record):
    assert unpack_batch(pack_batch(record)) == record


@given(U32, st.binary(max_size=100))
def test_a_bitmap_comes_back_whole(number, bits):
    assert unpack_bitmap(pack_bitmap(number, bits)) == (number, bits)


def test_zeros_at_the_end_take_no_space():
    assert len(pack_bitmap(3, b"\1" + bytes(100_000))) < 32
