# SPDX-License-Identifier: Apache-2.0
"""From logged frames to marks of page tables in a trace; the host is a folder."""

import struct

import fake_kvm
import numpy as np
import pytest
import spool_fuzz
from fake_kvm import CALLS, LOG, REGION, RESET, call, dirty, done
from test_kvm_collecting import Run, rearm
from test_kvm_tables import Memory
from waiting import until

from pmlkit import pagetables, reads
from pmlkit.errors import NotUnderstood
from pmlkit.kvm import tables
from pmlkit.kvm.frames import LOOK_HEAD, SET_HEAD, Frame, pack_json, words
from pmlkit.kvm.rounds import LOGGED
from pmlkit.sources.kvm.stream import KvmStream
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool

ADDRESS = 1 << 20  # of the guest's memory in the VMM's
PAGES = 9000


@pytest.fixture
def kvm(tmp_path, monkeypatch):
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    kvm.install(monkeypatch.setattr)
    kvm.looked, close = [], tables._Look.close

    def counted(look, *arguments):
        close(look, *arguments)
        kvm.looked.append(look.number)

    monkeypatch.setattr(tables._Look, "close", counted)
    return kvm


@pytest.fixture
def memory(kvm):
    """Return a guest's memory: an address space, and data; the VMM's file has it."""
    memory = Memory(4)
    root = memory.root()
    for page in range(40):
        memory.map(root, page, 5000 + page)
    memory.data(5000, [3])
    memory.data(5001, [0x6F72_6220_6B63_6975] * 512)
    store(kvm, memory)
    return memory


def store(kvm, memory, pages=PAGES, address=ADDRESS):
    with open(kvm.root / f"proc/{kvm.pid}/mem", "wb") as file:
        file.truncate(address + pages * 4096)
        for gfn, words in memory.pages.items():
            file.seek(address + gfn * 4096)
            file.write(struct.pack("<512Q", *words))


def region(kvm, at, first=0, pages=PAGES, address=ADDRESS, slot=0, flags=LOGGED):
    values = (slot, flags, first * 4096, pages * 4096, address)
    kvm.feed(CALLS, 0, [call(at, 4711, REGION, values), done(at + 10, 4711)])


def feeder(kvm, rounds, wait=True, **slot):
    """Return a feeder: rounds of frames, after the VMM has set its memory.

    With `wait` a round begins when the frames of the one before have been looked at.
    """

    def feed(now):
        region(kvm, now, **slot)
        at = now + 1000
        rearm(kvm, RESET, at)
        for number, frames in enumerate(rounds):
            events = [dirty(at + 2000 + n, 4712, frame) for n, frame in enumerate(frames)]
            for first in range(0, len(events), 100):
                kvm.feed(LOG, 0, events[first : first + 100])
            at += 2000 + len(frames) + 2000
            rearm(kvm, RESET, at)
            if wait:
                until(lambda: number in kvm.looked)  # noqa: B023

    return feed


def marks(trace):
    """Return the levels of the tables that each round marks."""
    rows = pagetables.logged(trace)
    return [
        dict(zip(part.table.tolist(), part.level.tolist(), strict=True))
        for _, part in rows.groupby("round")
    ]


def test_tables_are_marked_and_data_is_not(kvm, memory, tmp_path):
    frames = sorted(memory.pages)
    run = Run(kvm, tmp_path, feeder(kvm, [frames, frames[:2] + [5000]]), rounds=2, marks=False)
    run()
    trace = run.trace()
    assert marks(trace)[0] == memory.levels
    entries = trace.to_pandas()
    assert (entries[entries.gfn >= 5000].kind[:2] == 2).all()  # written data
    assert not trace.pml.has_tables
    assert any("read up to" in note for note in trace.meta.notes)


def test_data_that_looks_like_a_table_takes_few_bytes(kvm, memory, tmp_path):
    """Over a slow line, a round of 600 counters in whole pages took minutes."""
    for n in range(600):
        memory.data(6000 + n, [n | 1])
    store(kvm, memory)
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.pages)]), rounds=1, marks=False)
    run()
    with read_spool(run.folder / FRAMES_FILE) as spool:
        looks = [payload for kind, payload in spool if kind == Frame.LOOK]
    candidates = [words for gfn, words in memory.pages.items() if gfn != 5001]  # that is text
    entries = sum(word & 1 for words in candidates for word in words)
    size = LOOK_HEAD.size * 2 + 9 * len(memory.pages) + 2 * len(candidates) + 10 * entries
    assert sum(map(len, looks)) == size == 13120
    assert marks(run.trace())[0] == memory.levels


def test_snapshots_are_what_stood_in_the_tables(kvm, memory, tmp_path):
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.pages)]), rounds=1, marks=False,
              page_tables="snapshot")  # fmt: skip
    run()
    rows = pagetables.entries(run.trace())
    leaf = rows[rows.level == 1]
    assert leaf.target.tolist() == list(range(5000, 5040))
    assert leaf["index"].tolist() == list(range(40))
    upper = rows[rows.level > 1].set_index("level").target.to_dict()
    by_level = {level: gfn for gfn, level in memory.levels.items()}
    assert upper == {4: by_level[3], 3: by_level[2], 2: by_level[1]}


def test_reads_estimates_of_it(kvm, memory, tmp_path):
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.pages)] * 2), rounds=2, marks=False,
              page_tables="snapshot")  # fmt: skip
    run()
    trace = run.trace()
    for method, pages in (("written", 2), ("leaves", 512), ("present", 40), ("accessed", 40)):
        assert reads.estimate(trace, method).pages.tolist() == [pages] * 2, method


def test_page_tables_may_be_left_alone(kvm, memory, tmp_path):
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.pages)], wait=False), rounds=1,
              marks=False, page_tables="off")  # fmt: skip
    run()
    trace = run.trace()
    assert not pagetables.is_marked(trace)
    assert (trace.to_pandas().kind == 0).all()


def test_what_is_not_looked_at_is_counted(kvm, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_FRAMES", 6)
    frames = [*sorted(memory.levels), 5000, 5001, 7000, 7001, 7002]
    run = Run(kvm, tmp_path, feeder(kvm, [frames]), rounds=1, marks=False)
    run()
    trace = run.trace()
    assert marks(trace) == [memory.levels]
    assert "3 logged frames of 1 rounds were not examined" in trace.meta.notes
    entries = trace.to_pandas()
    assert set(entries[entries.gfn >= 5000].kind) == {0}  # it is not known what these are
    (row,) = reads.estimate(trace, "leaves").to_dict("records")
    assert row["high"] == trace.memory_pages
    assert row["why"].startswith("some logged frames were not examined")


def test_known_candidates_are_looked_at_first(kvm, memory, tmp_path, monkeypatch):
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.levels), [8000, 8001, *memory.levels]]),
              rounds=2, marks=False)  # fmt: skip
    monkeypatch.setattr(tables, "MOST_FRAMES", 4)
    run()
    assert marks(run.trace()) == [memory.levels] * 2


def test_a_look_ends_with_the_next_round(kvm, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "AT_ONCE", 1)
    step = tables._Look.step

    def slow(look, *arguments):
        if look.number == 0 and look._at == 2:  # the next round ends in the middle of this look
            rearm(kvm, RESET, kvm.now + 1_000_000)
        return step(look, *arguments)

    monkeypatch.setattr(tables._Look, "step", slow)
    feed = feeder(kvm, [sorted(memory.levels)], wait=False)

    def now(at):
        kvm.now = at
        feed(at)

    run = Run(kvm, tmp_path, now, rounds=2, marks=False)
    run()
    trace = run.trace()
    assert trace.n_rounds == 2
    assert not any("shorter than requested" in note for note in trace.meta.notes)
    assert any("logged frames of 1 rounds were not examined" in n for n in trace.meta.notes)


def test_if_rounds_pass_at_once_the_last_is_looked_at(kvm, memory, tmp_path):
    frames = sorted(memory.levels)
    run = Run(kvm, tmp_path, feeder(kvm, [frames] * 3, wait=False), rounds=3, marks=False)
    run()
    trace = run.trace()
    entries = trace.to_pandas()
    marked = entries[entries.kind >= 16]["round"].unique().tolist()
    assert 2 in marked
    assert sorted(kvm.looked) == [0, 1, 2]


def test_frames_beyond_the_slots_could_not_be_read(kvm, memory, tmp_path):
    run = Run(kvm, tmp_path, feeder(kvm, [[*sorted(memory.pages), 8990]], pages=8000), rounds=1,
              marks=False)  # fmt: skip
    run()
    trace = run.trace()
    assert marks(trace) == [memory.levels]
    assert "1 logged frames could not be read from the VMM's memory" in trace.meta.notes


def test_memory_that_moves_is_read_at_its_new_place(kvm, memory, tmp_path):
    frames = sorted(memory.pages)
    feed = feeder(kvm, [frames], address=1 << 40)  # nothing is there

    def moved(now):
        feed(now)
        region(kvm, now + 50_000)
        rearm(kvm, RESET, now + 60_000)
        kvm.feed(LOG, 0, [dirty(now + 70_000 + n, 4712, gfn) for n, gfn in enumerate(frames)])
        rearm(kvm, RESET, now + 80_000)

    run = Run(kvm, tmp_path, moved, marks=False, rounds=3)
    run()
    trace = run.trace()
    assert marks(trace)[-1] == memory.levels


def test_a_vm_that_ends_in_the_middle_leaves_a_trace(kvm, memory, tmp_path):
    feed = feeder(kvm, [sorted(memory.pages)] * 2)

    def ends(now):
        feed(now)
        kvm.end()

    run = Run(kvm, tmp_path, ends, rounds=9, marks=False)
    assert run()["why"] == "the VM has ended"
    assert marks(run.trace())[0] == memory.levels


def test_without_memory_slots_it_says_so(kvm, memory, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        kvm.feed(LOG, 0, [dirty(now + 2000, 4712, 1000)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1, marks=False)
    run()
    assert any("the VMM set its memory up before" in note for note in run.trace().meta.notes)


def test_frames_of_a_page_at_once_are_those_one_by_one():
    import tracedat

    from pmlkit.ftrace import events, layout_of, numbers

    layout = layout_of(tracedat.HEADER_PAGE.decode())
    rng = np.random.default_rng(3)
    for case in range(20):
        times = np.cumsum(rng.integers(0, 1 << (10 + 2 * case), 50)).tolist()
        log = [dirty(1000 + t, 4712, int(g)) for t, g in
               zip(times, rng.integers(0, 1 << (20 + case), 50), strict=True)]  # fmt: skip
        page = tracedat.page(log, None)
        since, values = numbers(page, layout, 16, 8)
        assert values == [int.from_bytes(data[16:24], "little") for _, data in events(page, layout)]
        assert len(values) == 50
        assert since <= min(time for time, _ in events(page, layout))


ROUND = {"round": 0, "start_ns": 10, "end_ns": 20}
LOOKED = {"round": 0, "logged": 2, "left": 0, "holes": 0, "ns": 30, "slots": [[0, 100]]}
KEPT = struct.pack("<HHHQQ", 2, 3, 511, 1 << 12 | 1, 1 << 63 | 1)


def look(number=0, frames=(1, 2), states=(2, 0), kept=KEPT, count=None):
    head = LOOK_HEAD.pack(number, len(frames) if count is None else count)
    return head + words(frames) + bytes(states) + kept


def stream_with(*frames):
    stream = KvmStream(spool_fuzz.KVM_HEADER)
    for kind, payload in ((Frame.ROUND, pack_json(**ROUND)), *frames):
        taken = stream.take(kind, payload)
    return taken


def test_a_look_is_decoded():
    taken = stream_with((Frame.LOOK, look()))
    assert (taken.frames.tolist(), taken.states.tolist()) == ([1, 2], [2, 0])
    assert taken.words.shape == (1, 512)
    assert np.flatnonzero(taken.words[0]).tolist() == [3, 511]
    assert taken.words[0, [3, 511]].tolist() == [1 << 12 | 1, 1 << 63 | 1]
    over = stream_with((Frame.LOOK, look()), (Frame.LOOKED, pack_json(**LOOKED)))
    assert (over.logged, over.slots.tolist()) == (2, [[0, 100]])


@pytest.mark.parametrize(
    "frames",
    [
        [(Frame.LOOK, look(number=1))],
        [(Frame.LOOK, look()[:5])],
        [(Frame.LOOK, look(count=1 << 31))],
        [(Frame.LOOK, look(kept=b""))],
        [(Frame.LOOK, look(kept=KEPT[:-1]))],
        [(Frame.LOOK, look(kept=KEPT * 2))],
        [(Frame.LOOK, look(kept=struct.pack("<HHQ", 1, 512, 1)))],
        [(Frame.LOOK, look(frames=range(9000), states=[2] * 9000, kept=bytes(18000)))],
        [(Frame.LOOK, look(frames=range(5000), states=[2] * 5000, kept=bytes(10000)))] * 2,
        [(Frame.LOOK, look(states=(2, 4)))],
        [(Frame.LOOK, look(frames=(1 << 40, 2)))],
        [(Frame.LOOKED, pack_json(**LOOKED)), (Frame.LOOK, look())],
        [(Frame.LOOKED, pack_json(**LOOKED)), (Frame.LOOKED, pack_json(**LOOKED))],
        [(Frame.LOOKED, pack_json(**{**LOOKED, "round": 1}))],
        [(Frame.LOOKED, pack_json(**{**LOOKED, "left": 3}))],
        [(Frame.LOOKED, pack_json(**{**LOOKED, "ns": 3}))],
        [(Frame.LOOKED, pack_json(**{**LOOKED, "slots": [[0, -1]]}))],
        [(Frame.LOOKED, pack_json(**{**LOOKED, "slots": "all"}))],
        [(Frame.SAMPLE, SET_HEAD.pack(1, 0))],
        [(Frame.SAMPLE, SET_HEAD.pack(0, 0) + words([2, 1]))],
        [(Frame.SAMPLE, SET_HEAD.pack(0, 0) + words([1 << 40]))],
        [(Frame.SAMPLE, SET_HEAD.pack(0, 0)), (Frame.SAMPLE, SET_HEAD.pack(0, 0))],
    ],
)
def test_a_look_or_sample_that_cannot_be_is_not_understood(frames):
    with pytest.raises(NotUnderstood):
        stream_with(*frames)


def test_a_look_that_is_cut_off_leaves_its_round_unknown(kvm, memory, tmp_path):
    run = Run(kvm, tmp_path, feeder(kvm, [sorted(memory.pages)] * 2), rounds=2, marks=False)
    run()
    path = run.folder / FRAMES_FILE
    data = path.read_bytes()
    with read_spool(path) as spool:
        ends = [spool.offset for kind, _ in spool if kind == Frame.LOOKED]
    path.write_bytes(data[: ends[1] - 3])
    trace = run.trace()
    entries = trace.to_pandas()
    assert marks(trace) == [memory.levels]
    assert (entries[entries["round"] == 1].kind == 0).all()


def test_a_frame_that_no_table_leads_to_has_no_mark(kvm, memory, tmp_path):
    frames = [*sorted(memory.pages), 1 << 41]
    run = Run(kvm, tmp_path, feeder(kvm, [frames], pages=PAGES), rounds=1, marks=False)
    run()
    assert marks(run.trace()) == [memory.levels]
