# SPDX-License-Identifier: Apache-2.0
"""A KVM host's buffers: rings of BPF and pages of ftrace to events, and a spool to Parquet.

The pages are full ones of synthetic entries on four vCPUs, as the kernel lays them out, in drains
of PML's full buffer. The conversion runs in a process of its own, so that its memory is its own.
"""

import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_CPUS, _OF_PAGE, _OF_FRAME = 4, 145, 256
_STEP_NS = 100  # between two entries of one vCPU
_RUN = """
import json, sys, time
import pmlkit.sources.kvm.ingest
from pmlkit.sources.ingest import ingest
from tests.bench.timing import peak_mib
start, used = time.perf_counter(), time.process_time()
trace = ingest(sys.argv[1], sys.argv[2])
wall, cpu = time.perf_counter() - start, time.process_time() - used
print(json.dumps({"entries": trace.meta.entries, "wall_s": wall, "cpu_s": cpu,
                  "peak_mib": peak_mib()}))
"""


def measure(scale):
    """Return the ratios (see `tests.bench.goals`), and one row per step."""
    from pmlkit.kvm.frames import Frame, pack_json
    from pmlkit.sources.kvm.stream import KvmStream
    from pmlkit.spool import SpoolWriter

    frames = max(8, scale.entries // (_OF_PAGE * _OF_FRAME))
    payloads = [_payload(number) for number in range(frames)]
    stream = KvmStream(_header())
    stream.take(Frame.PAGES, payloads[0])  # compiled
    start, used = time.perf_counter(), time.process_time()
    entries = sum(len(stream.take(Frame.PAGES, payload).time) for payload in payloads)
    wall, cpu = time.perf_counter() - start, time.process_time() - used
    read = {"entries": entries, "wall_s": wall, "cpu_s": cpu}
    rings = _rings(scale)
    with tempfile.TemporaryDirectory() as scratch:
        spool = Path(scratch) / "x.trace.spool"
        spool.mkdir()
        with SpoolWriter(spool / "frames.spool", _header()) as writer:
            for number, payload in enumerate(payloads):
                writer.append(Frame.PAGES, payload)
                if number % _CPUS == _CPUS - 1:  # a pass over all CPUs
                    ns = (number + 1) // _CPUS * _OF_FRAME * _OF_PAGE * _STEP_NS
                    writer.append(Frame.TICK, pack_json(ns=ns))
            end = 2 * (frames * _OF_FRAME * _OF_PAGE + 1) * _STEP_NS
            for number in range(10):
                one = {"start_ns": number * end // 10, "end_ns": (number + 1) * end // 10}
                writer.append(Frame.ROUND, pack_json(round=number, **one))
            writer.append(Frame.END, pack_json(complete=True, why="", slots={}, counts={}))
        call = [sys.executable, "-c", _RUN, str(spool), str(Path(scratch) / "x.trace")]
        root = Path(__file__).resolve().parents[2]
        stored = json.loads(subprocess.run(call, check=True, capture_output=True, cwd=root).stdout)
    clock = f"{scale.clock}_s"
    ratios = {
        "bpf_ring_to_events_millions": rings["entries"] / rings[clock] / 1e6,
        "pages_to_events_millions": read["entries"] / read[clock] / 1e6,
        "kvm_spool_to_parquet_millions": stored["entries"] / stored[clock] / 1e6,
        "kvm_ingest_MiB": stored["peak_mib"],
    }
    rows = [
        {"step": step, "entries": f"{one['entries']:,}", "seconds": f"{one[clock]:.2f}",
         "entries_per_s": f"{one['entries'] / one[clock]:,.0f}",
         "peak_mib": round(one.get("peak_mib", 0)) or ""}
        for step, one in (
            ("rings of BPF to events", rings),
            ("pages to events", read),
            ("spool to Parquet", stored),
        )
    ]  # fmt: skip
    return ratios, rows


def _rings(scale):
    """Return what it takes to copy full rings of BPF's entries as the agent, and decode them."""
    from pmlkit.kvm.frames import LOG, PAGES_HEAD, Frame
    from pmlkit.kvm.rings import DATA_AT, HEAD_AT, Rings, ring_bytes
    from pmlkit.sources.kvm.stream import KvmStream

    entries = 1 << 18
    memory = bytearray(_CPUS * ring_bytes(entries))
    words = np.frombuffer(memory, np.uint64).reshape(_CPUS, -1)
    words[:, DATA_AT // 8 :: 2] = np.arange(entries) * _STEP_NS
    words[:, DATA_AT // 8 + 1 :: 2] = np.arange(entries, dtype=np.uint64) << np.uint64(22)
    header = _header()
    header["capture"]["kind"] = "bpf"
    rings, stream = Rings(memory, _CPUS, entries), KvmStream(header)
    read = wall = cpu = 0
    while read < scale.entries:
        words[:, HEAD_AT // 8] += entries
        start, used = time.perf_counter(), time.process_time()
        for number, block in rings.drain():
            payload = PAGES_HEAD.pack(LOG, 0, 0, number) + block
            read += len(stream.take(Frame.ENTRIES, payload).time)
        wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - used
    return {"entries": read, "wall_s": wall, "cpu_s": cpu}


def _header():
    from fake_kvm import DIRTY, event_format
    from tracedat import HEADER_PAGE

    form = event_format("dirty", DIRTY, (("__probe_ip", 8), ("gfn", 8)))
    capture = {"clock": "mono", "header_page": HEADER_PAGE.decode(), "formats": {"dirty": form}}
    vcpus = {str(5000 + cpu): cpu for cpu in range(_CPUS)}
    return {"source": "kvm", "mode": "log", "epoch_ns": 0, "capture": capture, "vcpus": vcpus,
            "domain": {"name": "x", "vcpus": _CPUS, "memory_bytes": 1 << 32},
            "host": {"release": "6.1.0"}}  # fmt: skip


def _payload(number):
    """Return a frame with pages of one CPU, filled as fast as memory."""
    from fake_kvm import DIRTY

    from pmlkit.kvm.frames import LOG, PAGES_HEAD

    cpu = number % _CPUS
    event = np.dtype([("head", "<u4"), ("kind", "<u2"), ("flags", "<u2"), ("thread", "<i4"),
                      ("ip", "<u8"), ("gfn", "<u8")])  # fmt: skip
    page = np.zeros(_OF_PAGE, event)
    page["head"], page["kind"], page["thread"] = 6 | _STEP_NS << 5, DIRTY, 5000 + cpu
    rng, parts = np.random.default_rng(number), [PAGES_HEAD.pack(LOG, 0, 0, cpu)]
    start = (number // _CPUS) * _OF_FRAME * _OF_PAGE * _STEP_NS
    for n in range(_OF_FRAME):
        page["gfn"] = rng.integers(0, 1 << 20, _OF_PAGE)
        at = start + n * _OF_PAGE * _STEP_NS
        parts += [struct.pack("<QQ", at, page.nbytes), page.tobytes()]
    return b"".join(parts)
