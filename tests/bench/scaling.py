# SPDX-License-Identifier: Apache-2.0
"""Traces larger than memory: time and memory from a million entries up, within 2 GiB.

Each size is analysed by a process of its own, whose data (all that it allocates) is limited by the
kernel: more than 2 GiB would be a MemoryError. What it really used is said beside it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.timing import CLOCKS, peak_mib

LIMIT = 2 << 30
PAGES = 1 << 20  # 4 GiB of guest memory
WARM = 200_000
# T is not longer than the least trace, that of WARM entries.
T, SURFACE_T, SURFACE_M = "100ms", ("10ms", "100ms"), (1, 2, 4, 8)


def measure(scale):
    """Return the ratios and the rows."""
    from tests.bench.logs import write_trace

    rows, size = [], 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        warm = write_trace(Path(folder) / "warm.trace", WARM, PAGES)
        _analyse(warm, scale)  # compiles, and leaves the result on the disk
        while size <= scale.largest:
            path = Path(folder) / "log.trace"
            started = time.perf_counter()
            write_trace(path, size, PAGES)
            made_s = time.perf_counter() - started
            rows.append({"entries": size, "written s": round(made_s, 1), **_analyse(path, scale)})
            size *= 10
    first, last = rows[0], rows[-1]
    names = ("wss s", "curve s", "surface s", "mrc s")
    linear = {
        f"scaling_{name.split()[0]}": (last[name] / last["entries"])
        / (first[name] / first["entries"])
        for name in names
    }
    peak = max(row["MiB"] for row in rows)
    range_share = last["1 % of the time s"] / last["wss s"]
    return {**linear, "memory_MiB": peak, "range_vs_all": range_share}, rows


def _analyse(path, scale):
    command = [sys.executable, "-m", "tests.bench.scaling", str(path), scale.clock]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(path, clock):
    """Analyse a trace under the limit; print the seconds and the memory as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    from pmlkit import missratio, workingset
    from pmlkit.trace.reader import Trace
    from tests.bench.logs import ROUND_NS

    trace = Trace.open(path)
    end = trace.duration_ns
    middle = {"start": end // 2, "end": end // 2 + max(end // 100, ROUND_NS)}
    calls = {
        "wss s": lambda **when: workingset.estimate(trace, T, **when),
        "curve s": lambda **when: workingset.curve(trace, **when),
        "surface s": lambda **when: workingset.surface(trace, SURFACE_T, SURFACE_M, **when),
        "mrc s": lambda **when: missratio.of_trace(trace, **when),
        "1 % of the time s": lambda **when: workingset.estimate(trace, "10ms", **middle | when),
    }
    found = {}
    for name, call in calls.items():
        call(start="0s", end=T)  # imports, and loads what is compiled
        started = CLOCKS[clock]()
        call()
        found[name] = round(CLOCKS[clock]() - started, 3)
    print(json.dumps({**found, "MiB": round(peak_mib())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
