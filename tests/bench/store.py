# SPDX-License-Identifier: Apache-2.0
"""The trace store: bytes per entry and rates on the bundled traces, against what one would do
without it: the same columns as plain Parquet (Snappy, Arrow's defaults), and as zstd-CSV."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

import pmlkit
from pmlkit.trace.writer import TraceWriter
from tests.bench.timing import best

COLUMNS = ("round", "batch", "vcpu", "gfn", "kind")
LARGE = 500_000  # entries: below, opening and sealing files is what is measured


def measure(scale):
    """Return the ratios and a row per bundled trace and per nested PML log."""
    rows, totals = [], dict.fromkeys(("entries", "read", "write", "ours", "parquet", "csv"), 0)
    for name in pmlkit.bundled():
        trace = pmlkit.open(pmlkit.bundled(name))
        for label, one in ((name, trace), (f"{name}/pml", trace.pml)):
            found = _of_trace(one, scale)
            rows.append(_row(label, found))
            if found["entries"] >= LARGE:
                totals = {key: totals[key] + found[key] for key in totals}
    entries = totals["entries"]
    return {
        "store_bytes_per_entry": max(row["bytes/entry"] for row in rows),
        "store_read_millions": entries / totals["read"] / 1e6,
        "store_write_millions": entries / totals["write"] / 1e6,
        "plain_parquet_vs_store": totals["parquet"] / totals["ours"],
        "zstd_csv_vs_store": totals["csv"] / totals["ours"],
    }, rows


def _of_trace(trace, scale):
    """Measure one trace: seconds and bytes."""
    entries = trace.entries()
    with tempfile.TemporaryDirectory() as folder:
        turns = {"read": trace.entries, "write": lambda: _write(trace, entries, folder)}
        seconds, _ = best(turns, scale)
        sizes = {"parquet": _plain(entries, folder), "csv": _csv(entries, folder)}
    ours = sum(path.stat().st_size for path in (trace.path / "entries").glob("*.parquet"))
    return {"entries": len(entries), "ours": ours, **seconds, **sizes}


def _row(label, found):
    entries = max(found["entries"], 1)
    return {
        "trace": label,
        "entries": found["entries"],
        "bytes/entry": round(found["ours"] / entries, 2),
        "plain Parquet": round(found["parquet"] / entries, 2),
        "zstd CSV": round(found["csv"] / entries, 2),
        "read million/s": round(entries / found["read"] / 1e6, 1),
        "written million/s": round(entries / found["write"] / 1e6, 1),
    }


def _write(trace, entries, folder):
    """Write the entries anew, as a trace that is checked, sealed and on the disk."""
    arrays = [entries.column(name).to_numpy() for name in COLUMNS]
    with TraceWriter(Path(folder) / "copy.trace", trace.meta, overwrite=True) as writer:
        writer.add_entries(*arrays)
        writer.set_rounds(trace.rounds)
        writer.set_batches(trace.batches)


def _plain(entries, folder):
    path = Path(folder) / "plain.parquet"
    pq.write_table(entries, path)
    return path.stat().st_size


def _csv(entries, folder):
    path = Path(folder) / "entries.csv.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        csv.write_csv(entries, stream)
    return path.stat().st_size
