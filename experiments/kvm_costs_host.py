# SPDX-License-Identifier: Apache-2.0
"""The part of `experiments.kvm_costs` that runs on the lab's KVM host, which has only Python.

For each case it starts the monitor, with or without capture, and records the monitor's rounds: the
case, start and end, the pages that KVM logged, the time of re-arming (ns), and the numbers of
captured and lost entries. No other work runs meanwhile: this process reads the buffers after the
monitor's end. In small buffers (`losses`) most entries are lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import events, layout_of
from pmlkit.kvm import bpf, find, program
from pmlkit.kvm.capture import Bpf, Ftrace
from pmlkit.kvm.frames import LOG
from pmlkit.kvm.host import Host
from pmlkit.kvm.job import KvmOptions
from pmlkit.kvm.rings import BLOCK_HEAD
from pmlkit.kvm.tracefs import Instance, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pmlkit.ftrace import Layout

ROUNDS = 12
LOGS = ("ring", "bitmap")
LOSING = ("ftrace", "kprobe", "fentry")
UNMARKED = "fentry-unmarked"
CAPTURES = ("off", "none", "tracepoint", "ftrace", "kprobe", "fentry", UNMARKED, "ringbuf")
GO = Path("/job/go")
_RINGBUF, _RESERVE, _SUBMIT = 27, 131, 132
_R8 = 8


def main(what: str) -> None:
    """Run the cases of "costs" or "losses"."""
    host, losses = Host(), what == "losses"
    cases = itertools.product(LOGS[:1] if losses else LOGS, LOSING if losses else CAPTURES)
    with open(f"/out/{what}.txt", "w") as out:
        for log, capture in cases:
            if capture == "tracepoint" and log == "bitmap":
                continue  # there is none
            try:
                lines = _case(host, log, capture, 64 if losses else 2048)
            except PmlkitError as error:
                lines = [f"error {error}"]
            out.writelines(f"{log} {capture} {line}\n" for line in lines)
            out.flush()


def _case(host: Host, log: str, capture: str, kib: int) -> list[str]:
    GO.unlink(missing_ok=True)
    words = ["/job/vmm", "--rounds", str(ROUNDS)]
    words += ["--ring", "65536"] if log == "ring" else []
    words += ["--no-log"] if capture == "off" else []
    words += shlex.split(os.environ["VMM"])
    vmm = subprocess.Popen(words, stdout=subprocess.PIPE, cwd="/out")
    assert vmm.stdout is not None
    try:
        if b"ready" not in vmm.stdout.readline():
            return ["error the monitor did not start"]
        vm = find.find(host, str(vmm.pid))
        with _captured(host, capture, vm, kib) as counted:
            GO.touch()
            vmm.wait()
            time.sleep(0.05)
            captured, lost = counted()
    finally:
        vmm.kill()
        vmm.wait()
    rounds = Path("/out/rounds.txt").read_text().splitlines()
    return [f"{line} {captured} {lost}" for line in rounds]


@contextlib.contextmanager
def _captured(
    host: Host, how: str, vm: find.Vm, kib: int
) -> Iterator[Callable[[], tuple[int, int]]]:
    """Capture in one of the ways; gives what returns how many entries were captured, and lost."""
    # A host on which only the kprobe is possible has no marks by BPF, which share times, either.
    options = KvmOptions(marks=how not in (UNMARKED, "kprobe"), buffer_kib=kib)
    threads = sorted(find.threads_of(host, vm.pid))
    if how in ("off", "none"):
        yield lambda: (0, 0)
    elif how == "tracepoint":
        with Instance(host, "costs", kib, _layout(host)) as instance:
            instance.enable("kvm/kvm_dirty_ring_push")
            instance.follow(threads)
            instance.start()
            yield lambda: (instance.counts()["entries"], instance.counts()["overrun"])
    elif how == "ringbuf":
        with _ringbuf(host, vm):
            yield lambda: (0, 0)
    else:
        with _of(host, options, how, vm) as capture:
            capture.start(threads)
            yield lambda: _drained(capture, _layout(host))


def _layout(host: Host) -> Layout:
    layout = layout_of(read(host, host.tracing / "events/header_page"))
    assert layout is not None
    return layout


def _drained(capture: Bpf | Ftrace, layout: Layout) -> tuple[int, int]:
    capture.stop()
    captured = 0
    for stream, _, data in capture.drain():
        if stream == LOG and isinstance(capture, Bpf):
            captured += BLOCK_HEAD.unpack_from(data)[1]
        elif stream == LOG:
            captured += sum(1 for _ in events(data, layout))
    counts = capture.counts()["log"]
    return captured, counts["overrun"] + counts["dropped"]


def _of(host: Host, options: KvmOptions, how: str, vm: find.Vm) -> Bpf | Ftrace:
    if how == "ftrace":
        return Ftrace(host, options)
    places = bpf.entry_places
    where = how.partition("-")[0]
    bpf.entry_places = lambda of: (place for place in places(of) if place.how == where)
    try:
        return Bpf(host, options, vm)
    finally:
        bpf.entry_places = places


@contextlib.contextmanager
def _ringbuf(host: Host, vm: find.Vm) -> Iterator[None]:
    """The kernel's own ring buffer of BPF, by the same trampoline, in place of our rings."""
    with bpf.Kernel() as kernel:
        head = struct.pack("<IIIIIII", _RINGBUF, 0, 0, 1 << 20, 0, 0, 0)
        ring = bpf._bpf(0, "a ring buffer", head + bytes(44))
        place = next(bpf.entry_places(host))
        code = _ringbuf_program(place.frame_at, vm.pid, ring)
        kernel.attach(kernel.load("ringbuf", code, place), place)
        yield
        os.close(ring)


def _ringbuf_program(frame_at: int, process: int, ring: int) -> bytes:
    a = program.Assembler()
    a.load(program.R6, program.R1, frame_at)
    a.call(program.CURRENT_PID_TGID)
    a.by("mov", program.R7, program.R0)
    a.set("rsh", program.R0, 32)
    a.jump("!=", program.R0, process, "out")
    a.take_map(program.R1, ring)
    a.set("mov", program.R2, 16)
    a.set("mov", program.R3, 0)
    a.call(_RESERVE)
    a.jump("==", program.R0, 0, "out")
    a.by("mov", _R8, program.R0)
    a.call(program.KTIME_GET_NS)
    a.store(_R8, 0, program.R0)
    a.set("lsh", program.R6, 22)
    a.set("and", program.R7, (1 << 22) - 1)
    a.by("or", program.R6, program.R7)
    a.store(_R8, 8, program.R6)
    a.by("mov", program.R1, _R8)
    a.set("mov", program.R2, 1)  # nobody is to be woken
    a.call(_SUBMIT)
    a.label("out")
    a.set("mov", program.R0, 0)
    a.leave()
    return a.code()


if __name__ == "__main__":
    main(sys.argv[1])
