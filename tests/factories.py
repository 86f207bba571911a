# SPDX-License-Identifier: Apache-2.0
"""Small synthetic traces, written through `TraceWriter` like every other."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from pmlkit.trace import manifest
from pmlkit.trace.kinds import Kind
from pmlkit.trace.parquet import write_table
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import TraceMeta
from pmlkit.trace.writer import TraceWriter

CREATED = "2024-01-31T12:00:00+00:00"
BUFFER_ENTRIES = 512


def make_meta(kind="access", memory_bytes=16 << 20, round_ns=10_000_000, **fields):
    """Describe a synthetic trace of a domain whose RAM is one range from 0."""
    defaults = {
        "source": "synthetic",
        "domain": {"name": "synthetic", "memory_bytes": memory_bytes, "vcpus": 1},
        "memory_map": [{"start": 0, "end": memory_bytes, "type": "usable"}],
        "clock": {"kind": "icount", "ns_per_insn": 1.0},
        "period": {"ns": round_ns},
        "created": CREATED,
    }
    return TraceMeta(kind=kind, **{**defaults, **fields})


def random_events(rounds=5, pages=64, seed=0):
    """Draw first events: for each round a list of (gfn, kind), as an access trace orders them."""
    return [_random_round(pages, np.random.default_rng((seed, r))) for r in range(rounds)]


def _random_round(pages, rng):
    touched = [(int(gfn), kind) for kind in (Kind.READ, Kind.WRITE) for gfn in _some(pages, rng)]
    order = rng.permutation(len(touched))
    executed = [(int(gfn), Kind.EXEC) for gfn in np.sort(_some(pages, rng)[: pages // 8])]
    return [touched[i] for i in order] + executed


def _some(pages, rng):
    return rng.permutation(pages)[: rng.integers(0, pages + 1)]


def make_trace(
    path,
    rounds=5,
    *,
    kind="access",
    events=None,
    pages=64,
    seed=0,
    round_ns=10_000_000,
    phases=None,
    regions=None,
    guest=False,
    pml=True,
    overwrite=False,
    row_group_rows=1 << 20,
    **meta,
):
    """Write a small trace.

    Parameters
    ----------
    path : path-like
    rounds : int
        Number of rounds; not used if `events` are given.
    kind : {"access", "pml"}
        Of a PML log only the events WRITE are written, in batches of 512.
    events : list of list of (gfn, kind), optional
        The entries of each round, in order; drawn from `seed` over `pages` frames without.
    round_ns : int
        Length of every round; an instruction takes 1 ns.
    phases : list of (name, round), optional
    regions : list of (name, first gfn, pages), optional
    guest : bool
        Whether to add the guest's view, two samples a round.
    pml : bool
        Whether an access trace gets a nested PML log.
    **meta
        Further fields of `TraceMeta`, or memory_bytes.

    Returns
    -------
    Path
    """
    events = random_events(rounds, pages, seed) if events is None else events
    tables = {"phases": phases or [], "regions": regions or [], "round_ns": round_ns}
    log = [[gfn for gfn, k in row if k == Kind.WRITE] for row in events]
    described = make_meta(kind, round_ns=round_ns, **meta)
    options = {"overwrite": overwrite, "row_group_rows": row_group_rows}
    with TraceWriter(path, described, **options) as writer:
        if kind == "pml":
            write_log(writer, log, **tables)
            return Path(path)
        write_events(writer, events, **tables)
        if guest:
            writer.set_guest(guest_view(len(events), round_ns))
        if pml:
            nested = writer.pml(make_meta("pml", round_ns=round_ns, **meta))
            write_log(nested, log, **tables)
    return Path(path)


def write_events(writer, events, **tables):
    """Write the entries of an access trace, one batch a round."""
    for index, row in enumerate(events):
        if row:
            gfn, kinds = zip(*row, strict=True)
            gfn = np.array(gfn, dtype=np.uint64)
            writer.add_entries(index, index, 0, gfn, [int(k) for k in kinds])
    write_tables(writer, len(events), **tables)


def write_irregular(path, events, lengths_ns, **meta):
    """Write an access trace whose rounds have these lengths; a gap is a long one of nothing."""
    meta = make_meta(**{"clock": {"kind": "host"}, "period": {"ns": None}, **meta})
    ends = np.cumsum(lengths_ns)
    with TraceWriter(path, meta, overwrite=True) as writer:
        for index, row in enumerate(events):
            if row:
                gfn, kinds = zip(*row, strict=True)
                kinds = [int(kind) for kind in kinds]
                writer.add_entries(index, index, 0, np.array(gfn, np.uint64), kinds)
        times = {"t_start_ns": ends - lengths_ns, "t_end_ns": ends}
        writer.set_rounds({"round": np.arange(len(events)), **times})
    return Trace.open(path)


def write_log(writer, log, **tables):
    """Write a PML log: for each round the frames in order; the buffer is drained when full."""
    batches = []
    for index, frames in enumerate(log):
        frames = np.array(frames, dtype=np.uint64)
        for start in range(0, len(frames) + 1, BUFFER_ENTRIES):
            part = frames[start : start + BUFFER_ENTRIES]
            writer.add_entries(index, len(batches), 0, part, Kind.WRITE)
            batches.append((index, "full" if start + BUFFER_ENTRIES <= len(frames) else "round"))
    index, reason = zip(*batches, strict=True) if batches else ((), ())
    index = np.array(index, dtype=np.int64)
    times = _spans(index, tables["round_ns"])
    writer.set_batches({"batch": np.arange(len(index)), "round": index, "reason": reason, **times})
    write_tables(writer, len(log), **tables)


def write_tables(writer, n_rounds, *, round_ns, phases, regions):
    """Write rounds of equal length, phases and regions."""
    index = np.arange(n_rounds)
    writer.set_rounds({"round": index, **_spans(index, round_ns), "asked_ns": round_ns})
    writer.set_phases(
        {"name": name, "round": r, "t_ns": r * round_ns, "insn": r * round_ns} for name, r in phases
    )
    writer.set_regions([dict(zip(("name", "gfn", "pages"), r, strict=True)) for r in regions])


def _spans(index, round_ns):
    start, end = index * round_ns, (index + 1) * round_ns
    return {"t_start_ns": start, "t_end_ns": end, "insn_start": start, "insn_end": end}


def guest_view(n_rounds, round_ns, total_bytes=16 << 20):
    """Make up what a guest says of its memory, two samples a round."""
    t_ns = np.arange(2 * n_rounds) * (round_ns // 2)
    free = total_bytes - 4096 * (100 + np.arange(len(t_ns)))
    sizes = dict.fromkeys(("available", "cached", "committed", "anon", "slab"), free // 2)
    sizes |= {"total": np.full(len(t_ns), total_bytes), "free": free}
    sizes["allocated"] = total_bytes - free
    return {"t_ns": t_ns, "insn": t_ns, **{f"{name}_bytes": size for name, size in sizes.items()}}


def reseal(path, tables=None, **changes):
    """Change a trace and write its digests anew: wrong in content, and right in its digests.

    Parameters
    ----------
    path : path-like
    tables : dict, optional
        By file name (``rounds.parquet``), the pyarrow.Table that it is to hold.
    **changes
        Fields of ``trace.json``.
    """
    path = Path(path)
    document = manifest.load(path)
    for name, table in (tables or {}).items():
        (path / name).unlink()
        document["files"][name] |= write_table(path / name, table)
    for key in ("format", "version"):
        document.pop(key)
    (path / manifest.NAME).write_bytes(manifest.encode({**document, **changes}))


# Of its own: what getrusage gives begins with the size of the process that started it.
PEAK = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from pmlkit.cli.app import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def peak_kb(*words):
    """Run a command; returns its exit code, its peak memory in KiB, and what it said.

    A command that needs a minute of the processor's time is killed.
    """
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True)
    *said, last = done.stderr.splitlines()
    code, peak = map(int, last.split())
    return code, peak, said
