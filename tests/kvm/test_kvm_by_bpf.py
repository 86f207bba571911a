# SPDX-License-Identifier: Apache-2.0
"""A collection whose log comes by BPF: the same trace as by ftrace; refused in words."""

import re

import fake_bpf
import pytest
from fake_kvm import LOG, MARKS, RESET, dirty, entry
from test_kvm_collecting import Run, by_round, rearm
from waiting import until

from pmlkit.errors import PmlkitError
from pmlkit.kvm import agent, bpf, capture, find
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.job import Job
from pmlkit.kvm.program import entry_program, mark_program
from pmlkit.kvm.rings import ARMED, DISARMED, LIMIT_AT, TIME_AT, ring_bytes

PAGES = [list(range(100, 400)), [7, 3, 9], [], [2**40]]


def feeder(kvm, put, mark=None):
    """Return what feeds a round of each of `PAGES`, two vCPUs in turn, each on its CPU."""

    def by_ftrace(cpu, thread, at):
        kvm.feed(MARKS, cpu, [entry(at, thread, cpu)])

    mark = mark or by_ftrace

    def feed(now):
        at = now
        rearm(kvm, RESET, at)
        for frames in PAGES:
            at += 2000
            for cpu, thread in ((0, 4712), (1, 4713)):
                mark(cpu, thread, at)
                at += 100
                put(cpu, thread, at, frames[cpu::2])
                at += len(frames) + 100
            at += 2000
            rearm(kvm, RESET, at)
            at += 2000

    return feed


def by_ftrace(kvm):
    def put(cpu, thread, at, frames):
        events = [dirty(at + n, thread, gfn) for n, gfn in enumerate(frames)]
        for first in range(0, len(events), 100):
            kvm.feed(LOG, cpu, events[first : first + 100])

    return feeder(kvm, put)


def by_bpf(kvm, kernel, marks=False):
    def mark(cpu, thread, at):
        kernel.made.mark(cpu, at, 1, cpu, thread)

    def put(cpu, thread, at, frames):
        for n, gfn in enumerate(frames):
            kernel.made.writer.write(cpu, at + n, gfn, thread)

    return feeder(kvm, put, mark if marks else None)


@pytest.mark.parametrize("marks", [False, True], ids=["marks by ftrace", "marks by BPF"])
def test_the_trace_is_the_same_as_by_ftrace(kvm, tmp_path, monkeypatch, marks):
    # Nothing says which thread runs which vCPU but the marks.
    kvm.process(kvm.pid, {4711: "vmm", 4712: "a", 4713: "b"}, links=())
    traces = []
    for how in ("ftrace", "bpf"):
        kernel = fake_bpf.install(monkeypatch.setattr, kvm, marks=marks)
        (tmp_path / how).mkdir()
        feed = by_bpf(kvm, kernel, marks) if how == "bpf" else by_ftrace(kvm)
        run = Run(kvm, tmp_path / how, feed, rounds=len(PAGES), capture=how)
        run()
        traces.append(run.trace())
    first, second = traces
    assert [sorted(frames) for frames in by_round(second)] == [sorted(p) for p in PAGES]
    assert by_round(first) == by_round(second)  # with their order
    columns = ["round", "vcpu", "reason", "t_end_ns"]
    assert first.batches[columns].equals(second.batches[columns])
    assert first.to_pandas().vcpu.tolist() == second.to_pandas().vcpu.tolist()
    how = [trace.meta.options["capture"] for trace in traces]
    assert [each["kind"] for each in how] == ["ftrace", "bpf"]
    assert [each["marks"] for each in how] == ["ftrace", "bpf" if marks else "ftrace"]
    assert how[1]["times"] == ("exit" if marks else "entry")


def refusing(function):
    """Return a kernel's refusal of a program at a place, by its name."""
    return {function: bpf.BpfRefused(f"the kernel refuses BPF at {function}", 16)}


ENDS = [bpf.LEAVE, bpf.CALL]
ATTACHED = {  # by the place that is refused: what remains
    None: [*ENDS, *bpf.MARKS, bpf.FUNCTION],
    bpf.LEAVE: [*bpf.MARKS, bpf.FUNCTION],
    bpf.CALL: [*bpf.MARKS, bpf.FUNCTION],
    bpf.MARKS[0]: [bpf.FUNCTION],
    bpf.MARKS[1]: [bpf.FUNCTION],
}


@pytest.mark.parametrize("refused", ATTACHED)
def test_entries_share_times_only_if_all_that_it_needs_is_attached(kvm, monkeypatch, refused):
    """What is attached, what the facts say, and what the log's program does agree."""
    fake_bpf.install(monkeypatch.setattr, kvm, marks=True, refuse_at=refusing(refused))
    vm = find.find(kvm.host, str(kvm.pid))
    with capture.Bpf(kvm.host, Job(buffer_kib=64), vm) as way:
        facts, kernel = way.facts(), way._kernel
        shared, marked = refused is None, refused not in bpf.MARKS
        assert [where for where, _ in kernel.attached] == ATTACHED[refused]
        assert facts["times"] == ("exit" if shared else "entry")
        assert facts["marks"] == ("bpf" if marked else "ftrace")
        assert any("page faults by ftrace: the kernel" in m for m in way.messages) != marked
        log = entry_program(16, kvm.pid, kernel.arrays["log"], 4096, kernel.arrays["floor"])
        assert kernel.attached[-1] == (bpf.FUNCTION, log)
        arms = kernel.arrays["log"] if shared else None
        marks = [code for where, code in kernel.attached if where in bpf.MARKS]
        assert marks == [
            mark_program(kind, 8, kvm.pid, kernel.arrays["marks"], 4096, arms)
            for kind in (1, 2)[: 2 * marked]
        ]  # fmt: skip


def test_a_cpu_that_a_refused_program_armed_is_disarmed(kvm, monkeypatch):
    """The first mark runs when the second one is refused, and arms a CPU until it is detached."""

    class Kernel(fake_bpf.FakeKernel):
        def attach(self, program, place):
            super().attach(program, place)
            if place.where == bpf.MARKS[0]:
                self.writer.words[self.writer.step + TIME_AT // 8] = ARMED

    fake_bpf.install(monkeypatch.setattr, kvm, marks=True)
    Kernel.refuse_at = refusing(bpf.MARKS[1])
    monkeypatch.setattr(bpf, "Kernel", Kernel)
    with capture.Bpf(kvm.host, Job(buffer_kib=64), find.find(kvm.host, str(kvm.pid))) as way:
        writer = way._kernel.writer
        times = [writer.words[cpu * writer.step + TIME_AT // 8] for cpu in range(2)]
        assert times == [DISARMED, DISARMED]


def test_where_a_times_validity_is_not_ended_each_entry_has_its_own(kvm, tmp_path, monkeypatch):
    refused = refusing(bpf.LEAVE)
    kernel = fake_bpf.install(monkeypatch.setattr, kvm, marks=True, refuse_at=refused)
    run = Run(kvm, tmp_path, by_bpf(kvm, kernel, marks=True), rounds=len(PAGES), capture="bpf")
    run()
    trace = run.trace()
    how = trace.meta.options["capture"]
    assert (how["times"], how["marks"]) == ("entry", "bpf")
    assert [sorted(frames) for frames in by_round(trace)] == [sorted(p) for p in PAGES]


def test_auto_takes_bpf_and_says_so(kvm, tmp_path, monkeypatch):
    kernel = fake_bpf.install(monkeypatch.setattr, kvm)
    run = Run(kvm, tmp_path, by_bpf(kvm, kernel), rounds=len(PAGES))
    run()
    trace = run.trace()
    how = {"kind": "bpf", "place": "fentry", "marks": "ftrace", "times": "entry",
           "buffer_kib": 4096}  # fmt: skip
    assert trace.meta.options["capture"] == how
    assert "the log is captured by BPF (fentry)" in trace.meta.notes
    assert [name.rpartition("/")[2] for name in kvm.probes()] == []
    assert kernel.made.attached == []


def test_what_a_full_ring_loses_is_in_the_round_that_lost_it(kvm, tmp_path, monkeypatch):
    """Rings of 4,096 entries: a round of 10,000 pages at once, and one of 5."""
    kernel = fake_bpf.install(monkeypatch.setattr, kvm)

    def feed(now):
        rearm(kvm, RESET, now)
        assert kernel.made.writer.burst(0, now + 2000, range(10_000), 4712) == 5904
        rearm(kvm, RESET, now + 20_000)
        until(lambda: kernel.made.writer.words[LIMIT_AT // 8] >= 2 * 4096)
        for n in range(5):
            kernel.made.writer.write(0, now + 30_000 + n, n, 4712)
        rearm(kvm, RESET, now + 40_000)

    run = Run(kvm, tmp_path, feed, rounds=2, buffer_kib=64)
    run()
    trace = run.trace()
    assert [len(frames) for frames in by_round(trace)] == [4096, 5]
    assert trace.rounds.lost.tolist() == [5904, 0]
    assert trace.meta.lost == 5904


def test_programs_that_did_not_run_are_losses(kvm, tmp_path, monkeypatch):
    kernel = fake_bpf.install(monkeypatch.setattr, kvm, misses=3)
    run = Run(kvm, tmp_path, by_bpf(kvm, kernel), rounds=len(PAGES))
    run()
    assert run.trace().meta.lost == 3


def test_without_a_trampoline_a_kprobe_is_taken(kvm, tmp_path, monkeypatch):
    refuse = {"fentry": bpf.BpfRefused("the kernel refuses BPF at the entry", 16)}
    kernel = fake_bpf.install(monkeypatch.setattr, kvm, refuse=refuse)
    run = Run(kvm, tmp_path, by_bpf(kvm, kernel), rounds=len(PAGES))
    run()
    assert run.trace().meta.options["capture"]["place"] == "kprobe"
    assert kernel.made.places == ["fentry", "kprobe"]


def test_rings_are_as_large_as_the_kernel_makes_them(kvm, tmp_path, monkeypatch):
    kernel = fake_bpf.install(monkeypatch.setattr, kvm, most_bytes=4 << 20)
    run = Run(kvm, tmp_path, by_bpf(kvm, kernel), rounds=len(PAGES))
    run()
    assert run.trace().meta.options["capture"]["buffer_kib"] == ring_bytes(1 << 17) >> 10


NO_RIGHT = NoRight("to load a BPF program", bpf.CAPABILITIES)


def test_auto_takes_ftrace_where_bpf_is_refused_and_says_why(kvm, tmp_path, monkeypatch):
    fake_bpf.install(monkeypatch.setattr, kvm, refuse={"fentry": NO_RIGHT, "kprobe": NO_RIGHT})
    run = Run(kvm, tmp_path, by_ftrace(kvm), rounds=len(PAGES))
    run()
    trace = run.trace()
    why = "by ftrace, not by BPF: to load a BPF program needs CAP_BPF and CAP_PERFMON"
    assert any(why in note for note in trace.meta.notes)
    assert [sorted(frames) for frames in by_round(trace)] == [sorted(p) for p in PAGES]


@pytest.mark.parametrize(
    ("refuse", "why"),
    [
        ({"fentry": NO_RIGHT, "kprobe": NO_RIGHT}, "needs CAP_BPF and CAP_PERFMON (or CAP_SYS"),
        (None, "this kernel has neither BTF nor a PMU of kprobes: use --capture ftrace"),
    ],
)
def test_bpf_that_is_asked_for_and_refused_is_an_error(kvm, monkeypatch, refuse, why):
    if refuse:
        fake_bpf.install(monkeypatch.setattr, kvm, refuse=refuse)
    with pytest.raises(PmlkitError, match=re.escape(why)):
        agent.collect(
            Job(vm=str(kvm.pid), spool=str(kvm.root / "spool"), capture="bpf"), host=kvm.host
        )
    assert kvm.instances() == {}
    assert kvm.probes() == []
