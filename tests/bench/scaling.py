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

LIMIT = 2 << 30
PAGES = 1 << 20  # 4 GiB of guest memory
WARM = 200_000


def measure(scale):
    """Return the ratios and the rows."""
    from tests.bench.logs import write_trace

    rows, size = [], 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        warm = write_trace(Path(folder) / "warm.trace", WARM, PAGES)
        _analyse(warm)  # compiles, and leaves the result on the disk
        while size <= scale.largest:
            path = Path(folder) / "log.trace"
            started = time.perf_counter()
            write_trace(path, size, PAGES)
            made_s = time.perf_counter() - started
            rows.append({"entries": size, "written s": round(made_s, 1), **_analyse(path)})
            size *= 10
    first = rows[min(1, len(rows) - 1)]
    last = rows[-1]
    names = ("wss s", "curve s", "mrc s")
    linear = {
        f"scaling_{name.split()[0]}": (last[name] / last["entries"])
        / (first[name] / first["entries"])
        for name in names
    }
    peak = max(row["MiB"] for row in rows)
    range_share = last["1 % of the time s"] / last["wss s"]
    return {**linear, "memory_MiB": peak, "range_vs_all": range_share}, rows


def _analyse(path):
    command = [sys.executable, "-m", "tests.bench.scaling", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(path):
    """Analyse a trace under the limit; print the seconds and the memory as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    from pmlkit import missratio, workingset
    from pmlkit.trace import Trace

    trace = Trace.open(path)
    end = trace.duration_ns
    calls = {
        "wss s": lambda: workingset.estimate(trace, "1s"),
        "curve s": lambda: workingset.curve(trace),
        "surface s": lambda: workingset.surface(trace, ["100ms", "1s"], [1, 2, 4, 8]),
        "mrc s": lambda: missratio.of_trace(trace),
        "1 % of the time s": lambda: workingset.estimate(
            trace, "10ms", start=end // 2, end=end // 2 + end // 100
        ),
    }
    found = {}
    for name, call in calls.items():
        started = time.perf_counter()
        call()
        found[name] = round(time.perf_counter() - started, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**found, "MiB": round(peak / 1024)}))


if __name__ == "__main__":
    main(sys.argv[1])
