# SPDX-License-Identifier: Apache-2.0
"""A spool gives back whole true frames and says what is missing, whatever happened to the file."""

import random
import struct
import subprocess
import sys

import pytest
from full_disk import FullDisk
from hypothesis import given
from hypothesis import strategies as st
from rewriting import rewrite

from pmlkit.errors import (
    NotATrace,
    OutputError,
    OutputExists,
    PmlkitError,
    SpoolDamaged,
    TraceNotFound,
    TraceVersionError,
    UsageError,
)
from pmlkit.spool import SpoolWriter
from pmlkit.spool_reader import read_spool

HEADER = {"source": "synthetic", "period": {"ns": 10_000_000}}
FRAMES = [(1, b"first"), (2, b""), (1, b"PMLF" * 5), (700, bytes(range(40)))]


def write(path, frames=FRAMES, close=True):
    writer = SpoolWriter(path, HEADER)
    for kind, payload in frames:
        writer.append(kind, payload)
    writer.close(whole=close)
    return path.read_bytes()


def read(path):
    """The frames that come out, and what is missing; None if it is refused altogether."""
    try:
        with read_spool(path) as spool:
            assert spool.header == HEADER
            return list(spool), spool.missing
    except PmlkitError as error:
        assert str(error).isprintable()
        return None


def frame_ends(path):
    """Offsets at which a frame ends, the header's end first."""
    ends = []
    with read_spool(path) as spool:
        ends.append(spool.offset)
        ends += [spool.offset for _ in spool]
    return ends


def test_what_was_appended_comes_back(tmp_path):
    write(tmp_path / "s")
    assert read(tmp_path / "s") == (FRAMES, None)


@given(st.lists(st.tuples(st.integers(0, 0xFFFE), st.binary(max_size=300)), max_size=8))
def test_round_trip(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("spool") / "s"
    write(path, frames)
    assert read(path) == (frames, None)


def test_a_truncation_at_every_byte_loses_one_frame_at_most(tmp_path):
    path = tmp_path / "s"
    data = write(path)
    ends = frame_ends(path)
    for size in range(len(data)):
        rewrite(path, data[:size])
        whole = sum(end <= size for end in ends) - 1
        if whole < 0:
            assert read(path) is None, size
            continue
        frames, missing = read(path)
        assert frames == FRAMES[:whole], size
        assert missing, size
        assert str(ends[whole]) in missing, size  # from which byte on


def test_the_cut_off_frame_is_named(tmp_path):
    path = tmp_path / "s"
    data = write(path)
    ends = frame_ends(path)
    path.write_bytes(data[: ends[2] + 30])
    expected = f"frame 2, which is cut off: 30 bytes of it, from byte {ends[2]} on"
    assert read(path) == (FRAMES[:2], expected)


def test_a_collector_that_did_not_close_is_noticed(tmp_path):
    write(tmp_path / "s", close=False)
    frames, missing = read(tmp_path / "s")
    assert frames == FRAMES
    assert "stopped after frame 3" in missing
    write(tmp_path / "empty", frames=[], close=False)
    assert "before the first" in read(tmp_path / "empty")[1]


def test_one_flipped_bit_anywhere(tmp_path):
    path = tmp_path / "s"
    data = write(path)
    ends = frame_ends(path)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            rewrite(path, flipped)
            before = sum(end <= place for end in ends) - 1
            result = read(path)
            if before < 0:
                assert result is None, (place, bit)
            else:
                assert result[0] == FRAMES[:before], (place, bit)
                assert str(ends[before]) in result[1], (place, bit)


def damage(data, rng):
    """Do to a file what disks, crashes and people do to files."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        start, length = rng.randrange(len(data) + 1), rng.randrange(60)
        change = rng.randrange(6)
        if change == 0:
            data[start : start + length] = rng.randbytes(len(data[start : start + length]))
        elif change == 1:
            data[start : start + length] = bytes(len(data[start : start + length]))
        elif change == 2:
            del data[start : start + length]
        elif change == 3:
            data[start:start] = rng.randbytes(length)
        elif change == 4:  # a piece of the file, elsewhere in it
            source = rng.randrange(len(data) + 1)
            data[start : start + length] = data[source : source + length]
        else:
            del data[start:]
    return bytes(data)


def test_thousands_of_corruptions_give_true_frames_or_a_refusal(tmp_path):
    path = tmp_path / "s"
    data = write(path, FRAMES * 3)
    rng = random.Random(1)
    refused = 0
    for _ in range(3000):
        broken = damage(data, rng)
        rewrite(path, broken)
        result = read(path)
        refused += result is None
        if result is not None:
            frames, missing = result
            assert frames == (FRAMES * 3)[: len(frames)]
            assert missing or broken == data
    assert 0 < refused < 3000


def test_frames_of_another_place_are_not_taken(tmp_path):
    path = tmp_path / "s"
    data = write(path)
    ends = frame_ends(path)
    swapped = data[: ends[0]] + data[ends[1] : ends[2]] + data[ends[0] : ends[1]] + data[ends[2] :]
    path.write_bytes(swapped)
    assert read(path)[0] == []
    path.write_bytes(data[: ends[1]] + data[ends[0] : ends[1]] + data[ends[1] :])  # one twice
    assert read(path)[0] == FRAMES[:1]


def test_bytes_after_the_end_are_reported(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(write(path) + b"more")
    frames, missing = read(path)
    assert frames == FRAMES
    assert "4 bytes" in missing


def test_a_length_of_gigabytes_costs_nothing(tmp_path):
    path = tmp_path / "s"
    data = bytearray(write(path))
    struct.pack_into("<I", data, frame_ends(path)[0] + 12, 0xFFFFFFF0)
    path.write_bytes(data)
    assert read(path)[0] == []
    struct.pack_into("<I", data, 12, 0xFFFFFFF0)
    path.write_bytes(data)
    assert read(path) is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", NotATrace),
        (b"PK\x03\x04 something else", NotATrace),
        (b"PMLSPOOL", SpoolDamaged),
        (b"PMLSPOOL" + struct.pack("<II", 1, 0) + bytes(8), TraceVersionError),
        (b"PMLSPOOL" + struct.pack("<II", 2, 2) + bytes(8) + b"{}", SpoolDamaged),
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path, content, error):
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(error, match=str(path)) as caught:
        read_spool(path)
    assert caught.value.path == str(path)


def test_paths_that_are_no_spool(tmp_path):
    with pytest.raises(TraceNotFound):
        read_spool(tmp_path / "nothing")
    with pytest.raises(NotATrace, match="folder"):
        read_spool(tmp_path)
    with pytest.raises(TraceNotFound):
        read_spool("a\0b")
    with pytest.raises(PmlkitError):
        read_spool("x" * 5000)


def test_the_writer_refuses_wrong_use(tmp_path):
    with SpoolWriter(tmp_path / "s", HEADER) as writer:
        for kind in (-1, 0xFFFF, 1 << 20):
            with pytest.raises(UsageError):
                writer.append(kind, b"")
    writer.close()  # twice does no harm
    with pytest.raises(UsageError, match="closed"):
        writer.append(1, b"late")
    with pytest.raises(OutputExists):
        SpoolWriter(tmp_path / "s", HEADER)


def test_an_exception_leaves_what_was_appended_and_no_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), SpoolWriter(tmp_path / "s", HEADER) as writer:
        writer.append(1, b"first")
        raise KeyboardInterrupt
    frames, missing = read(tmp_path / "s")
    assert frames == [(1, b"first")]
    assert "stopped" in missing


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "s", tmp_path / "none" / "s", "a\0b"):
        with pytest.raises(OutputError) as caught:
            SpoolWriter(path, HEADER)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("room", [0, 1, 23, 24, 30])
def test_a_full_disk_leaves_whole_frames_and_a_second_try(tmp_path, room):
    writer = SpoolWriter(tmp_path / "s", HEADER)
    writer.append(1, b"first")
    writer._file = FullDisk(writer._file, room)
    with pytest.raises(OutputError, match="no space left"):
        writer.append(2, b"the second frame, that does not fit")
    writer._file.room = 1 << 20
    writer.append(3, b"third")
    writer.close()
    assert read(tmp_path / "s") == ([(1, b"first"), (3, b"third")], None)


@pytest.mark.parametrize("room", [1, 40, 58])
def test_a_full_disk_and_no_second_try(tmp_path, room):
    writer = SpoolWriter(tmp_path / "s", HEADER)
    writer._file = FullDisk(writer._file, room)
    with pytest.raises(OutputError):
        writer.append(2, b"the second frame, that does not fit")
    writer._file.room = 1 << 20
    writer.close()
    assert read(tmp_path / "s") == ([], None)


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pmlkit.spool._write_all", lambda file, data: FullDisk(file, 0).write(data))
    with pytest.raises(OutputError):
        SpoolWriter(tmp_path / "s", HEADER)
    assert not (tmp_path / "s").exists()


def test_short_writes_are_continued(tmp_path):
    class Slow(FullDisk):
        def write(self, data):
            return self.file.write(data[:7])

    writer = SpoolWriter(tmp_path / "s", HEADER)
    writer._file = Slow(writer._file, 0)
    for kind, payload in FRAMES:
        writer.append(kind, payload)
    writer.close()
    assert read(tmp_path / "s") == (FRAMES, None)


def test_nothing_but_the_standard_library_is_needed():
    code = "import sys, pmlkit.spool; print(*{'numpy', 'pandas', 'pyarrow'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
