# SPDX-License-Identifier: Apache-2.0
"""Logs to measure with: made from a seed, in arrays or as traces of any length."""

import numpy as np

from pmlkit.trace.kinds import Kind
from pmlkit.trace.schema import TraceMeta
from pmlkit.trace.writer import TraceWriter

ROUND_NS = 10_000_000
PER_ROUND = 20_000  # entries: a busy guest's in 10 ms
CHUNK = 1 << 22


def zipf(entries, pages, seed=0):
    """Draw pages by Zipf's law (exponent 1), their numbers in random order; uint64."""
    out = np.empty(entries, np.uint64)
    for start, chunk in zipf_chunks(entries, pages, seed):
        out[start : start + len(chunk)] = chunk
    return out


def zipf_chunks(entries, pages, seed=0):
    """Yield (start, pages) of the same draw, a chunk at a time."""
    rng = np.random.default_rng(seed)
    # Runs of 16 frames stay together, as a guest's buffers do.
    blocks = rng.permutation(-(-pages // 16)).astype(np.uint64) * np.uint64(16)
    for start in range(0, entries, CHUNK):
        size = min(CHUNK, entries - start)
        rank = np.exp(rng.random(size) * np.log(pages)).astype(np.uint64) - np.uint64(1)
        yield start, blocks[rank // np.uint64(16)] + rank % np.uint64(16)


def uniform(entries, pages, seed=0):
    """Draw pages evenly; uint64."""
    return np.random.default_rng(seed).integers(0, pages, entries).astype(np.uint64)


def rounds_of(entries, per_round=PER_ROUND):
    """Return the round of each entry (uint32) and the number of rounds."""
    return (np.arange(entries) // per_round).astype(np.uint32), -(-entries // per_round)


def write_trace(path, entries, pages=1 << 20, seed=0):
    """Write a PML log of `entries` drawn by Zipf's law, in bounded memory; return its path."""
    n_rounds = -(-entries // PER_ROUND)
    meta = TraceMeta(
        kind="pml",
        source="synthetic",
        domain={"name": "bench", "memory_bytes": pages * 4096, "vcpus": 1},
        memory_map=[{"start": 0, "end": pages * 4096, "type": "usable"}],
        clock={"kind": "icount", "ns_per_insn": 1.0},
        period={"ns": ROUND_NS},
    )
    with TraceWriter(path, meta, overwrite=True) as writer:
        for start, gfns in zipf_chunks(entries, pages, seed):
            rounds = ((start + np.arange(len(gfns))) // PER_ROUND).astype(np.uint32)
            writer.add_entries(rounds, rounds, 0, gfns, int(Kind.WRITE))
        times = np.arange(n_rounds + 1, dtype=np.int64) * ROUND_NS
        spans = {"t_start_ns": times[:-1], "t_end_ns": times[1:]}
        writer.set_rounds({"round": np.arange(n_rounds), **spans, "asked_ns": ROUND_NS})
    return path
