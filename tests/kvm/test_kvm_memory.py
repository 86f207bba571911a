# SPDX-License-Identifier: Apache-2.0
"""Without tracing: soft-dirty bits and the aging of MGLRU, from files that tests write."""

import struct
import threading
import time

import fake_kvm
import pytest
from waiting import until

from pmlkit.errors import NotATrace, PmlkitError
from pmlkit.kvm import agent, find, memory
from pmlkit.kvm.job import Job
from pmlkit.sources.ingest import ingest
from pmlkit.sources.kvm.watch import KvmWatcher
from pmlkit.sources.watch import Follower
from pmlkit.spool import FRAMES_FILE

PAGES, START = 1 << 13, 0x7F00_0000_0000


@pytest.fixture
def kvm(tmp_path):
    kvm = fake_kvm.FakeKvm(tmp_path / "host", "6.12.1")
    folder = kvm.root / f"proc/{kvm.pid}"
    end = START + (PAGES << 12)
    (folder / "maps").write_text(
        "400000-500000 r-xp 0 0 0 qemu\n"
        f"{START - (4 << 12):x}-{START:x} rw-p 0 0 0 [heap]\n"
        f"{START:x}-{end:x} rw-s 0 0 0 /memfd:ram\n"
    )
    (folder / "clear_refs").write_text("")
    (folder / "cgroup").write_text("0::/vm.slice/web1\n")
    with open(folder / "pagemap", "wb") as file:
        file.truncate((START >> 12) * 8 + 8 * PAGES)
    return kvm


def set_dirty(kvm, frames):
    with open(kvm.root / f"proc/{kvm.pid}/pagemap", "r+b") as file:
        file.seek((START >> 12) * 8)
        file.write(bytes(8 * PAGES))
        for frame in frames:
            file.seek(((START >> 12) + frame) * 8)
            file.write(struct.pack("<Q", 1 << 63 | 1 << 55 | 1234))


def collected(kvm, tmp_path, **job):
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    job = Job(vm="web1", spool=str(folder / FRAMES_FILE), **job)
    return agent.collect(job, host=kvm.host), folder


def test_soft_dirty_pages_are_a_trace(kvm, tmp_path):
    set_dirty(kvm, [0, 5, PAGES - 1])
    end, folder = collected(kvm, tmp_path, mode="soft-dirty", rounds=2, period_s=0.05)
    assert end == {"complete": True, "why": "all rounds are complete", "rounds": 2}
    assert (kvm.root / f"proc/{kvm.pid}/clear_refs").read_text() == "4"
    trace = ingest(folder, tmp_path / "x.trace")
    trace.check()
    assert trace.to_pandas().gfn.tolist() == [0, 5, PAGES - 1] * 2
    assert trace.meta.domain["memory_bytes"] == PAGES << 12
    assert trace.rounds.asked_ns.tolist() == [50_000_000] * 2
    assert any("soft-dirty bits" in note for note in trace.meta.notes)


def test_soft_dirty_bits_that_may_not_be_seen_are_an_error(kvm, tmp_path):
    (kvm.root / f"proc/{kvm.pid}/maps").unlink()
    with pytest.raises(find.NoRight, match="CAP_SYS_PTRACE"):
        collected(kvm, tmp_path, mode="soft-dirty")


def test_a_vm_that_ends_ends_it(kvm, tmp_path):
    clear = kvm.root / f"proc/{kvm.pid}/clear_refs"

    def ends():
        until(clear.read_text)  # a round has begun
        kvm.end()

    threading.Thread(target=ends).start()
    end, _ = collected(kvm, tmp_path, mode="soft-dirty", period_s=0.05)
    assert end["why"] == "the VM has ended"
    assert end["complete"]


@pytest.mark.parametrize("short", [True, False])
def test_the_round_in_which_the_memory_is_given_up_is_not_kept(kvm, tmp_path, short):
    """The kernel refuses nothing then: there is less to read, and nothing to clear."""
    set_dirty(kvm, [1])
    clear = kvm.root / f"proc/{kvm.pid}/clear_refs"

    def ends():
        until(clear.read_text)  # a round has begun
        kvm.give_memory_up()
        if short:  # otherwise it ends after its bits were read
            with open(kvm.root / f"proc/{kvm.pid}/pagemap", "r+b") as file:
                file.truncate((START >> 12) * 8)

    threading.Thread(target=ends).start()
    end, folder = collected(kvm, tmp_path, mode="soft-dirty", period_s=0.5)
    assert end == {"complete": True, "why": "the VM has ended", "rounds": 0}


def test_it_ends_after_its_time(kvm, tmp_path):
    end, _ = collected(kvm, tmp_path, mode="soft-dirty", period_s=0.05, seconds=0.2)
    assert end["why"] == "0.2 s are over"


LRU = """memcg     1 /
 node     0
          0      99999          1          1
memcg    42 /vm.slice/web1
 node     0
          {0}      5000          {old}          0
          {1}       100          {touched}          9
          {2}         1          0          0
memcg    43 /vm.slice/web10
 node     0
          7      1          5000          5000
"""


def test_aging_counts_the_pages_of_the_generation_before_the_newest(kvm):
    path = kvm.root / "sys/kernel/debug/lru_gen"
    path.parent.mkdir(parents=True)
    asked = []

    class File:
        """The file, whose pages grow older when it is written."""

        first = 3

        def read_text(self):
            at = self.first
            return LRU.format(at, at + 1, at + 2, old=8000, touched=2561)

        def write_text(self, text):
            asked.append(text)
            self.first += 1

    path.write_text("")
    looker = memory.LruGen.__new__(memory.LruGen)
    looker._file, looker._group, looker._members = File(), "/vm.slice/web1", 1
    assert looker.end_round(0, None) == 2570
    assert looker.end_round(1, None) == 2570
    assert asked == ["+ 42 0 5 1 1\n", "+ 42 0 6 1 1\n"]


def test_a_kernel_whose_aging_sees_no_guest_is_refused(tmp_path):
    kvm = fake_kvm.FakeKvm(tmp_path / "host", "6.1.0")
    with pytest.raises(
        PmlkitError, match="does not see the guest's accesses: Linux 6.12 or later does"
    ):
        agent.collect(Job(vm="web1", mode="lru-gen"), host=kvm.host)


def test_what_aging_needs_is_named(kvm):
    job = Job(vm="web1", mode="lru-gen")
    with pytest.raises(PmlkitError, match="this kernel has no MGLRU.*: use --mode log"):
        agent.collect(job, host=kvm.host)
    kvm._write("sys/kernel/mm/lru_gen/enabled", "0x0007")
    with pytest.raises(PmlkitError, match="debugfs is not mounted, or has no lru_gen: mount -t"):
        agent.collect(job, host=kvm.host)
    path = kvm.root / "sys/kernel/debug/lru_gen"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("memcg     1 /\n node     0\n  0  1  1  1\n")
    with pytest.raises(PmlkitError, match="MGLRU has no control group /vm.slice/web1"):
        agent.collect(job, host=kvm.host)
    (kvm.root / f"proc/{kvm.pid}/cgroup").write_text("1:memory:/x\n")
    with pytest.raises(PmlkitError, match="in no control group of version 2"):
        agent.collect(job, host=kvm.host)


class Aging:
    """A thread that lets the kernel's file grow older when it is written."""

    def __init__(self, path, touched):
        self.path, self.touched, self.first = path, list(touched), 3
        self.show(0)
        threading.Thread(target=self._run, daemon=True).start()

    def show(self, touched):
        at = self.first
        text = LRU.format(at, at + 1, at + 2, old=8000, touched=max(touched - 9, 0))
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self.path)

    def _run(self):
        while self.touched:
            if self.path.read_text().startswith("+"):
                self.first += 1
                self.show(self.touched.pop(0))
            time.sleep(0.0005)


def test_sizes_by_aging_are_a_table(kvm, tmp_path, monkeypatch):
    """The first aging only begins; a table has what came between the others."""
    path = kvm.root / "sys/kernel/debug/lru_gen"
    path.parent.mkdir(parents=True)
    aging = Aging(path, [77, 2570, 10, 300])

    def aged(looker):
        before = aging.first
        result = memory.LruGen._table(looker)
        path.write_text(f"+ {result[0]} 0 {max(result[1][0])} 1 1\n")
        while aging.first == before or path.read_text().startswith("+"):
            time.sleep(0.001)
        _, after = looker._table()
        return sum(g.get(max(g) - 1, 0) for g in after.values())

    monkeypatch.setattr(memory.LruGen, "_age", aged)
    end, folder = collected(kvm, tmp_path, mode="lru-gen", rounds=3, period_s=0.05)
    assert end["rounds"] == 3
    follower = Follower(folder / FRAMES_FILE, KvmWatcher)
    rounds = list(follower.poll())
    assert [seen.pages for seen in rounds] == [2570, 10, 300]
    # No page is listed and no entry is logged: nothing of them is known.
    unknown = [(seen.distinct, seen.entries, seen.exits, seen.fill) for seen in rounds]
    assert unknown == [(None,) * 4] * 3
    follower.close()
    with pytest.raises(NotATrace, match="no trace: it contains sizes from the aging of MGLRU"):
        ingest(folder, tmp_path / "x.trace")
