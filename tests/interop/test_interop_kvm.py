# SPDX-License-Identifier: Apache-2.0
"""KVM's dirty rings: times, vCPUs, rounds by resets, losses, and the order within a drain."""

import json
import struct

import numpy as np
import pytest
from foreign import survives
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import cli, interop, workingset
from pmlkit.errors import UsageError
from pmlkit.interop.reading import ForeignFileError

SECOND = 10**9


def line(seconds, event, thread="qemu-1", cpu=0):
    return f" {thread}   [{cpu:03d}] ..... {seconds:12.6f}: {event}\n"


def push(seconds, ring, offset, slot=0, **where):
    text = f"kvm_dirty_ring_push: ring {ring}: dirty 0x1 reset 0x0 slot {slot} offset {offset:#x}"
    return line(seconds, f"{text} (used 1)", **where)


def reset(seconds, ring=0, **where):
    text = f"kvm_dirty_ring_reset: ring {ring}: dirty 0x1 reset 0x1 (used 0)"
    return line(seconds, text, **where)


def probe(seconds, gfn, thread):
    text = f"dirty: (mark_page_dirty_in_slot+0x0/0x120 [kvm]) gfn={gfn:#x}"
    return line(seconds, text, thread=thread)


@pytest.fixture
def load(tmp_path):
    def make(text, **options):
        path = tmp_path / "x.ftrace"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return interop.load("kvm-dirty-ring", path, tmp_path / "x.trace", **options)

    return make


def frames(trace):
    return trace.to_pandas(["gfn"])["gfn"].tolist()


def rows(trace):
    return trace.to_pandas(["round", "vcpu", "gfn"]).values.tolist()


def spans(trace):
    return trace.rounds[["t_start_ns", "t_end_ns"]].values.tolist()


# Rounds


def ten_seconds():
    """Ten new pages each second, from its start on; the ring is reset at .9 of each."""
    return "".join(
        push(100 + s + i / 1000, 0, 10 * s + i) if i < 10 else reset(100 + s + 0.9)
        for s in range(10)
        for i in range(11)
    )


def test_a_round_ends_where_the_ring_is_reset(load):
    trace = load(ten_seconds())
    assert spans(trace)[:2] == [[0, SECOND], [SECOND, 2 * SECOND]]
    assert trace.n_rounds == 9 and trace.meta.period["ns"] == SECOND
    assert workingset.estimate(trace, "1s")["pages"].tolist() == [10] * 9
    assert any(note.startswith("10 entries before the first reset") for note in trace.meta.notes)


def test_rounds_of_a_length_that_is_asked_for(load):
    trace = load(ten_seconds(), window=SECOND)
    assert spans(trace)[0] == [0, SECOND] and trace.n_rounds == 10
    assert workingset.estimate(trace, "1s")["pages"].tolist() == [10] * 10
    assert any("ticks of 1000 ms (as requested)" in note for note in trace.meta.notes)


def test_without_resets_rounds_are_ticks(load):
    trace = load(push(1.0, 0, 7) + push(1.025, 0, 8) + push(1.026, 0, 9))
    assert trace.meta.period["ns"] == 10_000_000
    assert spans(trace) == [[0, 10_000_000], [10_000_000, 20_000_000], [20_000_000, 26_000_001]]
    assert rows(trace) == [[0, 0, 7], [2, 0, 8], [2, 0, 9]]


def test_one_call_resets_the_rings_of_all_vcpus(load):
    text = reset(0.9, 0) + reset(0.900001, 1)
    text += push(1, 0, 5, thread="a-1") + push(1.1, 1, 6, thread="b-2")
    text += reset(1.2, 0) + push(1.200001, 0, 5, thread="a-1") + reset(1.200002, 1)
    text += push(1.3, 1, 6, thread="b-2") + reset(1.4, 0) + reset(1.400001, 1)
    trace = load(text)
    assert rows(trace) == [[0, 0, 5], [0, 1, 6], [0, 0, 5], [1, 1, 6]]
    assert spans(trace) == [[0, 300_001_000], [300_001_000, 500_000_000]]


def test_resets_without_pages_are_rounds_without_entries(load):
    trace = load(reset(1) + push(2, 0, 5) + reset(3) + reset(4) + reset(5) + push(5.5, 0, 5))
    assert [end for _, end in spans(trace)] == [n * SECOND for n in (2, 3, 4)]
    assert trace.rounds["entries"].tolist() == [1, 0, 0]


def test_of_one_reset_both_sides_are_rounds(load):
    """It is not known which of them is whole."""
    trace = load(push(1, 0, 5) + push(2, 0, 6) + reset(3) + push(3.5, 0, 5))
    assert spans(trace) == [[0, 2 * SECOND], [2 * SECOND, 2_500_000_001]]
    assert trace.rounds["entries"].tolist() == [2, 1]


def test_what_is_outside_of_the_resets_is_left_out(load):
    text = push(1, 0, 1) + reset(2) + push(3, 0, 2) + push(3.5, 0, 3) + reset(4) + push(5, 0, 4)
    trace = load("CPU:0 [LOST 9 EVENTS]\n" + text)
    assert rows(trace) == [[0, 0, 2], [0, 0, 3]]
    assert spans(trace) == [[0, 2 * SECOND]]
    assert trace.meta.lost == 0
    notes = "\n".join(trace.meta.notes)
    assert "2 entries before the first reset, or after the last one, were omitted" in notes
    assert "9 more were lost there" in notes
    with pytest.raises(ForeignFileError, match="holds no dirty page between two resets"):
        load(push(1, 0, 1) + reset(2) + reset(3))


def test_a_drain_that_a_reset_cuts_is_turned_round_on_each_side(load):
    """An entry counts for the round in which KVM took it out of the buffer."""
    text = reset(1) + "".join(push(2 + n * 1e-6, 0, n, thread="a-1") for n in (1, 2))
    text += reset(2.000002, thread="q-9") + push(2.000003, 0, 3, thread="a-1")
    trace = load(text + push(2.000004, 0, 4, thread="a-1") + reset(3), kernel="6.1")
    assert rows(trace) == [[0, 0, 2], [0, 0, 1], [1, 0, 4], [1, 0, 3]]


def test_drains_of_vcpus_are_in_the_order_of_their_ends(load):
    text = push(1, 0, 1, thread="a-1") + push(1, 1, 2, thread="b-2")
    text += push(1, 1, 3, thread="b-2") + push(1.000001, 0, 4, thread="a-1")
    assert frames(load(text)) == [2, 3, 1, 4]


def test_lines_are_taken_by_time_and_at_one_time_by_place(load):
    text = push(2, 0, 7) + reset(2) + push(2, 0, 8) + push(1, 0, 6, cpu=1)
    assert rows(load(text)) == [[0, 0, 6], [0, 0, 7], [1, 0, 8]]


def test_two_resets_in_one_file_make_two_rounds(load):
    text = reset(0.7) + push(0.704035, 0, 1) + push(0.752037, 0, 2) + reset(0.755)
    text += push(0.752038, 0, 3)
    trace = load(text + push(0.759394, 0, 4) + reset(0.759398))
    assert trace.rounds["entries"].tolist() == [3, 1]


# Clocks


def test_a_clock_since_the_boot_has_no_base(load):
    trace = load(push(100, 0, 1) + push(100.5, 0, 2))
    assert trace.meta.clock["base_ns"] is None
    assert any("0 is its 100.000000 s" in note for note in trace.meta.notes)


def test_a_clock_since_1970_has_one(load):
    trace = load(push(1_700_000_000.5, 0, 1) + push(1_700_000_001, 0, 2))
    assert trace.meta.clock["base_ns"] == 1_700_000_000_500_000_000
    assert trace.duration_ns == 500_000_001


# Losses


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ("CPU:0 [LOST 1234 EVENTS]\n", 1234),
        ("CPU:1 [7 EVENTS DROPPED]\nCPU:0 [LOST 2 EVENTS]\n", 9),
        ("# entries-in-buffer/entries-written: 2/2   #P:1\n", 0),
        ("# entries-in-buffer/entries-written: 205/1000   #P:4\n", 795),
        ("qemu 1 [000] 1.5: PERF_RECORD_LOST lost 5\n", 5),
        ("", None),
        ("CPU:0 [LOST EVENTS]\n", None),
        ("CPU:0 [LOST 4 EVENTS]\nCPU:0 [EVENTS DROPPED]\n", None),
    ],
)
def test_losses_are_a_number_or_not_known(load, lines, lost):
    trace = load(push(1, 0, 1) + lines + push(2, 0, 2))
    assert trace.meta.lost == lost and trace.meta.complete is None
    assert trace.meta.losses == ("not counted" if lost is None else "counted")
    assert trace.check()["lost"] == lost


def test_a_loss_counts_to_the_round_of_the_next_event(load):
    text = push(1, 0, 1) + reset(2) + "CPU:0 [LOST 3 EVENTS]\n" + push(3, 0, 2) + reset(4)
    assert load(reset(0.5) + text + push(5, 0, 2)).rounds["lost"].tolist() == [0, 3]


def test_info_says_what_was_lost(load, capsys):
    trace = load(push(1, 0, 1) + "CPU:0 [LOST 1234 EVENTS]\n" + push(2, 0, 2))
    assert cli.main(["info", str(trace.path)]) == 0
    assert "2, 1,234 lost" in capsys.readouterr().out
    assert cli.main(["info", str(trace.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == 1234


# Order

DRAINS = "".join(push(1 + i * 1e-6, 0, n) for i, n in enumerate([3, 2, 1])) + push(2, 0, 4)


@pytest.mark.parametrize(
    ("kernel", "order", "says"),
    [
        ("6.1", [1, 2, 3, 4], "reversed"),
        ("v6.13.4-arch1", [1, 2, 3, 4], "reversed"),
        ("6.14", [3, 2, 1, 4], "that of the log"),
        ("6.14-rc1", [3, 2, 1, 4], "that of the log"),
        ("7.0", [3, 2, 1, 4], "that of the log"),
        (None, [3, 2, 1, 4], "not known"),
    ],
)
def test_order_within_a_drain_by_the_kernel(load, kernel, order, says):
    trace = load(DRAINS, kernel=kernel)
    assert frames(trace) == order
    assert any("order within" in note and says in note for note in trace.meta.notes)


def test_the_kernel_of_perfs_header(load):
    assert frames(load("# os release : 6.1.0-18-amd64\n" + DRAINS)) == [1, 2, 3, 4]


def test_exits_tell_drains_apart(load):
    text = push(1, 0, 2) + push(1.000001, 0, 1) + line(1.000001, "kvm_exit: reason EPT_VIOLATION")
    text += push(1.000002, 0, 4) + push(1.005, 0, 3)
    assert frames(load(text, kernel="6.1")) == [1, 2, 3, 4]


def test_no_drain_takes_long_even_if_no_exit_is_seen(load):
    text = line(0.9, "kvm_exit: reason EPT_VIOLATION") + push(1, 0, 1) + push(1.05, 0, 2)
    text += push(1.15, 0, 3) + push(1.2, 0, 4)
    assert frames(load(text, kernel="6.1", window=2 * SECOND)) == [2, 1, 4, 3]


def test_a_drain_has_at_most_512_entries_and_one_vcpu(load):
    text = "".join(push(1, 0, n, thread="a-1") for n in range(600))
    text += push(1, 1, 1000, thread="b-2") + push(1, 1, 1001, thread="b-2")
    found = np.array(frames(load(text, kernel="6.1")))
    assert found[found < 1000].tolist() == [*range(511, -1, -1), *range(599, 511, -1)]
    assert found[found >= 1000].tolist() == [1001, 1000]


def test_a_release_that_is_none_is_refused(load):
    with pytest.raises(UsageError, match="'new' is not the release of a kernel"):
        load(DRAINS, kernel="new")


# vCPUs, slots, other events


def test_vcpus_are_rings(load):
    trace = load(push(1, 3, 5, thread="CPU 3/KVM-9") + push(1.1, 0, 6, thread="CPU 0/KVM-8"))
    assert rows(trace) == [[0, 3, 5], [2, 0, 6]]
    assert trace.meta.domain["vcpus"] == 4


def test_a_slot_of_another_address_space_is_another(load):
    trace = load(push(1, 0, 1, slot=2) + push(1.001, 0, 1, slot=(1 << 16) + 2))
    assert frames(trace) == [(2 << 32) + 1, (((1 << 16) + 2) << 32) + 1]


def test_a_kprobe_names_frames_and_threads(load):
    text = probe(1, 0x11FA, "CPU 1/KVM-12") + probe(1.001, 5, "qemu-system-x86-10")
    trace = load(text + probe(1.002, 6, "CPU 0/KVM-11"))
    assert rows(trace) == [[0, 1, 0x11FA], [0, 0, 5], [0, 0, 6]]
    assert not any("slot" in note for note in trace.meta.notes)
    assert any(
        note.startswith("1 entries come from threads that run no") for note in trace.meta.notes
    )


def test_without_names_the_threads_that_log_run_vcpus(load):
    trace = load(probe(1, 7, "vmm-12") + probe(1.001, 5, "vmm-10"))
    assert rows(trace) == [[0, 1, 7], [0, 0, 5]]


def test_an_entry_knows_its_vcpu_better_than_a_name(load):
    text = line(1, "kvm_entry: vcpu 5, rip 0xfff0", thread="CPU 1/KVM-12")
    assert rows(load(text + probe(1.001, 5, "CPU 1/KVM-12"))) == [[0, 5, 5]]


def test_perf_script_and_trace_cmd_print_the_same(load, tmp_path):
    text = "CPU 0/KVM 4711/4712 [003]  100.000001: kvm:kvm_dirty_ring_push: ring 0: dirty 0x1 "
    text += "reset 0x0 slot 0 offset 0x1f (used 1)\n"
    text += "     CPU 1/KVM-4713  [002]   100.000002500: kvm_dirty_ring_push:  ring 1: dirty 0x1 "
    text += "reset 0x0 slot 0 offset 0x2f (used 1)\n"
    trace = load(text)
    assert rows(trace) == [[0, 0, 0x1F], [0, 1, 0x2F]] and trace.duration_ns == 1501


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (push(1, 0, 1) + push(2, 0, 1)[:-25], "line 2 .*is not kvm_dirty_ring_push"),
        (push(1, 0, 1 << 160), "line 1 .*is not kvm_dirty_ring_push"),
        (push(1, 0, 1 << 31), "line 1 .*names a page beyond the limit"),
        (push(1, 0, 1, slot=1 << 17), "line 1 .*names a page beyond the limit"),
        (push(1, 70_000, 1), "line 1 .*vCPU 70000"),
        (push(1, 0, 1).replace("1.0", f"{'9' * 5000}.0"), "line 1 .*is not kvm_dirty_ring_push"),
        (push(1, 0, 1).replace(" 1.000000", " 123456"), "line 1 .*seconds"),
        (push(9_999_999_999, 0, 1), "line 1 .*time that is too large"),
        (push(1, 0, 1, thread="a-1") + push(1, 0, 1, thread="b-2"), "line 2 .*two machines"),
        (push(1, 0, 1) + probe(1, 1, "a-1"), "line 2 .*same pages"),
        (probe(1, 1, "a-1").replace("gfn", "arg1"), "line 1 .*has no gfn="),
        (probe(1, 1, "CPU 0/KVM-1") + probe(1, 1, "CPU 0/KVM-2"), "two threads of vCPU 0"),
        (probe(1, 1, "CPU 70000/KVM-1"), "line 1 .*vCPU 70000"),
        (push(1, 0, 1) + "x" * 70_000, "line 2 .*longer"),
        (reset(1), "holds no dirty page"),
        ("PERFILE2" + "x" * 100, "perf's own data: import the output of `perf script"),
        ("CPU:0 [LOST 5 EVENTS]\n", "holds no dirty page"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, capsys, text, says):
    path = tmp_path / "x.ftrace"
    path.write_text(text)
    with pytest.raises(ForeignFileError, match=says):
        interop.load("kvm-dirty-ring", path, tmp_path / "x.trace")
    assert not (tmp_path / "x.trace").exists()


def test_an_entry_of_a_ring_beyond_the_largest_slot(tmp_path):
    path = tmp_path / "ring"
    path.write_bytes(struct.pack("<IIQ", 1, 0, 7) + struct.pack("<IIQ", 1, 0, 1 << 31))
    with pytest.raises(ForeignFileError, match="entry 1 "):
        interop.load("kvm-dirty-ring", path, tmp_path / "x.trace")


PIECES = [push(1, 0, 1), push(2, 1, 2), reset(3), probe(4, 5, "a-1"), "CPU:0 [LOST 3 EVENTS]\n"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=40)), max_size=6), st.data())
def test_any_text_is_read_or_refused(lines, data):
    text = "".join(lines).encode("utf-8", "surrogatepass")
    if text and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.binary(max_size=4)) + text[at + 1 :]
    survives("kvm-dirty-ring", text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    survives("kvm-dirty-ring", data)
