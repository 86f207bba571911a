# SPDX-License-Identifier: Apache-2.0
"""Debian's own KVM in the lab: its log against guests whose answers are known.

`test_lab_kvm_grid` has the other guests, kernels and kinds of log; `test_lab_kvm_qemu` has QEMU.
"""

import numpy as np
import pytest
from lab_case import DIRECTORIES, LEAVES, data, frames, needs_lab, own, rounds

from experiments import kvm_costs
from pmlkit import pagetables, reads
from pmlkit.kvm.frames import LOG
from pmlkit.sources.kvm.stream import KvmStream, Pages
from pmlkit.sources.lab import selftest
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool
from pmlkit.trace.known import measure
from pmlkit.trace.schema import UNSEEN

pytestmark = [needs_lab, pytest.mark.timeout(1800)]


def monitors_counts(trace):
    """Return how many pages KVM gave the monitor in each round."""
    text = (trace.path.with_name(trace.path.name + ".spool") / "rounds.txt").read_text()
    return [int(line.split()[3]) for line in text.splitlines()]


def test_known_set_is_exact_in_every_round(kvm):
    trace = kvm("known", rounds=4)
    assert trace.n_rounds == 4 and trace.meta.complete and trace.meta.host["pml"]
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800  # once each
        assert own(entries)
    assert [(k.expected, k.met) for k in measure(trace)] == [(300, True), (1500, True)]
    assert selftest.check(trace, "known").met
    assert not trace.rounds.lost.any()


def test_the_log_has_what_kvm_gave_the_monitor(kvm):
    trace = kvm("known", rounds=4)
    assert [len(entries) for _, entries in rounds(trace)] == monitors_counts(trace)


def check_buffers(trace):
    """Check that buffers of 512 are told apart: 1802 entries are three, and the rest.

    An interrupt of the host's is an exit, too, which drains a buffer before it is full. When it
    comes is chance: in some round there is at most one.
    """
    full = trace.batches.reason == "full"
    sizes = trace.to_pandas().groupby("batch").size()
    assert (sizes[full.to_numpy()] == 512).all() and (sizes[~full.to_numpy()] < 512).all()
    assert 2 <= full.groupby(trace.batches["round"]).sum().max() <= 3


def test_buffers_of_512_are_told_apart(kvm):
    check_buffers(kvm("known", rounds=4))


def logged_times(trace):
    """Return the times of the log's entries, as the collector received them."""
    with read_spool(trace.path.with_name(trace.path.name + ".spool") / FRAMES_FILE) as spool:
        stream = KvmStream(spool.header)
        parts = [stream.take(kind, payload) for kind, payload in spool]
    return np.concatenate([p.time for p in parts if isinstance(p, Pages) and p.stream == LOG])


def test_bpf_captures_what_ftrace_does(kvm):
    by_ftrace = kvm("known", rounds=4)
    by_bpf = kvm("known", rounds=4, capture="auto")
    assert by_bpf.meta.options["capture"]["place"] == "fentry"
    assert not by_bpf.rounds.lost.any()
    columns = ["round", "vcpu", "gfn"]
    assert by_bpf.to_pandas()[columns].equals(by_ftrace.to_pandas()[columns])
    check_buffers(by_bpf)
    assert by_bpf.meta.options["capture"]["marks"] == "bpf"
    # Entries of an exit share a time, unless the vCPU's thread left the CPU before the drain.
    for trace, most in ((by_bpf, 0.5), (by_ftrace, 1.0)):
        times = logged_times(trace)
        assert most - 0.5 < len(np.unique(times)) / len(times) <= most


def test_what_small_buffers_lose_is_what_is_reported():
    """Nobody reads before the guest has ended: by ftrace, and by BPF at both places."""
    table, _ = kvm_costs.measure("6.1", "losses")
    written = table.groupby("capture").pages.sum()
    counts = table.groupby("capture")[["captured", "lost"]].first()
    assert sorted(counts.index) == ["fentry", "ftrace", "kprobe"]
    assert (counts.lost > 10_000).all()
    assert (counts.captured + counts.lost == written).all()


def test_bpf_keeps_the_guests_order(kvm):
    trace = kvm("ordered", rounds=3, log="bitmap", kernel="6.12", capture="bpf")
    assert trace.meta.options["capture"]["marks"] == "bpf"
    assert trace.meta.options["capture"]["times"] == "exit"
    for number, entries in rounds(trace):
        expected = 4096 + (np.arange(2003) * 769 + number + 1) % 2003
        assert data(entries).gfn.tolist() == expected.tolist()


def levels(trace, number):
    """Return the level of each frame that a round marks as a page table."""
    rows = pagetables.logged(trace)
    rows = rows[rows["round"] == number]
    return dict(zip(rows.table.tolist(), rows.level.tolist(), strict=True))


def test_page_tables_are_told_apart_with_their_levels(kvm):
    trace = kvm("reads", rounds=4, page_tables="snapshot")
    expected = dict.fromkeys(LEAVES[3], 1) | dict.fromkeys(DIRECTORIES[3], 2)
    for number in range(1, 4):
        assert levels(trace, number) == expected
    assert reads.estimate(trace, "leaves").pages[1:].tolist() == [512 * len(LEAVES[3])] * 3


def test_snapshots_are_what_the_guest_has_mapped(kvm):
    trace = kvm("reads", rounds=4, page_tables="snapshot")
    rows = pagetables.entries(trace)
    used = rows[(rows["round"] == 3) & ((rows["flags"] & pagetables.ACCESSED) != 0)]
    mapped = set(used[used.level == 1].target)
    assert frames(trace, "read") <= mapped
    # Its code, its stacks and its tables are all that is used beside it.
    assert all(gfn < 4096 for gfn in mapped - frames(trace, "read"))


def test_pages_only_read_show_as_their_page_tables(kvm):
    trace = kvm("reads", rounds=4, page_tables="snapshot")
    for number, entries in rounds(trace):
        assert data(entries).empty
        tables = set(entries.gfn) & frames(trace, "tables")
        if number:  # the first walk of the tables is at the end of round 0
            assert tables == LEAVES[3] | DIRECTORIES[3]


def test_a_linux_guests_tables_lead_to_all_that_it_writes(kvm):
    # In the emulator the collector is not always quick enough to look at all: then boot again.
    for more in ({}, {"period_s": 0.4}, {"period_s": 0.6}):
        trace = kvm("hotcold", vcpus=2, page_tables="snapshot", **more)
        rows = pagetables.entries(trace)
        rounds_, leads = pagetables.covered(rows, accessed=False, whose="all")
        tables = pagetables.logged(trace)
        data_, by_round = frames(trace, "hot") | frames(trace, "cold"), dict(rounds(trace))
        assert set(tables.level) >= {1, 2, 3, 4}
        assert not set(tables.table) & data_
        whole = sorted(set(tables["round"]) - set(trace.meta.options.get(UNSEEN, ())))
        written = {n: set(by_round[n][by_round[n].kind < 16].gfn) & data_ for n in whole}
        for number, those in written.items():
            assert those <= set(leads[rounds_ == number].tolist())
        if any(written.values()):
            return
    pytest.fail("in no boot was a round with writes looked at in whole")


def test_a_linux_guest_of_two_vcpus_meets_its_known_answers(kvm):
    trace = kvm("hotcold", vcpus=2, page_tables="snapshot")
    assert trace.meta.domain["vcpus"] == 2
    assert (trace.to_pandas().groupby("vcpu").size() > 1000).tolist() == [True, True]
    answers = {(k.phase, k.region): (k.expected, k.measured) for k in measure(trace)}
    assert answers == {
        ("hotcold", "hot"): (300, 300),
        ("hotcold", "cold"): (1500, 1500),
        ("hot", "hot"): (300, 300),
    }
    assert not trace.rounds.lost.any()
