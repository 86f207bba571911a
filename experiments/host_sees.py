# SPDX-License-Identifier: Apache-2.0
"""The pages of a guest that each method of a KVM host sees, in the lab.

The guest, `mixed` of the lab's kit, reads 10 MiB and writes 7 MiB. Each of Debian's kernels boots
once on the emulated processor, and our monitor runs the guest round by round (`host_sees_job`).
Each method is reset before a round and read after it. DAMON samples by the clock, so the guest runs
freely for it.

    python -m experiments.host_sees RUNS data/host-sees [KERNEL]...

Boots the named kernels, or all, unless their results are in the folder RUNS. Then it writes the
tables of all results there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments import made
from pmlkit import reads
from pmlkit.errors import PmlkitError
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.kvm import ingest, session, steps
from pmlkit.trace.kinds import Kind, TableFlag
from pmlkit.trace.reader import Trace
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pmlkit.types import Json, Tell

    Words = NDArray[np.uint64]

__all__ = ["WAYS", "classify", "run", "summary", "tabulate"]

GUEST = "mixed"
KERNELS = ("6.1", "6.12")
LOGS = ("bitmap", "ring")
# Position of the guest's page tables: hypervisor-patches/lab/kit/kit.h.
TABLES, ROOT, DIRECTORIES, LEAVES = 2048, 2049, 2050, 2064
ENTRIES = 512
PRESENT = 1
FLAGS = {2: TableFlag.WRITABLE, 4: TableFlag.USER, 0x20: TableFlag.ACCESSED, 0x40: TableFlag.DIRTY}
CLASSES = ("written", "read", "tables", "other")
HOST, QEMU, OURS = "host", "QEMU", "pmlkit"
# The methods in the figure's order: name and group of each. Our monitor computes the counts of
# QEMU's calc-dirty-rate here, with the calls that QEMU makes.
WAYS = {
    "clear_refs": ("clear_refs, Referenced", HOST),
    "page_idle": ("page_idle", HOST),
    "soft-dirty": ("soft-dirty", HOST),
    "damon": ("DAMON", HOST),
    "mglru": ("MGLRU aging", HOST),
    "page-sampling": ("rate: page-sampling", QEMU),
    "dirty-bitmap": ("rate: dirty-bitmap", QEMU),
    "dirty-ring": ("rate: dirty-ring", QEMU),
    "log-bitmap": ("our log, bitmap", OURS),
    "log-ring": ("our log, ring", OURS),
    "reads": ("our reads", OURS),
}


def run(folder: Path, kernel: str, progress: Tell = print) -> Path:
    """Boot a kernel and apply the methods, unless the folder has the results; return them."""
    out = folder / kernel
    if not (out / "status").exists():
        here = Path(__file__).parent
        files = {"job.py": (here / "host_sees_job.py").read_text()}
        options = session.KvmLabOptions(kernel=kernel, script=steps.script(files, "job.py"))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            spool = Path(scratch) / kernel
            spool.mkdir()
            session.collect(lab_guests.load(GUEST), spool, options, progress)
            if (spool / "status").read_text().strip() != "0":
                said = (spool / "said.txt").read_text()
                raise PmlkitError(f"the job on Linux {kernel} failed", said[-2000:])
            spool.replace(out)
    return out


def classify(spans: list[list[int]], regions: dict[str, range]) -> dict[str, int]:
    """Return the number of frames of spans (first, count) in each region, and in none."""
    counts = dict.fromkeys(CLASSES, 0)
    for first, pages in spans:
        left = pages
        for name, region in regions.items():
            inside = max(0, min(first + pages, region.stop) - max(first, region.start))
            counts[name] += inside
            left -= inside
        counts["other"] += left
    return counts


def regions_of(described: Json) -> dict[str, range]:
    """Return the frames of the guest's regions."""
    return {
        region["name"]: range(region["gfn"], region["gfn"] + region["pages"])
        for region in described["regions"]
    }


def truth(regions: dict[str, range]) -> dict[str, int]:
    """Return the frames that the guest touches in a round; its page tables follow from them.

    With three levels the processor keeps the root's entries. The first MiB have the code, the
    stack, and the second the mailbox, of the kit's own.
    """
    frames = [*regions["written"], *regions["read"], 256, 512]
    leaves = {LEAVES + frame // ENTRIES for frame in frames}
    touched = {name: len(regions[name]) for name in ("written", "read")}
    return {**touched, "tables": len(leaves | {DIRECTORIES})}


def tabulate(folder: Path) -> tuple[pd.DataFrame, Json]:
    """Return a row per kernel, method and round, and the versions of the software.

    Columns: ``kernel``, ``way``, ``round``, ``seen`` (pages in all; missing: the kernel does not
    have the way); and if the way tells which, how many of them are ``written``, only ``read``,
    ``tables`` and ``other``; ``low`` and ``high``: the bounds of what was touched.
    Missing: not told.
    """
    rows, versions = [], {}
    for kernel in KERNELS:
        if not (folder / kernel / "status").exists():
            continue
        header = json.loads((folder / kernel / "job.json").read_text())["header"]
        versions |= {f"{name} {kernel}" if "host" in name else name: version
                     for name, version in header["versions"].items()}  # fmt: skip
        regions = regions_of(header)
        for row in [*_seen(folder / kernel), *_logged(folder / kernel, header)]:
            told = row.pop("spans", None)
            counts = classify(told, regions) if told is not None else {}
            rows.append({"kernel": kernel, **counts, **row})
    columns = ["kernel", "way", "round", "seen", *CLASSES, "low", "high"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], "Int64"))
    order = {way: place for place, way in enumerate(WAYS)}
    return table.sort_values("way", key=lambda ways: ways.map(order), kind="stable"), versions


def _seen(folder: Path) -> Iterator[Json]:
    for line in (folder / "sees.jsonl").read_text().splitlines():
        told = json.loads(line)
        if told.get("absent"):
            yield {"way": told["way"]}
        else:
            row = {"way": told["way"], "round": told["round"], "seen": told["count"]}
            yield {**row, "spans": told["spans"]}


def _logged(folder: Path, header: Json) -> Iterator[Json]:
    for log in LOGS:
        with tempfile.TemporaryDirectory() as scratch:
            marked = _marked(folder, log, Path(scratch))
            entries = marked.to_pandas(["round", "gfn"]).drop_duplicates()
            for number, of in entries[entries["round"] > 0].groupby("round"):
                spans = [[int(gfn), 1] for gfn in of["gfn"]]
                yield {"way": f"log-{log}", "round": number - 1, "seen": len(of), "spans": spans}
            if log == LOGS[-1]:
                yield from _estimated(marked)


def _marked(folder: Path, log: str, scratch: Path) -> Trace:
    """Return a trace of the log in which page tables are marked, with their snapshots.

    Which frames are tables, the tables' own entries say, from the root on.
    """
    spool = scratch / "spool"
    spool.mkdir()
    (spool / "frames.spool").write_bytes((folder / f"{log}.spool").read_bytes())
    (spool / "report.txt").touch()
    trace = ingest.ingest(spool, scratch / "log.trace")
    with TraceWriter(scratch / "marked.trace", trace.meta) as writer:
        for number, of in trace.to_pandas().groupby("round"):
            raw = zlib.decompress((folder / f"{log}-tables-{number}").read_bytes())
            words = np.frombuffer(raw, "<u8").reshape(-1, ENTRIES)
            found = _levels(words)
            levels = of["gfn"].map(found).fillna(0).astype(int).to_numpy()
            kinds = np.where(levels > 0, int(Kind.PAGE_TABLE) | levels, int(Kind.WRITE))
            gfn = of["gfn"].to_numpy(np.uint64)
            writer.add_entries(number, of["batch"].to_numpy(), 0, gfn, kinds.astype(np.uint8))
            for table in sorted(set(of["gfn"]) & found.keys()):
                _add_snapshot(writer, int(number), table, found[table], words[table - TABLES])
        writer.set_batches(trace.batches)
        writer.set_rounds(trace.rounds)
    return Trace.open(scratch / "marked.trace")


def _levels(words: Words) -> dict[int, int]:
    """Return the level of each page table; `words` are their entries, one row per frame."""
    found = {ROOT: 3}
    for level in (2, 1):
        above = [gfn for gfn, of in found.items() if of == level + 1]
        targets = {int(t) for gfn in above for t in _targets(words[gfn - TABLES])}
        found |= {t: level for t in targets if TABLES <= t < TABLES + len(words)}
    return found


def _targets(entries: Words) -> Words:
    return (entries[(entries & PRESENT) != 0] >> 12) & ((1 << 40) - 1)


def _add_snapshot(writer: TraceWriter, number: int, table: int, level: int, entries: Words) -> None:
    index = np.flatnonzero(entries & PRESENT)
    present = entries[index]
    flags = np.full(len(index), int(TableFlag.PRESENT | (TableFlag.LEAF if level == 1 else 0)))
    for bit, flag in FLAGS.items():
        flags |= np.where((present & bit) != 0, int(flag), 0)
    writer.add_tables(number, table, level, index, _targets(entries), flags.astype(np.uint8))


def _estimated(marked: Trace) -> Iterator[Json]:
    """Yield the estimate from the log with its tables: the frames of (c), and its bounds."""
    estimate = reads.estimate(marked, "accessed", window="1r")
    touched = reads.sets(marked).accessed
    tables = marked.to_pandas(["round", "gfn"], kinds="p").drop_duplicates()
    for number, row in enumerate(estimate.itertuples()):
        if number:
            of_tables = tables["gfn"][tables["round"] == number].tolist()
            frames = [*touched.gfn[touched.round == number].tolist(), *of_tables]
            told = {"seen": len(frames), "spans": [[gfn, 1] for gfn in frames]}
            told |= {name: getattr(row, name) + len(of_tables) for name in ("low", "high")}
            yield {"way": "reads", "round": number - 1, **told}


def summary(rows: pd.DataFrame, truths: dict[str, int]) -> pd.DataFrame:
    """Return a row per method and kernel, medians over rounds; the truth comes first.

    ``least`` and ``most`` are of what was ``seen``.
    """
    group = rows.groupby(["way", "kernel"], sort=False)
    made = group[["seen", *CLASSES, "low", "high"]].median()
    for name, how in (("most", "max"), ("least", "min")):
        made.insert(1, name, group["seen"].agg(how))
    made.insert(0, "rounds", group["round"].count())
    made = made.round().astype("Int64").reset_index()
    made.insert(1, "name", made["way"].map(lambda way: WAYS[way][0]))
    made.insert(2, "group", made["way"].map(lambda way: WAYS[way][1]))
    first = {"way": "truth", "name": "truth", "group": "truth", "kernel": "", **truths}
    row = pd.DataFrame([{**first, "seen": sum(truths.values())}], columns=made.columns)
    return pd.concat([row.astype(made.dtypes), made], ignore_index=True)


def main(folder: str, out: str, *names: str) -> None:
    """Boot the named kernels; write the tables, and their provenance."""
    for path in (folder, out):
        Path(path).mkdir(parents=True, exist_ok=True)
    for kernel in names or KERNELS:
        run(Path(folder), kernel)
    rows, versions = tabulate(Path(folder))
    rows.to_csv(Path(out) / "rounds.csv", index=False)
    ways = summary(rows, truth(regions_of(lab_guests.shipped()[GUEST])))
    ways.to_csv(Path(out) / "ways.csv", index=False)
    command = f"python -m experiments.host_sees RUNS {out}"
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
