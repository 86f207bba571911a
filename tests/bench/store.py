# SPDX-License-Identifier: Apache-2.0
"""Bytes per entry and rates of the trace store, on the bundled traces."""

import tempfile
import time
from pathlib import Path

import pmlkit


def measure():
    """Return one row per bundled trace and per nested PML log."""
    rows = []
    for name in pmlkit.bundled():
        trace = pmlkit.open(pmlkit.bundled(name))
        rows += [_row(name, trace), _row(f"{name}/pml", trace.pml)]
    return rows


def _row(name, trace):
    size = sum(path.stat().st_size for path in (trace.path / "entries").glob("*.parquet"))
    started = time.perf_counter()
    entries = trace.entries()
    read_s = time.perf_counter() - started
    return {
        "trace": name,
        "entries": len(entries),
        "bytes_per_entry": round(size / max(1, len(entries)), 2),
        "read_entries_per_s": round(len(entries) / read_s),
        "write_entries_per_s": round(len(entries) / _write_s(trace, entries)),
    }


def _write_s(trace, entries):
    columns = ("round", "batch", "vcpu", "gfn", "kind")
    arrays = [entries.column(name).to_numpy() for name in columns]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with pmlkit.TraceWriter(Path(folder) / "copy.trace", trace.meta) as writer:
            writer.add_entries(*arrays)
            writer.set_rounds(trace.rounds)
            writer.set_batches(trace.batches)
        return time.perf_counter() - started
