# SPDX-License-Identifier: Apache-2.0
"""The part of `host_costs` that runs on the KVM lab's host: it times the kernel's own work.

Needs Python 3.9. Appends a line of JSON for each round to ``costs.jsonl``, times in ns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from steps import PAGE, Monitor

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 8
SIZES_MIB = (32, 64)
GROUP = Path("/sys/fs/cgroup/vm")
LRU = Path("/sys/kernel/debug/lru_gen")


def save(**facts: object) -> None:
    """Append a line to the results."""
    with open("costs.jsonl", "a") as file:
        file.write(json.dumps(facts) + "\n")


def timed(work: Callable[[], object]) -> int:
    """Return the duration of the work, ns."""
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start


def generation() -> str:
    """Return the command that begins a generation of the monitor's group."""
    number, newest, mine = "", 0, False
    for line in LRU.read_text().splitlines():
        words = line.split()
        if words[:1] == ["memcg"]:
            mine = len(words) > 2 and words[2] == "/vm"
            number = words[1] if mine else number
        elif mine and len(words) == 4:
            newest = max(newest, int(words[0]))
    return f"+ {number} 0 {newest} 1 1\n"


def age() -> int:
    """Begin a generation; return the kernel's time, ns."""
    words = generation().encode()
    file = os.open(LRU, os.O_WRONLY)
    took = timed(lambda: os.write(file, words))
    os.close(file)
    return took


def look(mib: int) -> None:
    """Time rounds of a guest: alone, with soft-dirty bits, and with agings."""
    with Monitor(memory_mib=mib, group=str(GROUP)) as monitor:
        proc, pages = Path(f"/proc/{monitor.pid}"), mib * 256
        pagemap, clear = os.open(proc / "pagemap", os.O_RDONLY), proc / "clear_refs"
        place = monitor.memory // PAGE * 8
        for number in range(-1, ROUNDS):
            plain = timed(monitor.round)
            cleared = timed(lambda: clear.write_text("4"))
            dirty = timed(monitor.round)
            read = timed(lambda: os.pread(pagemap, pages * 8, place))
            age()
            monitor.round()
            young, idle = age(), age()
            if number >= 0:
                save(memory_mib=mib, round=number, plain=plain, clear=cleared, dirty=dirty,
                     pagemap=read, young=young, idle=idle)  # fmt: skip
        os.close(pagemap)


def main() -> None:
    """Time the rounds of guests of each size."""
    Path("/sys/kernel/mm/lru_gen/enabled").write_text("y")
    subprocess.run(["mount", "-t", "cgroup2", "none", str(GROUP.parent)], check=True)
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    GROUP.mkdir()
    for mib in SIZES_MIB:
        look(mib)
    print("done")


if __name__ == "__main__":
    sys.exit(main())
