# SPDX-License-Identifier: Apache-2.0
"""A sample of touched frames by idle flags; the kernel's files are a folder's."""

import struct

import fake_kvm
import numpy as np
import pytest
from fake_kvm import LOG, RESET, dirty
from test_kvm_collecting import Run, rearm
from test_kvm_looks import region
from waiting import until

from pmlkit import cli, reads
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.kvm import idle
from pmlkit.kvm.collector import now_ns
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.guest_memory import VmmGone
from pmlkit.kvm.idle import IdlePages
from pmlkit.kvm.job import Job
from pmlkit.kvm.rounds import Slot
from pmlkit.reads import draws
from pmlkit.trace.schema import DRAWN, SAMPLED

ADDRESS, PAGES = 1 << 20, 512
PFN = 70_000  # of the guest's first frame on the host
SLOT = Slot(1024, PAGES, ADDRESS, 1)


@pytest.fixture
def kvm(tmp_path, monkeypatch):
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    kvm.install(monkeypatch.setattr)
    map_pages(kvm, range(PAGES))
    (kvm.root / "sys/kernel/mm/page_idle").mkdir(parents=True)
    write(kvm.root / "sys/kernel/mm/page_idle/bitmap", bytes((PFN + PAGES) // 8 + 64))
    write(kvm.root / "proc/kpageflags", bytes(8 * (PFN + PAGES)))
    return kvm


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def map_pages(kvm, pages, pfn=lambda n: PFN + n):
    """Let the VMM have these pages of the guest."""
    words = [0] * PAGES
    for page in pages:
        words[page] = 1 << 63 | pfn(page)
    with open(kvm.root / f"proc/{kvm.pid}/pagemap", "wb") as file:
        file.seek(ADDRESS // 4096 * 8)
        file.write(struct.pack(f"<{PAGES}Q", *words))


def bitmap(kvm):
    return kvm.root / "sys/kernel/mm/page_idle/bitmap"


def flags(kvm):
    """Return the guest's frames that are flagged idle."""
    bits = np.unpackbits(np.frombuffer(bitmap(kvm).read_bytes(), np.uint8), bitorder="little")
    return {1024 + n for n in range(PAGES) if bits[PFN + n]}


def touch(kvm, frames):
    """Do what the kernel does when pages are accessed: they are idle no more."""
    data = bytearray(bitmap(kvm).read_bytes())
    for frame in frames:
        pfn = PFN + frame - 1024
        data[pfn // 8] &= ~(1 << pfn % 8)
    bitmap(kvm).write_bytes(data)


def sample_of(draw, one_in=16):
    frames = np.arange(1024, 1024 + PAGES, dtype=np.uint64)
    return set(frames[draws.chosen(frames, one_in, draw)].tolist())


@pytest.mark.parametrize("draw", [0, 1, 2, 77, 1 << 20])
@pytest.mark.parametrize("one_in", [2, 16, 512])
def test_the_draw_is_that_of_the_patched_xen(draw, one_in):
    groups = [*range(50), (1 << 40) - 1]
    theirs = draws.places(np.array(groups, np.uint64), one_in, draw).tolist()
    assert [idle.place(group, one_in, draw) for group in groups] == theirs


def test_the_sample_is_flagged_and_what_is_touched_is_found(kvm):
    pages = IdlePages(kvm.host, kvm.pid, 16, "round")
    pages.begin(3, [SLOT])
    chosen = sample_of(4)
    assert flags(kvm) == chosen
    touched = set(sorted(chosen)[::3])
    touch(kvm, touched)
    assert pages.end().tolist() == sorted(touched)
    assert pages.huge == 0


def test_a_fixed_sample_is_the_same_in_all_rounds(kvm):
    pages = IdlePages(kvm.host, kvm.pid, 16, "fixed")
    for number in (0, 5):
        bitmap(kvm).write_bytes(bytes(bitmap(kvm).stat().st_size))
        pages.begin(number, [SLOT])
        assert flags(kvm) == sample_of(0)


def test_a_page_that_the_vmm_has_not_yet_is_touched_when_it_has(kvm):
    chosen = sorted(sample_of(1))
    map_pages(kvm, [n for n in range(PAGES) if 1024 + n not in chosen[:2]])
    pages = IdlePages(kvm.host, kvm.pid, 16, "round")
    pages.begin(0, [SLOT])
    map_pages(kvm, [n for n in range(PAGES) if 1024 + n != chosen[1]])
    assert pages.end().tolist() == chosen[:1]


def test_a_page_that_the_kernel_moves_or_takes_is_not_touched_by_that(kvm):
    """The flag moves with the page; the one at the old place is gone."""
    chosen = sorted(sample_of(1))
    moved, taken, touched = chosen[0] - 1024, chosen[1] - 1024, chosen[2] - 1024
    new = {moved: PFN + PAGES + 40, touched: PFN + PAGES + 41}
    write(kvm.root / "proc/kpageflags", bytes(8 * (PFN + PAGES + 64)))
    pages = IdlePages(kvm.host, kvm.pid, 16, "round")
    pages.begin(0, [SLOT])
    map_pages(kvm, [n for n in range(PAGES) if n != taken], lambda n: new.get(n, PFN + n))
    touch(kvm, [1024 + n for n in (moved, taken, touched)])  # as the kernel frees the old pages
    data = bytearray(bitmap(kvm).read_bytes())
    data[new[moved] // 8] |= 1 << new[moved] % 8
    bitmap(kvm).write_bytes(data)
    assert pages.end().tolist() == [chosen[2]]


def test_a_vm_that_ended_meanwhile_has_no_sample(kvm):
    """The kernel frees its pages, and their flags with them; no page was touched by that."""
    pages = IdlePages(kvm.host, kvm.pid, 16, "round")
    pages.begin(0, [SLOT])
    write(kvm.root / f"proc/{kvm.pid}/pagemap", b"")
    bitmap(kvm).write_bytes(bytes(bitmap(kvm).stat().st_size))
    with pytest.raises(VmmGone):
        pages.end()


def test_under_a_huge_page_the_first_page_has_the_flag(kvm):
    head = PFN // 512 * 512 + 512
    map_pages(kvm, range(PAGES), lambda n: head + n)
    kpageflags = np.zeros(PFN + 3 * 512, np.uint64)
    kpageflags[head + 1 : head + 512] = 1 << 16
    write(kvm.root / "proc/kpageflags", kpageflags.tobytes())
    bitmap(kvm).write_bytes(bytes((PFN + 4 * 512) // 8))
    pages = IdlePages(kvm.host, kvm.pid, 16, "round")
    pages.begin(0, [SLOT])
    assert pages.huge >= len(sample_of(1)) - 1
    assert pages.end().tolist() == []
    pages.begin(0, [SLOT])
    bitmap(kvm).write_bytes(bytes((PFN + 4 * 512) // 8))
    assert pages.end().tolist() == sorted(sample_of(1))


def test_a_kernel_without_it_is_refused_in_one_line(kvm, tmp_path, capsys):
    bitmap(kvm).unlink()
    with pytest.raises(PmlkitError) as refused:
        IdlePages(kvm.host, kvm.pid, 16, "round")
    assert "CONFIG_IDLE_PAGE_TRACKING" in str(refused.value)
    run = Run(kvm, tmp_path, lambda now: None, harvest="sampled")
    with pytest.raises(PmlkitError, match="no idle page tracking"):
        from pmlkit.kvm import agent

        agent.collect(run.job, host=kvm.host)
    assert kvm.instances() == {}
    (kvm.root / "sys/kernel/mm/damon").mkdir(parents=True)
    with pytest.raises(PmlkitError, match="DAMON samples regions, not frames: boot a kernel with"):
        IdlePages(kvm.host, kvm.pid, 16, "round")


def test_places_that_are_hidden_need_a_right(kvm):
    map_pages(kvm, range(PAGES), lambda n: 0)
    with pytest.raises(NoRight, match="CAP_SYS_ADMIN"):
        IdlePages(kvm.host, kvm.pid, 16, "round").begin(0, [SLOT])


def test_memory_of_hugetlbfs_is_refused(kvm):
    write(kvm.root / "proc/kpageflags", (np.ones(PFN + PAGES, np.uint64) << 17).tobytes())
    with pytest.raises(PmlkitError, match="hugetlbfs"):
        IdlePages(kvm.host, kvm.pid, 16, "round").begin(0, [SLOT])


def sampled_rounds(kvm, touched):
    """Return a feeder: in each round the guest touches frames, and writes the first of them."""

    def feed(now):
        region(kvm, now, first=1024, pages=PAGES)
        at = now + 1000
        rearm(kvm, RESET, at)
        for number, frames in enumerate(touched):
            until(lambda: flags(kvm) >= sample_of(number + 1))  # noqa: B023
            touch(kvm, frames)
            at = now_ns()
            kvm.feed(LOG, 0, [dirty(at, 4712, frames[0])])
            rearm(kvm, RESET, at + 1000)

    return feed


def test_a_sample_is_nested_in_the_trace_and_reads_estimates_with_it(kvm, tmp_path):
    frames = list(range(1024, 1024 + 256))
    run = Run(kvm, tmp_path, sampled_rounds(kvm, [frames, frames[:64]]), rounds=2, marks=False,
              harvest="sampled", page_tables="off")  # fmt: skip
    run()
    trace = run.trace()
    sample = trace.sample
    assert sample.meta.options[SAMPLED] == 16
    assert sample.meta.options[DRAWN] == "round"
    found = [set(part.gfn) for _, part in sample.to_pandas().groupby("round")]
    assert found == [sample_of(1) & set(frames), sample_of(2) & set(frames[:64])]
    kinds = sample.to_pandas().set_index("gfn").kind
    assert set(kinds[kinds.index != 1024]) == {1}
    assert any("idle flags of the host's pages" in note for note in sample.meta.notes)
    rows = reads.estimate(trace, "sample")
    # Each frame that was found, but for the one that was written, stands for 16.
    expected = [16 * len(one - {1024}) + 1 for one in found]
    assert rows.pages.tolist() == expected
    assert abs(rows.pages[0] - 256) <= 32


def test_what_is_touched_between_measurements_is_in_no_round(kvm, tmp_path):
    between, inside = sorted(sample_of(2))[:8], sorted(sample_of(2))[8:12]

    def feed(now):
        region(kvm, now, first=1024, pages=PAGES)
        rearm(kvm, RESET, now + 1000)
        until(lambda: flags(kvm) >= sample_of(1))
        rearm(kvm, RESET, now_ns())
        until(lambda: flags(kvm) >= sample_of(2))  # flagged for the round that is broken off
        region(kvm, now_ns(), first=1024, pages=PAGES, flags=0)
        touch(kvm, between)
        region(kvm, now_ns(), first=1024, pages=PAGES)
        rearm(kvm, RESET, now_ns())
        until(lambda: flags(kvm) >= sample_of(2))  # and again for the one that is closed
        touch(kvm, inside)
        kvm.feed(LOG, 0, [dirty(now_ns(), 4712, 1024)])
        rearm(kvm, RESET, now_ns())

    run = Run(kvm, tmp_path, feed, rounds=2, marks=False, harvest="sampled", page_tables="off")
    run()
    found = [set(part.gfn) for _, part in run.trace().sample.to_pandas().groupby("round")]
    assert found[-1] == set(inside)


def test_rounds_that_pass_too_fast_have_no_sample(kvm, tmp_path):
    def feed(now):
        region(kvm, now, first=1024, pages=PAGES)
        for n in range(4):
            rearm(kvm, RESET, now + 1000 + 10_000 * n)

    run = Run(kvm, tmp_path, feed, rounds=3, marks=False, harvest="sampled")
    run()
    assert run.trace().sample is None


def test_options(kvm, capsys):
    with pytest.raises(UsageError, match="not possible: give a power of 2"):
        Job(one_in=3)
    with pytest.raises(UsageError, match="leave --harvest out"):
        Job(harvest="sampled", mode="lru-gen")
    words = ["collect", "--kvm", "web1", "-o", "x.trace", "--harvest", "pruned"]
    assert cli.main(words) == 2
    assert "KVM supports --harvest sampled" in capsys.readouterr().err
