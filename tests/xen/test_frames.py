# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.xen import frames
from pmlkit.xen.frames import bitmap_pieces, unpack_bitmap_piece

U32 = st.integers(0, 2**32 - 1)


@given(U32, st.binary(max_size=100))
def test_a_bitmap_comes_back_whole(number, bits):
    (parts,) = bitmap_pieces(number, bits)
    back = unpack_bitmap_piece(b"".join(parts))
    assert back == (number, 8 * len(bits), 0, bits.rstrip(b"\0"))


def test_a_large_bitmap_is_cut_and_pieces_of_zeros_are_left_out(monkeypatch):
    monkeypatch.setattr(frames, "PIECE_BYTES", 4)
    pieces = [b"".join(parts) for parts in bitmap_pieces(9, bytes(8) + b"\1\0\0\0" + bytes(5))]
    assert [unpack_bitmap_piece(piece) for piece in pieces] == [
        (9, 136, 0, b""),
        (9, 136, 8, b"\1"),
    ]


def test_zeros_at_the_end_take_no_space():
    (parts,) = bitmap_pieces(3, b"\1" + bytes(100_000))
    assert len(b"".join(parts)) < 32
