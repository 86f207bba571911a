# SPDX-License-Identifier: Apache-2.0
"""Frames read out of a process of our own, whose memory is known."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from pmlkit.kvm.find import NoRight
from pmlkit.kvm.guest_memory import AT_ONCE, PAGE, GuestMemory, VmmGone, memory_slots
from pmlkit.kvm.host import Host
from pmlkit.kvm.rounds import LOGGED, Slot

PAGES = 8
# A child with a mapping of 8 pages, each full of its number + 1; the sixth is unmapped.
CHILD = """
import ctypes, mmap, sys
area = mmap.mmap(-1, 8 * 4096)
for n in range(8):
    area[n * 4096:(n + 1) * 4096] = bytes([n + 1]) * 4096
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
ctypes.CDLL(None).munmap(ctypes.c_void_p(at + 5 * 4096), ctypes.c_size_t(4096))
print(at, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    """Start the child; return it and the address of its pages."""
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def reader(process, by_file=False):
    memory = GuestMemory(Host(), process.pid)
    if by_file:
        memory._readv = None
    return memory


def read(memory, frames, slots):
    try:
        return memory.read(frames, slots)
    except NoRight as error:
        pytest.skip(f"this machine does not let us read another process: {error}")


@pytest.mark.parametrize("by_file", [False, True])
def test_each_frame_is_what_stands_in_it(child, by_file):
    process, address = child
    slots = [Slot(100, 4, address, LOGGED), Slot(1 << 20, 4, address + 4 * PAGE, LOGGED)]
    frames = [103, 100, (1 << 20) + 3, 1 << 20]
    pages = read(reader(process, by_file), frames, slots)
    assert [page[0] for page in pages] == [4, 1, 8, 5]
    assert all(len(page) == PAGE and page == page[:1] * PAGE for page in pages)


@pytest.mark.parametrize("by_file", [False, True])
def test_a_hole_is_none_and_what_follows_is_read(child, by_file):
    process, address = child
    slots = [Slot(0, PAGES, address, LOGGED)]
    pages = read(reader(process, by_file), [5, 4, 5, 6, 7, 5], slots)
    assert [page and page[0] for page in pages] == [None, 5, None, 7, 8, None]


def test_a_frame_beyond_all_slots_is_none(child):
    process, address = child
    slots = [Slot(10, 2, address, LOGGED), Slot(20, 2, address + 2 * PAGE, LOGGED)]
    pages = read(reader(process), [9, 10, 12, 19, 21, 22, 1 << 51], slots)
    assert [page and page[0] for page in pages] == [None, 1, None, None, 4, None, None]
    assert read(reader(process), [10], []) == [None]


def test_more_frames_than_one_call_takes(child):
    process, address = child
    slots = [Slot(0, PAGES, address, LOGGED)]
    frames = [n % PAGES for n in range(2 * AT_ONCE + 3)]
    pages = read(reader(process), frames, slots)
    expected = [None if n == 5 else n + 1 for n in frames]
    assert [page and page[0] for page in pages] == expected


@pytest.mark.parametrize("by_file", [False, True])
def test_a_vm_that_has_ended_is_an_error(child, by_file):
    process, address = child
    memory, slots = reader(process, by_file), [Slot(0, PAGES, address, LOGGED)]
    read(memory, [0], slots)
    process.kill()
    process.wait()
    with pytest.raises(VmmGone) as gone:
        memory.read([0], slots)
    assert gone.value.pid == process.pid


def test_a_slot_that_moves_is_read_at_its_new_place(child):
    process, address = child
    memory = reader(process)
    assert read(memory, [0], [Slot(0, 1, address, LOGGED)])[0][0] == 1
    assert read(memory, [0, 7], [Slot(7, 1, address, LOGGED)])[0] is None
    assert read(memory, [7], [Slot(7, 1, address + 2 * PAGE, LOGGED)])[0][0] == 3


def test_our_own_memory_can_be_read():
    import os

    area = mmap.mmap(-1, 2 * PAGE)
    area[PAGE : 2 * PAGE] = b"\7" * PAGE
    view = ctypes.c_char.from_buffer(area)
    memory = GuestMemory(Host(), os.getpid())
    pages = memory.read([1], [Slot(0, 2, ctypes.addressof(view), LOGGED)])
    del view
    assert pages == [b"\7" * PAGE]


def test_slots_of_system_management_mode_hold_no_memory():
    low, high = Slot(0, 1, 4096, 0), Slot(9, 1, 8192, 0)
    assert memory_slots({1: high, 0: low, 1 << 16: Slot(3, 1, 1, 0)}) == [low, high]


def test_a_host_made_of_files_has_memory_in_a_file(tmp_path):
    folder = tmp_path / "proc/4711"
    folder.mkdir(parents=True)
    (folder / "mem").write_bytes(bytes(PAGE) + b"\2" * PAGE + b"cut")
    memory = GuestMemory(Host(Path(tmp_path)), 4711)
    assert memory.read([0, 1, 2, 3], [Slot(0, 4, 0, 0)]) == [bytes(PAGE), b"\2" * PAGE, None, None]
