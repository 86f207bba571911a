# SPDX-License-Identifier: Apache-2.0
"""From the ring to the spool, and from the spool to Parquet: rates, memory, bytes an entry.

The library's reader and Xen's writer of rings are those of the patch series (`tests.fake_xen`); the
entries are a real log's. Each step runs in a process of its own, so that its memory is its own. CPU
time stands beside the wall's: on a busy machine only the former says what the code does.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_TURN = 8192 * 512  # entries that are made and drained at a time
_FILL = """
import ctypes, json, sys, time
from pmlkit.spool import SpoolWriter
from pmlkit.xen import frames
from pmlkit.xen.job import Job
from pmlkit.xen.pml import Patched
from tests.bench.timing import peak_mib
path, turns = sys.argv[1], int(sys.argv[2])
made = ctypes.CDLL("libxenpml.so.1")
wall = cpu = 0.0
with Patched(Job(slots=4096), 5) as source:
    domain = {"name": "guest", "memory_bytes": 256 << 20, "domid": 5}
    header = {"source": "xen", "job": {"period_s": 1.0}, "domain": domain, **source.facts()}
    with SpoolWriter(path, header) as writer:
        for number in range(turns):
            made.fake_produce(0, 4096)
            made.fake_produce(1, 4096)
            start, used = time.perf_counter(), time.process_time()
            source.drain(writer)
            wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - used
            source.close_round(writer, number)
        source.finish(writer)
        writer.append(frames.Frame.END, frames.pack_json(complete=True))
n = turns * 8192 * 512
peak = peak_mib()
print(json.dumps({"entries": n, "wall_s": wall, "cpu_s": cpu, "peak_mib": peak}))
"""
_INGEST = """
import json, sys, time
import pmlkit.sources.host.ingest
from pmlkit.sources.ingest import ingest
from tests.bench.timing import peak_mib
start, used = time.perf_counter(), time.process_time()
trace = ingest(sys.argv[1], sys.argv[2])
wall, cpu = time.perf_counter() - start, time.process_time() - used
peak = peak_mib()
print(json.dumps({"entries": trace.meta.entries, "wall_s": wall, "cpu_s": cpu, "peak_mib": peak,
                  "bytes_per_entry": trace.bytes_per_entry}))
"""


def measure(scale):
    """Return the ratios (see `tests.bench.goals`), and one row per step."""
    import fake_xen

    turns = max(2, 2 * scale.entries // _TURN)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        xen = fake_xen.FakeXen(fake_xen.build(folder / "libraries"), folder / "host")
        xen.folder.mkdir()
        xen.domains((5, "guest", fake_xen.RUNNING))
        words = _words(folder / "words")
        environment = xen.environment(FAKE_PACE_US=-1, FAKE_WORDS=words)
        spool = folder / "x.trace.spool"
        spool.mkdir()
        filled = _run(_FILL, environment, spool / "frames.spool", turns)
        stored = _run(_INGEST, environment, spool, folder / "x.trace")
    clock = f"{scale.clock}_s"
    ratios = {
        "ring_to_spool_millions": filled["entries"] / filled[clock] / 1e6,
        "spool_to_parquet_millions": stored["entries"] / stored[clock] / 1e6,
        "collection_MiB": max(filled["peak_mib"], stored["peak_mib"]),
        "collection_bytes_per_entry": stored["bytes_per_entry"],
    }
    return ratios, [_row("ring to spool", filled), _row("spool to Parquet", stored)]


def _words(path):
    """Write a real log as words (gfn << 12 | kind)."""
    import numpy as np

    import pmlkit

    log = pmlkit.open(pmlkit.bundled("sqlite")).pml.entries(["gfn", "kind"])
    gfn, kind = (log.column(name).to_numpy().astype(np.uint64) for name in ("gfn", "kind"))
    (gfn << np.uint64(12) | kind).tofile(path)
    return path


def _run(code, environment, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _row(step, told):
    return {
        "step": step,
        "entries": told["entries"],
        "entries_per_s": round(told["entries"] / told["wall_s"]),
        "entries_per_cpu_s": round(told["entries"] / told["cpu_s"]),
        "peak_mib": round(told["peak_mib"]),
        "bytes_per_entry": round(told.get("bytes_per_entry", 8), 2),
    }
