# SPDX-License-Identifier: Apache-2.0
"""The part of `host_sees` that runs on the KVM lab's host: one guest, observed by each method.

Needs Python 3.9 and ``pmlkit.kvm``. Appends a line of JSON per method and round to ``sees.jsonl``:
the number of pages seen, and their "spans" of frames if the method names them."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from steps import PAGE, Agent, Monitor

from pmlkit.kvm import find, memory
from pmlkit.kvm.frames import SET_HEAD
from pmlkit.kvm.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Seen = tuple[int, list[tuple[int, int]] | None]

ROUNDS = 8
MEMORY_MIB = 64
RING = 65536
TABLES = range(2048, 2112)
GROUP = Path("/sys/fs/cgroup/vm")
MM = Path("/sys/kernel/mm")
SAMPLES_A_GIB = 512  # QEMU's default, for calc-dirty-rate in the mode page-sampling
# DAMON's own defaults, and the number of its looks until regions have settled.
SAMPLE_US, AGGREGATE_US, LEAST_REGIONS, MOST_REGIONS = 5_000, 100_000, 10, 1_000
SETTLED = 40
_REGION = re.compile(r"damon_aggregated: .* (\d+)-(\d+): (\d+) \d+$")


def spans(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Return runs of frames: (first, count)."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if runs and sum(runs[-1]) == frame:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((frame, 1))
    return runs


def save(way: str, **facts: object) -> None:
    """Append a line to the results."""
    with open("sees.jsonl", "a") as file:
        file.write(json.dumps({"way": way, **facts}) + "\n")


def each_round(
    way: str, monitor: Monitor, begin: Callable[[], None], end: Callable[[], Seen]
) -> None:
    """Apply a method to rounds in lock step, the first of which does not count."""
    for number in range(-1, ROUNDS):
        begin()
        monitor.round()
        count, frames = end()
        if number >= 0:
            save(way, round=number, count=count, spans=frames)


def nothing() -> None:
    """Do nothing."""


# ---- methods ----


def referenced(monitor: Monitor) -> None:
    """The method of wss: clear the accessed flags of the VMM's tables, and count them."""
    proc = Path(f"/proc/{monitor.pid}")

    def count() -> Seen:
        inside, kib = False, 0
        for line in (proc / "smaps").read_text().splitlines():
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                inside = int(match[1], 16) <= monitor.memory < int(match[2], 16)
            elif inside and line.startswith("Referenced:"):
                kib += int(line.split()[1])
        return kib * 1024 // PAGE, None

    each_round("clear_refs", monitor, lambda: put(proc / "clear_refs", "1"), count)


class _Frames:
    """A stand-in for a spool: keeps the sets of frames that are written to it."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def append(self, kind: int, head: bytes, part: memoryview) -> None:
        assert len(head) == SET_HEAD.size
        self.frames += part.tolist()


def soft_dirty(monitor: Monitor, host: Host) -> None:
    """pmlkit's mode soft-dirty; its frames are positions in the VMM's mappings."""
    looker = memory.SoftDirty(host, find.find(host, str(monitor.pid)))
    mappings = looker.facts()["mappings"]

    def seen() -> Seen:
        writer, frames = _Frames(), []
        looker.end_round(0, writer)  # type: ignore[arg-type]
        for number in writer.frames:
            of = max((m for m in mappings if m["frame"] <= number), key=lambda m: m["frame"])
            frames.append((of["address"] - monitor.memory) // PAGE + number - of["frame"])
        inside = [gfn for gfn in frames if 0 <= gfn < MEMORY_MIB * 256]
        return len(inside), spans(inside)

    each_round("soft-dirty", monitor, looker.begin, seen)


def aging(monitor: Monitor) -> None:
    """pmlkit's mode lru-gen, without its check that the kernel's aging sees guests."""
    host = Host(release="6.12")
    looker = memory.LruGen(host, find.find(host, str(monitor.pid)))
    each_round("mglru", monitor, looker.begin, lambda: (looker.end_round(0, None), None))  # type: ignore[arg-type]


def page_sampling(monitor: Monitor) -> None:
    """The mode page-sampling of QEMU's calc-dirty-rate, reproduced from outside."""
    pages, chosen = MEMORY_MIB * 256, random.Random(1)
    before: dict[int, int] = {}

    def begin() -> None:
        before.clear()
        sample = chosen.sample(range(pages), MEMORY_MIB * SAMPLES_A_GIB // 1024)
        before.update((gfn, zlib.crc32(monitor.page(gfn))) for gfn in sample)

    def end() -> Seen:
        changed = sum(zlib.crc32(monitor.page(gfn)) != crc for gfn, crc in before.items())
        return round(changed * pages / len(before)), None

    each_round("page-sampling", monitor, begin, end)


def dirty(way: str, monitor: Monitor) -> None:
    """The counts of QEMU's calc-dirty-rate in the modes dirty-bitmap and dirty-ring."""
    monitor.do("log", 1)
    monitor.do("take")
    each_round(way, monitor, nothing, lambda: (monitor.do("take"), None))
    monitor.do("log", 0)


def damon(monitor: Monitor) -> None:
    """DAMON, which samples by the clock, while the guest runs round after round."""
    admin = MM / "damon/admin/kdamonds"
    put(admin / "nr_kdamonds", "1")
    put(admin / "0/contexts/nr_contexts", "1")
    context = admin / "0/contexts/0"
    put(context / "operations", "fvaddr")
    for name, us in (("sample_us", SAMPLE_US), ("aggr_us", AGGREGATE_US)):
        put(context / "monitoring_attrs/intervals" / name, str(us))
    put(context / "monitoring_attrs/nr_regions/max", str(MOST_REGIONS))
    put(context / "monitoring_attrs/nr_regions/min", str(LEAST_REGIONS))
    put(context / "targets/nr_targets", "1")
    target = context / "targets/0"
    put(target / "pid_target", str(monitor.pid))
    put(target / "regions/nr_regions", "1")
    put(target / "regions/0/start", str(monitor.memory))
    put(target / "regions/0/end", str(monitor.memory + (MEMORY_MIB << 20)))
    trace = Path("/sys/kernel/tracing/instances/sees")
    trace.mkdir()
    put(trace / "buffer_size_kb", "8192")
    put(trace / "events/damon/damon_aggregated/enable", "1")
    monitor.do("free")
    put(admin / "0/state", "on")
    time.sleep((SETTLED + ROUNDS + 2) * AGGREGATE_US / 1e6)
    put(admin / "0/state", "off")
    monitor.do("pause")
    looks = list(_looks(monitor, (trace / "trace").read_text()))
    for number, (regions, runs) in enumerate(looks[-ROUNDS:]):
        count = sum(pages for _, pages in runs)
        save("damon", round=number, count=count, spans=runs, regions=regions)
    put(trace / "events/damon/damon_aggregated/enable", "0")
    trace.rmdir()


def _looks(monitor: Monitor, text: str) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield for each look the number of regions, and the touched ones."""
    regions, runs = 0, []
    for line in text.splitlines():
        if match := _REGION.search(line):
            start, end, accesses = map(int, match.groups())
            if start == monitor.memory and regions:
                yield regions, runs
                regions, runs = 0, []
            regions += 1
            if accesses:
                runs.append(((start - monitor.memory) // PAGE, (end - start) // PAGE))
    if regions:
        yield regions, runs


def logged(name: str, monitor: Monitor) -> None:
    """pmlkit's log, by its agent, and the guest's page tables after each round."""
    job = json.loads(Path("/job/job.json").read_text())
    with Agent("/job/job.json", job["ready"], monitor.pid, name) as agent:
        agent.await_ready()
        monitor.do("log", 1)
        monitor.do("take")
        for number in range(-1, ROUNDS):
            monitor.round()
            monitor.do("take")
            tables = b"".join(map(monitor.page, TABLES))
            Path(f"{name}-tables-{number + 1}").write_bytes(zlib.compress(tables, 1))
        monitor.do("log", 0)
        monitor.close()


def put(path: Path, text: str) -> None:
    """Write one of the kernel's files."""
    path.write_text(text)


def main() -> None:
    """Apply all methods that this kernel supports."""
    host = Host()
    put(MM / "lru_gen/enabled", "y")
    subprocess.run(["mount", "-t", "cgroup2", "none", str(GROUP.parent)], check=True)
    put(Path("/sys/fs/cgroup/cgroup.subtree_control"), "+memory")
    GROUP.mkdir()
    with Monitor(memory_mib=MEMORY_MIB, group=str(GROUP)) as monitor:
        referenced(monitor)
        soft_dirty(monitor, host)
        aging(monitor)
        page_sampling(monitor)
        for way, path in {"page_idle": MM / "page_idle", "damon": MM / "damon"}.items():
            if not path.exists():
                save(way, absent=True)
            elif way == "damon":
                damon(monitor)
            else:
                raise SystemExit(f"this kernel has {path}: look by it, too")
        dirty("dirty-bitmap", monitor)
        logged("bitmap", monitor)
    with Monitor(RING, MEMORY_MIB) as monitor:
        dirty("dirty-ring", monitor)
        logged("ring", monitor)
    print("done")


if __name__ == "__main__":
    sys.exit(main())
