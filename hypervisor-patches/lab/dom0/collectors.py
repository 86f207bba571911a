# SPDX-License-Identifier: GPL-2.0-only
"""Collectors that stop, are killed, or run out of memory, in each phase of a collection.

    python3 collectors.py    the guest is `hostile`, with more pages than libxenpml fetches at once

Each time the guest must continue, and the next collection must be complete. Prints JSON lines.
"""

import contextlib
import ctypes
import json
import mmap
import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import traced
from cycles import free_bytes
from hostile import DATA, Domain

from pmlkit.xen.binding import XenError
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import ROUND_GUIDED, Handle, PmlLog

OPTIONS = LogOptions(slots=256, page_tables="mark", harvest="guided")
PAGES, LIMIT_S = 9000, 20.0
STOPPED_S = 11.0  # longer than Xen waits for a continuation
STOPS_AT = (0.2, 0.5, 0.7, 0.95)  # share of the calls of a collection
ROOM_KIB = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
GROUP, GROUP_BYTES = Path("/tmp/cgroup/collector"), 24 << 20
PHASES = ("enabling", "logging", "closing", "disabling")
_ADDRESS_SPACE = 9  # RLIMIT_AS


def say(what, **answer):
    print("COLLECTORS", json.dumps([what, answer]), flush=True)


def collect(domid, n, at=lambda phase: None):
    """Log the guest's round n; returns how many frames of data were touched.

    `at` is told which phase begins.
    """
    at("enabling")
    log = PmlLog(domid, OPTIONS)
    try:
        at("logging")
        with Mailbox(domid) as box:
            box.run(n, LIMIT_S)
        at("closing")
        words = memoryview(log.close_round(ROUND_GUIDED)["touched"]).cast("Q")
        for _ in log.read():
            pass
        at("disabling")
    finally:
        log.close()
    return sum(DATA <= word >> 12 < DATA + PAGES for word in words)


def afterwards(domain):
    """Return whether the guest runs, and whether the next collection is complete."""
    running = domain.run(LIMIT_S)
    with Handle(domain.domid) as handle:
        state = handle.status()["state"]
        if state:
            handle.disable()
    with PmlLog(domain.domid, OPTIONS) as log:
        domain.run(LIMIT_S)
        words = memoryview(log.close_round(ROUND_GUIDED)["touched"]).cast("Q")
        whole = sum(DATA <= word >> 12 < DATA + PAGES for word in words) == PAGES
    return {"running": running, "whole": whole, "state": state}


def start(domain):
    """Start a collection that can be stopped; returns the process."""
    domain.n += 1
    return traced.start(lambda: collect(domain.domid, domain.n))


def killed(domain):
    """Kill a collection at each of its calls; return the number of calls."""
    told, stop = Counter(), 0
    while True:
        stop += 1
        pid = start(domain)
        if traced.run_to(pid, stop) < stop:
            break
        traced.kill(pid)
        told.update(judge(domain, stop % 4 == 0))
    say("killed", stops=stop - 1, told=told)
    return stop - 1


def judge(domain, whole=True):
    """Return the results of `afterwards` to count; without `whole`, only whether the guest runs."""
    if not whole:
        running = domain.run(LIMIT_S)
        with Handle(domain.domid) as handle:
            if handle.status()["state"]:
                handle.disable()
        return {"runs" if running else "stands": 1}
    answer = afterwards(domain)
    names = ["runs" if answer["running"] else "stands", "whole" if answer["whole"] else "cut"]
    return dict.fromkeys(names, 1)


def stopped(domains, calls):
    """Stop a collection of each domain at another of its calls, all for 11 s."""
    pids = []
    for domain, where in zip(domains, STOPS_AT, strict=True):
        pid = start(domain)
        traced.run_to(pid, max(1, int(where * calls)))
        pids.append(pid)
    time.sleep(STOPPED_S)
    running = [domain.run(LIMIT_S) for domain in domains]
    ends = [traced.let_go(pid) for pid in pids]
    whole = [afterwards(domain) for domain in domains]
    say("stopped", running=running, ends=ends, afterwards=whole)


def limited(domain):
    """Give a collection increasing amounts of memory, from none to enough."""
    told, ends = Counter(), []
    for room in ROOM_KIB:
        page = mmap.mmap(-1, 64)
        domain.n += 1

        def work(page=page, room=room):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + (room << 10)
            traced.LIBC.setrlimit(_ADDRESS_SPACE, ctypes.byref((ctypes.c_ulong * 2)(size, size)))
            try:
                page[:1] = b"d" if collect(domain.domid, domain.n) else b"0"
            except MemoryError:
                page[:1] = b"m"
            except XenError as error:
                page[:1] = b"x" if error.errno == 12 else b"e"

        os.waitpid(traced.fork(work), 0)
        ends.append(page[:1].decode())
        told.update(judge(domain))
    say("limited", ends=ends, told=told)


def exhausted(domain):
    """Let the kernel kill a collection for lack of memory, in each phase."""
    GROUP.parent.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", str(GROUP.parent)], check=True)
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory")
    GROUP.mkdir()
    (GROUP / "memory.max").write_text(str(GROUP_BYTES))
    told, ends = Counter(), []
    for phase in PHASES:
        domain.n += 1

        def work(phase=phase):
            def eat(now):
                if now == phase:
                    threading.Thread(target=waste, daemon=True).start()

            (GROUP / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(XenError):
                while True:
                    collect(domain.domid, domain.n, eat)

        ends.append(os.waitpid(traced.fork(work), 0)[1])
        told.update(judge(domain))
    kills = dict(line.split() for line in (GROUP / "memory.events").read_text().splitlines())
    say("exhausted", ends=ends, kills=int(kills["oom_kill"]), told=told)


def waste():
    """Allocate memory until none is left."""
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1) * (1 << 18)))
        time.sleep(0.0002)


def main():
    with Domain("c", pages=PAGES) as domain:
        afterwards(domain)
        before = free_bytes()
        calls = killed(domain)
        limited(domain)
        exhausted(domain)
        say("memory", lost_bytes=before - free_bytes())
    # Each process uses its share of the processor, even while it waits.
    with contextlib.ExitStack() as stack:
        names = [f"c{i}" for i in range(len(STOPS_AT))]
        domains = [stack.enter_context(Domain(name, pages=PAGES)) for name in names]
        stopped(domains, calls)
    say("end", ended=True)


if __name__ == "__main__":
    os.chdir("/job")
    main()
