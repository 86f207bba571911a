# SPDX-License-Identifier: Apache-2.0
"""Miss-ratio curves: all sizes at once, against libCacheSim's LRU at one, and a classical tree."""

import tempfile
from pathlib import Path

import classical_lru
import numpy as np

import pmlkit
from pmlkit import missratio
from tests.bench.logs import uniform, zipf
from tests.bench.timing import best, rate_rows

FEW, MANY = 30_000, 1_000_000  # pages
RECORD = np.dtype([("t", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
FIXED = 8192  # pages of SHARDS of fixed size, as in its paper


def measure(scale):
    """Return the ratios and the rows."""
    ratios, rows = {}, []
    for name, gfns in {
        f"Zipf, {FEW:,} pages": zipf(scale.entries, FEW),
        f"uniform, {MANY:,} pages": uniform(scale.entries, MANY),
    }.items():
        seconds = _turns(scale, gfns)
        suffix = "" if name.startswith("Zipf") else "_million_pages"
        exact = seconds["exact, all sizes"]
        against = {
            "mrc_exact_vs_libcachesim_one_size": seconds["libCacheSim LRU, one size"] / exact,
            "mrc_exact_vs_classical_tree": seconds["classical tree"] / exact,
            "shards_vs_exact": exact / seconds["SHARDS, 1 %"],
            "shards_vs_numpy_pass": seconds["numpy pass"] / seconds["SHARDS, 1 %"],
        }
        ratios |= {key + suffix: value for key, value in against.items()}
        rows += rate_rows(name, scale.entries, seconds)
    errors = [_errors(name) for name in _traces()]
    ratios["shards_mae"] = max(row["SHARDS 1 %"] for row in errors)
    ratios["shards_mae_fixed_size"] = max(row[f"SHARDS {FIXED}"] for row in errors)
    ratios["shards_mae_min_pages"] = max(row[f"SHARDS 1 %, {FIXED} or more"] for row in errors)
    ratios["aet_mae"] = max(row["AET"] for row in errors)
    return ratios, rows + errors


def _turns(scale, gfns):
    import libcachesim

    few = gfns[:1000]
    for method in (missratio.exact, missratio.aet, missratio.shards):
        method(few)  # compiles
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.bin"
        _write_oracle(path, gfns)
        size = int(gfns.max()) // 10

        def one_size():
            reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
            return libcachesim.LRU(size).process_trace(reader)[0]

        contenders = {
            "exact, all sizes": lambda: missratio.exact(gfns),
            "SHARDS, 1 %": lambda: missratio.shards(gfns, rate=0.01, groups=0),
            "AET": lambda: missratio.aet(gfns),
            "libCacheSim LRU, one size": one_size,
            "classical tree": lambda: _classical(gfns),
            "numpy pass": gfns.sum,
        }
        once = ("libCacheSim LRU, one size", "classical tree")
        seconds, found = best(contenders, scale, once)
    ours = found["exact, all sizes"].at(size)
    if abs(ours - found["libCacheSim LRU, one size"]) > 1e-9:
        raise AssertionError("libCacheSim gives another answer")
    if not np.array_equal(found["exact, all sizes"].miss_ratio, found["classical tree"]):
        raise AssertionError("the classical tree gives another answer")
    return seconds


def _write_oracle(path, gfns):
    """Write what libCacheSim reads fastest: its binary format. Object 0 is none there."""
    records = np.zeros(len(gfns), RECORD)
    records["id"], records["size"], records["next"] = gfns + np.uint64(1), 1, -1
    records.tofile(path)


def _classical(gfns):
    out = classical_lru.distances(gfns)
    counts = np.bincount(out[out >= 0], minlength=np.count_nonzero(out < 0))
    return (len(gfns) - np.concatenate(([0], np.cumsum(counts)))) / len(gfns)


def _traces():
    for name in pmlkit.bundled():
        trace = pmlkit.open(pmlkit.bundled(name))
        yield name, trace
        yield f"{name}/pml", trace.pml


def _errors(named):
    name, trace = named
    truth = missratio.of_trace(trace)
    curves = {
        "SHARDS 1 %": missratio.of_trace(trace, "shards", rate=0.01, groups=0),
        f"SHARDS {FIXED}": missratio.of_trace(trace, "shards", rate=1.0, max_pages=FIXED, groups=0),
        f"SHARDS 1 %, {FIXED} or more": missratio.of_trace(
            trace, "shards", rate=0.01, groups=0, min_pages=FIXED
        ),
        "AET": missratio.of_trace(trace, "aet"),
    }
    errors = {n: round(c.errors(truth)[0], 5) for n, c in curves.items()}
    return {"mean absolute error": name, "pages": truth.pages, **errors}
