# SPDX-License-Identifier: Apache-2.0
"""The BPF program: its bytes, and what it does in this machine's kernel where that takes it."""

import ctypes
import os
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import fake_kvm
import pytest
from waiting import until

from pmlkit.ftrace import format_of
from pmlkit.kvm import bpf, program
from pmlkit.kvm.btf import BtfUnknown, Types
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.host import Host
from pmlkit.kvm.program import (
    Assembler,
    call_program,
    entry_program,
    leave_program,
    mark_program,
    nothing,
)
from pmlkit.kvm.rings import ARMED, BLOCK_HEAD, DISARMED, TIME_AT, Rings, ring_bytes

UPROBES = Path("/sys/bus/event_source/devices/uprobe/type")
VMLINUX = Path("/sys/kernel/btf/vmlinux")


# ------------------------------------------------------------------------------
# The assembler


def hex_of(fill):
    assembler = Assembler()
    fill(assembler)
    return assembler.code().hex(" ", 8)


def test_instructions_have_the_bytes_that_the_kernel_documents():
    """What `llvm-mc -triple bpf -show-encoding` prints for the comments."""

    def fill(a):
        a.set("mov", 0, 0)  # r0 = 0
        a.set("add", 2, -4)  # r2 += -4
        a.by("mov", 7, 0)  # r7 = r0
        a.by("sub", 3, 2)  # r3 -= r2
        a.set("lsh", 6, 22)  # r6 <<= 22
        a.set("rsh", 0, 32)  # r0 >>= 32
        a.set("and", 7, 0x3FFFFF)  # r7 &= 4194303
        a.by("or", 6, 7)  # r6 |= r7
        a.load(6, 1, 96)  # r6 = *(u64 *)(r1 + 96)
        a.store(10, -4, 0, size=4)  # *(u32 *)(r10 - 4) = w0
        a.store(8, 0, 9)  # *(u64 *)(r8 + 0) = r9
        a.take_map(1, 5)  # r1 = map 5
        a.call(14)  # call 14
        a.leave()  # exit
        a.lower(0, 0)  # w0 = w0
        a.take_value(1, 7)  # r1 = the value of map 7
        a.add_atomically(1, 8, 2)  # lock *(u64 *)(r1 + 8) += r2

    assert hex_of(fill).split() == [
        "b700000000000000", "07020000fcffffff", "bf07000000000000", "1f23000000000000",
        "6706000016000000", "7700000020000000", "57070000ffff3f00", "4f76000000000000",
        "7916600000000000", "630afcff00000000", "7b98000000000000",
        "1811000005000000", "0000000000000000", "850000000e000000", "9500000000000000",
        "bc00000000000000", "1821000007000000", "0000000000000000", "db21080000000000",
    ]  # fmt: skip


def test_jumps_count_from_the_next_instruction():
    def fill(a):
        a.jump("!=", 0, 4711, "out")  # if r0 != 4711 goto +4
        a.jump(">=", 3, 16, "out")  # if r3 >= 16 goto +3
        a.jump("always", 0, 0, "out")  # goto +2
        a.jump_by(">", 0, 1, "out")  # if r0 > r1 goto +1
        a.leave()
        a.label("out")
        a.leave()

    assert hex_of(fill).split()[:4] == [
        "5500040067120000", "3503030010000000", "0500020000000000", "2d10010000000000"
    ]  # fmt: skip


def test_the_program_is_below_fifty_instructions():
    code = entry_program(16, 4711, 3, 1 << 18, 5)
    assert len(code) % 8 == 0 and len(code) // 8 < 50


# ------------------------------------------------------------------------------
# BTF


def btf_of(types, names, header=24):
    text = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, header, 0, len(types), len(types), len(text))
    return head + types + text


def types_of_each_kind():
    """One type of each kind with members, all of which have to be skipped rightly."""
    rest = {1: 4, 3: 12, 4: 24, 5: 12, 6: 16, 13: 0, 14: 4, 15: 24, 17: 4, 19: 24}
    members = {4: 2, 5: 1, 6: 2, 15: 2, 19: 2}
    return b"".join(
        struct.pack("<III", 0, kind << 24 | members.get(kind, 0), 0) + bytes(rest.get(kind, 0))
        for kind in range(1, 20)
    )


def test_a_modules_function_is_numbered_after_the_kernels_types():
    kernel = btf_of(types_of_each_kind(), ["kvm", "slot"])
    base = len(b"\0kvm\0slot\0")
    prototype = struct.pack("<III", 0, 13 << 24 | 3, 0)
    prototype += struct.pack("<IIIIII", 1, 0, 5, 0, base + 1, 0)
    function = struct.pack("<III", base + 5, 12 << 24, 20)
    module = btf_of(prototype + function, ["gfn", "mark_page_dirty_in_slot"])
    found = Types(kernel, module).function("mark_page_dirty_in_slot")
    assert found == (21, ["kvm", "slot", "gfn"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut off"),
        (bytes(24), "does not begin"),
        (btf_of(struct.pack("<III", 0, 31 << 24, 0), []), "a type at byte 0"),
        (btf_of(b"123", []), "a type at byte 0"),
        (btf_of(b"", []), "no function f"),
    ],
)
def test_other_btf_is_refused(data, why):
    with pytest.raises(BtfUnknown, match=why):
        Types(data).function("f")


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_this_kernels_functions_have_their_parameters():
    types = Types(VMLINUX.read_bytes())
    found = types.function("do_sys_openat2")
    with pytest.raises(BtfUnknown, match="no function such"):
        types.entry("such")
    assert types.entry("do_sys_openat2") == found.number
    assert found.parameters == ["dfd", "filename", "how"]


# ------------------------------------------------------------------------------
# Where the log can be captured


KERNEL_BTF = btf_of(types_of_each_kind(), ["kvm", "slot"])


def module_btf(*parameters):
    """BTF of a module with the function, whose parameters have these names."""
    base = len(b"\0kvm\0slot\0" + b"\0")  # an own text begins with an empty name, too
    places = [base + sum(len(name) + 1 for name in parameters[:n]) for n in range(len(parameters))]
    prototype = struct.pack("<III", 0, 13 << 24 | len(parameters), 0)
    prototype += b"".join(struct.pack("<II", place, 0) for place in places)
    own = base + sum(len(name) + 1 for name in parameters)
    function = struct.pack("<III", own, 12 << 24, 20)
    return btf_of(prototype + function, [*parameters, bpf.FUNCTION])


@pytest.fixture
def folder(tmp_path):
    """A host's folder without anything, and what puts files into it."""

    def put(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return Host(tmp_path, "6.1.0"), put


def hows(host):
    return [(place.how, place.frame_at) for place in bpf.entry_places(host)]


@pytest.mark.parametrize(
    ("parameters", "fentry"),
    [
        (("kvm", "memslot", "gfn"), [("fentry", 16)]),
        (("memslot", "gfn"), [("fentry", 8)]),  # as before Linux 5.11
        (("kvm", "memslot", "page"), []),
    ],
)
def test_the_frame_is_where_the_kernels_types_say(folder, monkeypatch, parameters, fentry):
    host, put = folder
    put("sys/kernel/btf/vmlinux", KERNEL_BTF)
    put("sys/kernel/btf/kvm", module_btf(*parameters))
    put("sys/bus/event_source/devices/kprobe/type", b"8\n")
    monkeypatch.setattr(bpf, "_module_btf", lambda name: 0)
    assert hows(host) == [*fentry, ("kprobe", 96)]  # rdx, in struct pt_regs


@pytest.mark.parametrize(
    ("release", "place"), [("6.1.0", 96), ("5.11.0", 96), ("5.10.0-30-amd64", 104), ("", 96)]
)
def test_a_kprobe_takes_the_frame_from_the_register_of_its_kernel(folder, release, place):
    host, put = folder
    put("sys/bus/event_source/devices/kprobe/type", b"8\n")
    assert hows(Host(host.root, release)) == [("kprobe", place)]  # rdx, or rsi


def test_a_kprobe_is_left_where_a_modules_types_take_more_rights(folder, monkeypatch):
    host, put = folder
    put("sys/kernel/btf/vmlinux", KERNEL_BTF)
    put("sys/kernel/btf/kvm", module_btf("gfn"))

    def refuse(name):
        raise NoRight("the BTF of kvm", bpf.CAPABILITIES)

    monkeypatch.setattr(bpf, "_module_btf", refuse)
    with pytest.raises(NoRight, match="the BTF of kvm needs CAP_BPF"):
        hows(host)
    put("sys/bus/event_source/devices/kprobe/type", b"8\n")
    assert hows(host) == [("kprobe", 96)]


def test_marks_are_events_whose_vcpu_is_where_their_format_says(folder):
    host, put = folder
    with pytest.raises(bpf.BpfRefused, match="no event kvm_entry here"):
        bpf.mark_places(host)
    for name, text in (("kvm_entry", fake_kvm.KVM_ENTRY), ("kvm_page_fault", fake_kvm.KVM_FAULT)):
        put(f"sys/kernel/tracing/events/kvm/{name}/format", text.encode())
    found = [(p.how, p.where, p.frame_at, p.number) for p in bpf.mark_places(host)]
    assert found == [
        ("event", "kvm_entry", 8, fake_kvm.ENTRY), ("event", "kvm_page_fault", 8, fake_kvm.FAULT)
    ]  # fmt: skip
    put("sys/kernel/tracing/events/kvm/kvm_entry/format", b"nonsense")
    with pytest.raises(bpf.BpfRefused, match="kvm_entry in an unknown form"):
        bpf.mark_places(host)


def test_a_kernel_without_kvm_has_no_place(folder):
    host, put = folder
    put("sys/kernel/btf/vmlinux", KERNEL_BTF)
    with pytest.raises(bpf.BpfRefused, match="modprobe kvm_intel"):
        hows(host)


# ------------------------------------------------------------------------------
# In this machine's kernel


def probed():
    """Return where `labs` of the C library is: file and offset; and what calls it."""
    libc = ctypes.CDLL(None)
    function = libc.labs
    function.argtypes = [ctypes.c_long] * 3
    address = ctypes.cast(function, ctypes.c_void_p).value
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *path = line.split()
        start, end = (int(text, 16) for text in span.split("-"))
        if start <= address < end:
            return path[0], address - start + int(offset, 16), function
    raise AssertionError


@pytest.fixture
def loaded():
    """The program at a function that this test calls; what it takes is the third argument."""
    if not UPROBES.exists():
        pytest.skip("this kernel has no probes of user space (CONFIG_UPROBE_EVENTS)")
    if os.uname().machine != "x86_64":
        pytest.skip("places of registers are of x86_64")
    path, offset, function = probed()
    place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
    entries, cpus = 64, os.sysconf("SC_NPROCESSORS_CONF")
    with bpf.Kernel() as kernel:
        try:
            array, memory = kernel.array("rings", ring_bytes(entries), cpus)
            floor, kernel.floor = kernel.array("floor", 8, 1)
            kernel.words = memoryview(memory).cast("Q")
            code = entry_program(place.frame_at, os.getpid(), array, entries, floor)
            kernel.program = kernel.load("entry", code, place)
            kernel.attach(kernel.program, place)
        except (bpf.BpfRefused, NoRight) as error:
            pytest.skip(f"this kernel does not take it: {error}")
        reader = Rings(memory, cpus, entries)
        yield kernel, reader, function
        kernel.words.release()
        reader.close()


def read(blocks):
    lost, rows = 0, []
    for _, block in blocks:
        before, _ = BLOCK_HEAD.unpack_from(block)
        lost += before
        rows += struct.iter_unpack("<QQ", block[BLOCK_HEAD.size :])
    return lost, rows


def test_the_kernel_runs_it_and_all_entries_come(loaded):
    kernel, reader, function = loaded
    before, got = os.sched_getaffinity(0), []
    for number in range(50):
        function(0, 0, 1 << 40 | number)
        if number % 7 == 0:
            got += read(reader.drain())[1]
    got += read(reader.drain())[1]
    assert sorted(word >> 22 for _, word in got) == [1 << 40 | number for number in range(50)]
    assert {word & (1 << 22) - 1 for _, word in got} == {os.getpid()}  # the thread's number
    assert (reader.lost(), kernel.missed(kernel.program)) == (0, 0)
    assert os.sched_getaffinity(0) == before


def test_what_a_full_ring_loses_is_what_is_reported(loaded):
    _, reader, function = loaded
    (cpu, *_), all_cpus = os.sched_getaffinity(0), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        for number in range(200):
            function(0, 0, number)
        lost, rows = read(reader.drain())
        for number in range(200, 230):
            function(0, 0, number)
        later, more = read(reader.drain())
    finally:
        os.sched_setaffinity(0, all_cpus)
    assert [word >> 22 for _, word in rows] == list(range(64))
    assert [word >> 22 for _, word in more] == list(range(200, 230))
    assert (lost, later, reader.lost()) == (0, 136, 136)


@pytest.fixture
def times(loaded):
    """Log a page on one CPU, whose ring's time is set before; returns the entry's time."""
    kernel, reader, function = loaded
    (cpu, *_), all_cpus = os.sched_getaffinity(0), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    place = (cpu * ring_bytes(reader.entries) + TIME_AT) // 8

    def log(before=None, floor=None):
        if before is not None:
            kernel.words[place] = before
        if floor is not None:
            kernel.floor[:8] = floor.to_bytes(8, "little")
        function(0, 0, 1)
        ((time_ns, _),) = read(reader.drain())[1]
        return time_ns, kernel.words[place]

    yield log
    os.sched_setaffinity(0, all_cpus)


def test_entries_of_an_exit_share_their_first_ones_time(times):
    first, kept = times(ARMED, floor=ARMED)
    assert 0 < time.monotonic_ns() - first < 60e9 and kept == first
    assert times() == (first, first)
    assert times() == (first, first)


def test_a_page_fault_and_the_next_entry_end_it(times):
    first, _ = times(ARMED, floor=ARMED)
    second, kept = times(ARMED)
    assert second > first and kept == second


def test_while_a_cpu_is_disarmed_each_entry_has_its_own_time(times):
    assert times(DISARMED, floor=ARMED)[1] == DISARMED
    (first, _), (second, kept) = times(), times()
    assert first < second and kept == DISARMED


def test_a_time_before_the_vmms_last_call_is_not_used_again(times):
    first, _ = times(ARMED, floor=ARMED)
    second, kept = times(floor=first)  # at the same time: it may have been before
    assert second > first and kept == second
    assert times() == (second, second)


def test_programs_that_end_a_times_validity_are_accepted(loaded):
    """At the same function: they take nothing from it."""
    kernel, reader, function = loaded
    path, offset, _ = probed()
    place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
    array, memory = kernel.array("log", ring_bytes(64), os.sysconf("SC_NPROCESSORS_CONF"))
    floor, value = kernel.array("floor", 8, 1)
    for code in (leave_program(array), call_program(floor)):
        kernel.attach(kernel.load("more", code, place), place)
    memory[:] = b"\xff" * len(memory)
    function(0, 0, 1)
    words = memoryview(memory).cast("Q")
    step = ring_bytes(64) // 8
    ended = [words[n * step + TIME_AT // 8] for n in range(len(words) // step)]
    assert ended.count(DISARMED) == 1
    assert 0 < time.monotonic_ns() - int.from_bytes(value[:8], "little") < 60e9
    words.release()


def test_calls_at_once_never_lower_the_floor(loaded):
    """It is at each call's time at least, as soon as the call is over."""
    kernel, _, function = loaded
    path, offset, _ = probed()
    place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
    floor, value = kernel.array("calls", 8, 1)
    kernel.attach(kernel.load("call", call_program(floor), place), place)
    low = []

    def call():
        last = 0
        for _ in range(1000):
            before = time.monotonic_ns()
            function(0, 0, 1)
            now = int.from_bytes(value[:8], "little")
            if now < max(before, last):
                low.append((now, before, last))
            last = now

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert low == []


FORK = Path("/sys/kernel/tracing/events/sched/sched_process_fork/format")


@pytest.mark.skipif(not os.access(FORK, os.R_OK), reason="tracefs is not mounted, or not for us")
def test_a_mark_is_written_and_arms_the_cpu(loaded):
    """At an event of this process: each fork is one."""
    kernel, _, _ = loaded
    form, cpus = format_of(FORK.read_text()), os.sysconf("SC_NPROCESSORS_CONF")
    place = bpf.Place("event", "sched_process_fork", 8, number=form.number)
    marks, memory = kernel.array("marks", ring_bytes(64), cpus)
    log, of_log = kernel.array("log", ring_bytes(64), cpus)
    code = mark_program(2, 0, os.getpid(), marks, 64, log)
    kernel.attach(kernel.load("mark", code, place), place)
    reader = Rings(memory, cpus, 64)
    for _ in range(3):
        subprocess.run(["true"], check=True)
    rows = read(reader.drain())[1]
    assert [word for _, word in rows] == [2 << 42 | os.getpid()] * 3
    step, words = ring_bytes(64) // 8, memoryview(of_log).cast("Q")
    times = [words[cpu * step + TIME_AT // 8] for cpu in range(cpus)]
    assert ARMED in times and set(times) <= {ARMED, DISARMED}
    words.release()
    reader.close()


def test_other_processes_are_left_alone(loaded):
    _, reader, function = loaded
    child = os.fork()
    if not child:
        function(0, 0, 5)
        os._exit(0)
    os.waitpid(child, 0)
    assert read(reader.drain()) == (0, [])


def test_nothing_is_recorded_any_more_once_it_is_detached(loaded):
    kernel, reader, function = loaded
    function(0, 0, 1)
    kernel.detach()
    function(0, 0, 2)
    assert [word >> 22 for _, word in read(reader.drain())[1]] == [1]


def test_what_was_attached_last_is_detached_first(monkeypatch):
    closed, kernel = [], bpf.Kernel()
    monkeypatch.setattr(bpf.os, "close", closed.append)
    kernel._attached += [7, 8, 9]
    kernel.detach()
    kernel.detach()
    assert closed == [9, 8, 7]


def test_programs_are_attached_together_or_not_at_all(loaded):
    """The second is refused: the first one, which was attached already, no longer runs."""
    kernel, _, function = loaded
    path, offset, _ = probed()
    place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
    floor, value = kernel.array("call", 8, 1)
    call = kernel.load("call", call_program(floor), place)
    with pytest.raises(bpf.BpfRefused):
        kernel.attach_all([(call, place), (floor, place)])  # an array is no program
    function(0, 0, 1)
    assert not any(value[:8])
    kernel.attach_all([(call, place)])
    function(0, 0, 1)
    assert any(value[:8])


def is_there(number):
    """Whether the kernel has a program of this number."""
    attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
    found = bpf._libc.syscall(321, 13, attributes, ctypes.c_ulong(12))
    if found >= 0:
        os.close(found)
    return found >= 0


def test_nothing_is_left_in_the_kernel_after_a_death(loaded):
    """A process that has loaded and attached one is killed: no guardian has to tidy up."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        path, offset, _ = probed()
        place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
        kernel = bpf.Kernel()
        program = kernel.load("entry", nothing(), place)
        kernel.attach(program, place)
        info = ctypes.create_string_buffer(232)
        bpf._bpf(15, "info", struct.pack("<IIQ", program, 232, ctypes.addressof(info)))
        os.write(theirs, struct.pack("<I", struct.unpack_from("<I", info.raw, 4)[0]))
        signal.pause()
    (number,) = struct.unpack("<I", os.read(ours, 4))
    assert is_there(number)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not is_there(number), "the program is still there")  # it is freed a little later
    os.close(ours)
    os.close(theirs)


def test_a_program_that_the_verifier_refuses_is_an_error_with_its_words(loaded):
    kernel, _, _ = loaded
    path, offset, _ = probed()
    place = bpf.Place.register("uprobe", path, 2, offset, UPROBES)
    assembler = Assembler()
    assembler.load(program.R0, program.R3, 0)
    assembler.leave()
    with pytest.raises(bpf.BpfRefused, match="R3 !read_ok.*use --capture ftrace"):
        kernel.load("bad", assembler.code(), place)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_without_rights_the_capability_is_named():
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            bpf.Kernel().array("rings", 4096, 1)
            text = "no error"
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        os.write(theirs, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert text.startswith("NoRight")
    assert "CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)" in text
