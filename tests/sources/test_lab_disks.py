# SPDX-License-Identifier: Apache-2.0
"""What dom0 wrote comes off the disk, whatever moment the machine was killed at."""

import os
import tarfile
from io import BytesIO

import pytest

from pmlkit.errors import NotATrace, OutputError
from pmlkit.sources.ingest import ingest
from pmlkit.sources.lab.disks import SPOOL_AT, Growing, take_results
from pmlkit.sources.lab.session import LabOptions, machine_mib, rounds_of
from pmlkit.spool import SpoolWriter
from pmlkit.spool_reader import read_spool
from pmlkit.xen.frames import Frame

SIZE = SPOOL_AT + (1 << 20)


@pytest.fixture
def spool(tmp_path):
    """Bytes of a spool of three rounds, and where each of its frames ends."""
    ends = []
    with SpoolWriter(tmp_path / "whole.spool", {"source": "lab"}) as writer:
        for number in range(3):
            writer.append(Frame.ROUND, b'{"round": %d}' % number)
            ends.append(writer.bytes)
            writer.append(Frame.DIRTY, bytes(range(256)) * 20)
    return (tmp_path / "whole.spool").read_bytes(), ends


@pytest.fixture
def disk(tmp_path):
    """A function that makes a disk of a spool (or its beginning) and files."""

    def make(spool=b"", files=()):
        image = tmp_path / "x.trace.spool" / "out.img"
        image.parent.mkdir(exist_ok=True)
        stream = BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, data in dict(files).items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
        with open(image, "wb") as file:
            file.write(stream.getvalue() if files else b"")
            file.seek(SPOOL_AT)
            file.write(spool)
            file.truncate(SIZE)
        return image

    return make


def test_files_and_the_spool_come_off_the_disk_and_the_disk_goes(spool, disk):
    image = disk(spool[0], {"status": b"0\n", "guest.txt": b"hello"})
    take_results(image, image.parent)
    assert (image.parent / "frames.spool").read_bytes() == spool[0]
    assert (image.parent / "status").read_bytes() == b"0\n"
    assert sorted(p.name for p in image.parent.iterdir()) == ["frames.spool", "guest.txt", "status"]


def test_a_spool_that_was_cut_at_any_byte_keeps_its_whole_frames(spool, disk):
    data, ends = spool
    for size in range(0, len(data), 97):
        image = disk(data[:size])
        take_results(image, image.parent)
        expected = sum(end <= size for end in ends)
        taken = image.parent / "frames.spool"
        assert rounds_of(taken) == expected
        if expected:
            frames = read_spool(taken)
            assert len(list(frames)) >= expected
            assert frames.missing
            taken.unlink()


def test_a_spool_is_copied_frame_by_frame_while_it_grows(spool, disk, tmp_path):
    data, ends = spool
    image, copy = disk(), tmp_path / "copy.spool"
    growing = Growing(image, copy)
    for size in range(0, len(data) + 97, 97):
        disk(data[:size])
        growing.copy()
        assert rounds_of(copy) == sum(end <= size for end in ends)
        if copy.exists():
            assert data.startswith(copy.read_bytes())
    assert copy.read_bytes() == data


def test_blocks_that_reach_the_disk_in_any_order_are_waited_for(spool, disk, tmp_path):
    data, ends = spool
    hole = ends[0] // 4096 * 4096 + 4096  # within the frame after the first round
    copy = tmp_path / "copy.spool"
    growing = Growing(disk(data[:hole] + bytes(4096) + data[hole + 4096 :]), copy)
    growing.copy()
    assert copy.read_bytes() == data[: ends[0]]
    disk(data)
    growing.copy()
    assert copy.read_bytes() == data


def test_the_copy_is_read_while_the_rest_is_taken(spool, disk):
    data, ends = spool
    image = disk(data[: ends[1]])
    frames = image.parent / "frames.spool"
    Growing(image, frames).copy()
    with read_spool(frames) as reader:
        seen = [kind for kind, _ in reader.poll()]
        take_results(disk(data), image.parent)
        seen += [kind for kind, _ in reader.poll()]
    assert seen == [Frame.ROUND, Frame.DIRTY] * 3


def test_a_full_disk_ends_the_copying(spool, disk, tmp_path):
    with pytest.raises(OutputError):
        Growing(disk(spool[0]), tmp_path / "nowhere" / "copy.spool").copy()


def test_a_block_in_the_middle_that_never_reached_the_disk_ends_it(spool, disk):
    data, ends = spool
    hole = data[: ends[1]] + bytes(4096) + data[ends[1] + 4096 :]
    image = disk(hole)
    take_results(image, image.parent)
    assert rounds_of(image.parent / "frames.spool") == 2


def test_an_empty_disk_gives_nothing(disk):
    image = disk()
    take_results(image, image.parent)
    assert list(image.parent.iterdir()) == []
    assert rounds_of(image.parent / "frames.spool") == 0


def test_an_archive_that_was_cut_gives_its_whole_files(disk, tmp_path):
    image = disk(b"", {"a": b"x" * 2000, "b": b"y" * 9000})
    os.truncate(image, 4096)
    take_results(image, image.parent)
    assert (image.parent / "a").read_bytes() == b"x" * 2000


def test_ingest_takes_a_spool_off_the_disk_that_a_killed_run_left(spool, disk, tmp_path):
    image = disk()
    with pytest.raises(NotATrace, match=r"contains no frames\.spool"):
        ingest(image.parent, tmp_path / "x.trace")
    assert not image.exists()


def test_the_machine_grows_with_the_guest():
    """dom0's 400 MiB, Xen's own, a hole for devices below 4 GiB; few sizes, so few saved states."""
    sizes = [machine_mib(guest) for guest in (64, 128, 256, 512, 1024, 2048, 4096)]
    assert sizes == [1024, 1024, 1024, 1536, 2048, 3072, 6144]


def test_rounds_are_the_guests_default_unless_asked_for():
    assert LabOptions().rounds == 0
