# SPDX-License-Identifier: Apache-2.0
"""Page tables told apart by what stands in them, against tables that tests lay out."""

import struct

import numpy as np
import pytest

from pmlkit.kvm.frames import CANDIDATE, EMPTY, HOLE, OTHER
from pmlkit.kvm.tables import present_of, state_of
from pmlkit.sources.kvm.stream import Look, Looked
from pmlkit.sources.kvm.tables import DEPTHS, Candidates, Tables, find_tables, table_rows
from pmlkit.trace.kinds import Kind

P, W, U, A, D, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
SLOTS = np.array([[0, 1 << 16]], np.uint64)


class Memory:
    """Frames of a guest as they are logged in a round."""

    def __init__(self, depth):
        self.depth, self.pages, self.levels, self._next = depth, {}, {}, 1000

    def table(self, level):
        gfn, self._next = self._next, self._next + 1
        self.pages[gfn], self.levels[gfn] = [0] * 512, level
        return gfn

    def root(self):
        return self.table(self.depth)

    def map(self, root, page, gfn, flags=P | W | U | A, large=False):
        """Map a page, by used entries; returns its leaf table."""
        table, last = root, 2 if large else 1
        for level in range(self.depth, last, -1):
            index = page >> 9 * (level - 1) & 511
            if not self.pages[table][index]:
                self.pages[table][index] = self.table(level - 1) << 12 | P | W | U | A
            table = self.pages[table][index] >> 12
        self.pages[table][page >> 9 * (last - 1) & 511] = gfn << 12 | flags | LARGE * large
        return table

    def data(self, gfn, words):
        self.pages[gfn] = [*words, *[0] * (512 - len(words))]

    def look(self, order=None, unread=()):
        """Return what the agent finds."""
        frames = order or sorted(self.pages)
        pages = [struct.pack("<512Q", *self.pages[gfn]) for gfn in frames]
        states = [HOLE if g in unread else state_of(p) for g, p in zip(frames, pages, strict=True)]
        kept = [present_of(p) for p, s in zip(pages, states, strict=True) if s == CANDIDATE]
        words = np.zeros((len(kept), 512), np.uint64)
        for row, (places, entries) in zip(words, kept, strict=True):
            row[places] = entries
        return Look(0, np.array(frames, np.uint64), np.array(states, np.uint8), words)


def found(memory, depth=None, **how):
    got = find_tables(Candidates(memory.look(**how), SLOTS), depth or memory.depth)
    return dict(zip(got.frames.tolist(), got.levels.tolist(), strict=True))


def guest(depth=4, spaces=3):
    """Return memory with some address spaces and data of many kinds."""
    memory = Memory(depth)
    for space in range(spaces):
        root = memory.root()
        for page in range(space, 4000, 97):
            memory.map(root, page, 5000 + page)
        memory.map(root, 1 << 14 | space, 8192, large=True)
    memory.data(5001, [1, 2, 3, 5, 7, 33, 35])  # small numbers
    memory.data(5002, range(512))
    memory.data(5003, [0x7FFF_1234_5678_9ABC + 8 * n for n in range(512)])  # pointers of programs
    memory.data(5004, [0xFFFF_8880_0000_1021 + 64 * n for n in range(512)])  # of the kernel
    memory.data(5005, [0x6F72_6220_6B63_6975] * 512)  # text
    memory.data(5006, np.random.default_rng(1).integers(0, 1 << 63, 512).tolist())
    memory.data(5007, [])
    memory.data(5008, [3])  # a counter
    return memory


@pytest.mark.parametrize("depth", DEPTHS)
def test_all_tables_are_found_with_their_levels_and_no_data_is(depth):
    memory = guest(depth)
    assert found(memory) == memory.levels


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_order_of_the_log_does_not_matter(depth):
    memory = guest(depth)
    order = np.random.default_rng(2).permutation(sorted(memory.pages)).tolist()
    assert found(memory, order=order) == memory.levels


def test_tables_that_were_not_logged_are_not_found_nor_needed():
    memory = guest()
    leaf = next(gfn for gfn, level in memory.levels.items() if level == 1)
    del memory.pages[leaf], memory.levels[leaf]
    assert found(memory) == memory.levels


def test_without_a_root_nothing_is_found():
    memory = guest(spaces=1)
    root = next(gfn for gfn, level in memory.levels.items() if level == 4)
    del memory.pages[root]
    assert found(memory) == {}


def test_a_guest_of_numbers_has_no_tables():
    memory = Memory(4)
    for n in range(300):  # as a guest of the kit writes its round's number into each page
        memory.data(4096 + n, [35])
    for depth in DEPTHS:
        assert found(memory, depth) == {}


def test_a_table_whose_entries_were_not_used_is_found_below_its_root():
    memory = guest()
    root = next(gfn for gfn, level in memory.levels.items() if level == 4)
    leaf = memory.map(root, 300 << 9, 77, flags=P | W | U)
    memory.pages[leaf][12] = 0
    assert found(memory)[leaf] == 1


def test_an_emptied_table_is_found_below_its_root():
    memory = guest()
    leaf = next(gfn for gfn, level in memory.levels.items() if level == 1)
    memory.pages[leaf] = [0] * 512
    assert found(memory)[leaf] == 1


def test_a_table_that_maps_itself_is_a_root():
    memory = guest()
    root = next(gfn for gfn, level in memory.levels.items() if level == 4)
    memory.pages[root][493] = root << 12 | P | W | A | D  # as Windows does
    assert found(memory) == memory.levels


def test_swapped_pages_may_have_any_bits():
    memory = guest()
    leaf = next(gfn for gfn, level in memory.levels.items() if level == 1)
    memory.pages[leaf][500:] = [0xFFFF_FFFF_FFFF_F000] * 12
    assert found(memory) == memory.levels


def test_what_could_not_be_read_is_no_table_and_hides_no_other():
    memory = guest()
    leaf = next(gfn for gfn, level in memory.levels.items() if level == 1)
    got = found(memory, unread={leaf})
    del memory.levels[leaf]
    assert got == memory.levels


def test_states_of_pages():
    assert state_of(bytes(4096)) == EMPTY
    assert state_of(struct.pack("<512Q", *[2] * 512)) == EMPTY
    assert state_of(struct.pack("<512Q", *[0] * 511, 5 << 12 | P)) == CANDIDATE
    assert state_of(struct.pack("<512Q", *[1 << 51 | 2] * 511, 5 << 12 | P)) == CANDIDATE
    for bit in range(48, 52):
        assert state_of(struct.pack("<512Q", *[0] * 511, 1 << bit | P)) == OTHER
    assert state_of(struct.pack("<512Q", *[0] * 511, 0xFFF << 52 | P)) == CANDIDATE


def test_what_is_present_of_a_page():
    page = struct.pack("<512Q", 5 << 12 | P, *[P << 1] * 510, 0xFFF << 52 | P)
    assert present_of(page) == ([0, 511], [5 << 12 | P, 0xFFF << 52 | P])
    assert present_of(bytes(4096)) == ([], [])
    assert present_of(b"\xff" * 4096) == (list(range(512)), [2**64 - 1] * 512)


def test_rows_of_a_snapshot():
    words = np.zeros(512, np.uint64)
    words[3] = 7 << 12 | P | A | U | D
    words[9] = 0xFFF << 52 | 8 << 12 | P | W
    words[10] = 9 << 12  # not present
    index, target, flags = table_rows(words, 1)
    assert (index.tolist(), target.tolist()) == ([3, 9], [7, 8])
    assert flags.tolist() == [1 | 2 | 4 | 8 | 0x20, 1 | 4 | 0x10]
    words[9] = 0x40_0000 | 1 << 12 | P | W | LARGE | D  # 2 MiB, with an attribute
    index, target, flags = table_rows(words, 2)
    assert target.tolist() == [7, 0x400]
    assert flags.tolist() == [1 | 2 | 0x20, 1 | 4 | 8 | 0x10]


def collected(looks, left=(), holes=()):
    """Return the tables of rounds, each of which was looked at."""
    tables = Tables()
    for number, memory in enumerate(looks):
        look = memory.look()._replace(round=number)
        tables.add(look, 0, 0)
        count = len(look.frames)
        looked = Looked(number, count, 3 * (number in left), number in holes, 7_000_000, SLOTS)
        tables.close(looked, 2_000_000)
    tables.decide()
    return tables


def test_kinds_of_entries():
    memory = guest()
    tables = collected([memory, memory])
    frames = sorted(memory.pages)
    gfns = np.array(frames * 2, np.uint64)
    rounds = np.repeat([0, 1], len(frames))
    expected = [int(Kind.PAGE_TABLE) | memory.levels[g] if g in memory.levels else int(Kind.WRITE)
                for g in frames]  # fmt: skip
    assert tables.depth == 4
    assert tables.kinds(rounds, gfns).tolist() == expected * 2


def test_what_was_not_looked_at_is_unknown_and_counted():
    memory = guest()
    tables = collected([memory] * 4, left={1}, holes={2})
    gfns = np.full(5, 60000, np.uint64)
    kinds = tables.kinds(np.arange(5), gfns)
    assert kinds.tolist() == [int(Kind.WRITE), 0, 0, int(Kind.WRITE), 0]
    notes = list(tables.notes())
    assert "read up to 5 ms after their round's end" in notes[0]
    assert "3 logged frames of 1 rounds were not examined" in notes
    assert "1 logged frames could not be read" in notes[2]


def test_one_round_of_data_that_looks_deeper_does_not_change_the_depth():
    memory = guest(spaces=1)
    strange = guest(spaces=1)
    top = strange.table(5)
    strange.pages[top][0] = 1000 << 12 | P | A | U
    tables = collected([memory, memory, strange, memory])
    assert tables.depth == 4


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_depth_is_the_guests_in_each_round(depth):
    tables = collected([guest(depth)] * 3)
    assert tables.depth == depth


def test_data_that_looks_like_leaf_tables_does_not_make_four_levels_five():
    """Pages of small numbers, or empty, beside a heap whose sizes look like entries."""
    memory = Memory(4)
    root = memory.root()
    for page in range(4000):
        memory.map(root, page, 5000 + page)
        memory.data(5000 + page, [page])
    memory.data(5001, [0x20D31])  # what a heap has left: an odd size
    memory.data(5002, [1 << 50 | 1])
    assert {5001, 5003} <= found(memory, 5).keys()
    tables = collected([memory] * 3)
    assert tables.depth == 4
    gfns = np.array(sorted(memory.levels), np.uint64)
    kinds = tables.kinds(np.zeros(len(gfns), np.int64), gfns)
    assert (kinds & 15).tolist() == [memory.levels[g] for g in gfns.tolist()]


def test_reads_only_of_five_levels_are_five():
    """No data is in the log, so that each logged frame is a table."""
    memory = guest(5)
    memory.pages = {gfn: memory.pages[gfn] for gfn in memory.levels}
    assert collected([memory] * 3).depth == 5


def test_a_guest_without_paging_says_so():
    memory = Memory(4)
    memory.data(4096, [35])
    tables = collected([memory])
    assert "no page tables were found" in next(tables.notes())
    assert tables.kinds(np.array([0]), np.array([4096], np.uint64)).tolist() == [0]
