# SPDX-License-Identifier: Apache-2.0
"""What `tests/fuzz.py` gives to which reader: good inputs, and how they are changed.

A target writes an input into a folder and names the commands that read it. What is text is changed
by its numbers, words and lines; what is JSON by its values; what is sealed is sealed anew, most of
the time, so that the readers behind the seal see it.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import re
import shlex
import shutil
import struct
import zlib

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import spool_fuzz
import tracedat
from batch_case import write_notebook

from pmlkit import interop
from pmlkit.kvm.frames import Frame as KvmFrame
from pmlkit.sources.host import collection
from pmlkit.spool import FRAMES_FILE
from pmlkit.trace import manifest
from pmlkit.xen.frames import Frame

# A value of JSON each; those that JSON cannot say are written by `dumps`.
HOSTILE = [
    None, True, False, 0, -1, 1, 1.5, -1.0, 1e300, float("inf"), float("nan"), "", "x", "\0\x1b[2J",
    "\ud800", "../../etc", "/dev/zero", "x" * 100_000, [], {}, [[]], [0] * 1000, {"": {}},
    2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400, -(2**63), -(2**64),
]  # fmt: skip
WORDS = [
    "0", "-1", "-0", "1e400", "-1e9", "nan", "inf", "0x", "1.5", "1,000", "", " ", '"', "'", "\0",
    "\ufeff", "\x1b]0;x\a", "é", "x" * 70_000, "9" * 5000, "0x" + "f" * 40, "null", "~", "[" * 3000,
    "{" * 300, "&a [*a, *a]", "*a", "!!python/object:os.system", "/etc/passwd", "../x", "@x", "-x",
    *(str(2**n + d) for n in (31, 32, 53, 62, 63, 64) for d in (-1, 0)),
    *(hex(2**n + d) for n in (31, 32, 52, 63, 64) for d in (-1, 0)), str(-(2**63)), str(10**30),
]  # fmt: skip
INTEGERS = [0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
_TOKEN = re.compile(r"[+-]?\w[\w.]*|[^\w\s]")
NESTED = 100_000


def dumps(value):
    """Write JSON that may hold what JSON forbids; infinity is a number too large."""
    return json.dumps(value).replace("Infinity", "1e400")


# Changing good input


def change_text(data, rng):
    """Change tokens and lines of text."""
    text = data.decode(errors="replace")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        lines = text.splitlines(keepends=True) or [""]
        at, what = rng.randrange(len(lines)), rng.randrange(8)
        if what < 4 and (tokens := list(_TOKEN.finditer(lines[at]))):
            start, end = rng.choice(tokens).span()
            lines[at] = lines[at][:start] + rng.choice(WORDS) + lines[at][end:]
        elif what == 4:
            del lines[at]
        elif what == 5:
            lines.insert(at, rng.choice(lines))
        elif what == 6:
            lines[at] = lines[at].rstrip("\n") + rng.choice((",", "\t", "\r\n", "\r", "\n\n"))
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        text = "".join(lines)
    return text.encode(errors="surrogatepass")


def change_json(data, rng):
    """Change values of JSON, of one document or of one a line."""
    try:
        document = json.loads(data)
    except ValueError:
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = change_json(lines[at], rng)
        return b"\n".join(lines)
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = change_value(document, rng)
    text = dumps(document).encode()
    return text.replace(b'"NESTED"', b"[" * NESTED + b"]" * NESTED)


def change_value(document, rng):
    """Change one value of a document somewhere; returns the document."""
    places = [(None, None), *_places(document)]
    holder, key = rng.choice(places)
    if holder is None:
        return copy.deepcopy(rng.choice(HOSTILE)) if rng.random() < 0.2 else document
    what = rng.randrange(8)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "\ud800", str(key) * 2))] = copy.deepcopy(holder[key])
    elif what == 1:
        holder.insert(key, copy.deepcopy(holder[key]))
    elif what == 2:
        other, name = rng.choice(places[1:])
        holder[key] = copy.deepcopy(other[name])
    elif what == 3:
        holder[key] = "NESTED"
    elif isinstance(holder[key], int) and what < 6:
        holder[key] += rng.choice((-1, 1, 2**31, 2**40, -(2**40)))
    else:
        holder[key] = copy.deepcopy(rng.choice(HOSTILE))
    return document


def _places(document):
    """Yield (holder, key) of every value below a document."""
    items = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, value in items:
        yield document, key
        yield from _places(value)


def change_binary(data, rng):
    """Put hostile integers where there may be some."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        size = rng.choice((2, 4, 8))
        at = rng.randrange(max(len(data) - size, 1))
        value = rng.choice(INTEGERS) & (1 << 8 * size) - 1
        data[at : at + size] = value.to_bytes(size, "little")
    return bytes(data)


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def changed(data, rng, by):
    """Change bytes in the way of their kind, and now and then as any bytes."""
    if rng.random() < 0.75:
        data = by(data, rng)
    return spool_fuzz.change(data, rng) if rng.random() < 0.3 else data


# Targets


class Target:
    """A reader: `good` inputs, `make` a changed one in a folder, `commands` that read it."""

    def __init__(self, name, good, by=change_binary, packers=()):
        self.name, self.good, self.by, self.packers = name, good, by, packers

    def prepare(self, folder):
        """Make what all cases need."""

    def make(self, rng, folder):
        data = changed(rng.choice(self.good), rng, self.by)
        if self.packers and rng.random() < 0.5:
            data = rng.choice(self.packers)(data)
            data = spool_fuzz.change(data, rng) if rng.random() < 0.2 else data
        self.write(data, folder)

    def write(self, data, folder):
        self.path(folder).write_bytes(data)

    def path(self, folder):
        return folder / f"input.{self.name}"

    def named(self, folder):
        """Return what a refusal has to name."""
        return self.path(folder).name

    def after(self, folder):
        """Look at what was made."""


class Import(Target):
    """A format that `pmlkit import` reads; what it makes goes on to other commands."""

    def __init__(self, format_name, good, by, packers=(), name=None, suffix="trace", options=()):
        super().__init__(name or format_name, good, by, packers)
        self.format, self.suffix, self.options = format_name, suffix, options

    def commands(self, rng, folder):
        out = folder / f"out.{self.suffix}"
        yield "import", self.format, self.path(folder), "-o", out, "--overwrite", *self.options
        if self.suffix == "trace" and rng.random() < 0.3:
            yield "info", out
            yield rng.choice((("wss", out), ("mrc", out), ("wss", out, "--window", "2r")))


class TraceJson(Target):
    """The description of a trace."""

    def __init__(self):
        super().__init__("trace_json", [b""])

    def prepare(self, folder):
        path = factories.make_trace(
            self.path(folder),
            guest=True,
            phases=[("a", 0), ("b", 2)],
            regions=[("hot", 10, 5)],
            known=[{"phase": "a", "region": "hot", "kind": "written", "pages": 2}],
        )
        names = ("trace.json", "pml.trace/trace.json")
        self.texts = {name: (path / name).read_bytes() for name in names}

    def path(self, folder):
        return folder / "input.trace"

    def write(self, data, folder):
        for name, text in self.texts.items():
            (self.path(folder) / name).write_bytes(text)

    def make(self, rng, folder):
        self.write(b"", folder)
        name, text = rng.choice([*self.texts.items()])
        data = changed(text, rng, change_json)
        (self.path(folder) / name).write_bytes(sealed(data) if rng.random() < 0.8 else data)

    def commands(self, rng, folder):
        path = self.path(folder)
        first = ("info", path), ("wss", path), ("mrc", path), ("period", path)
        yield rng.choice((first[0], *first))
        yield "export", path, "csv", "-o", folder / "x.csv", "--overwrite"


def sealed(data):
    """Seal the description of a trace anew, if it can be."""
    try:
        document = json.loads(data)
        for key in ("format", "version", "digest"):
            document.pop(key, None)
        return manifest.encode(document)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data


class TraceTable(TraceJson):
    """The Parquet files of a trace: damaged under a right seal, or whole with wrong contents."""

    def __init__(self):
        super().__init__()
        self.name = "trace_parquet"

    def prepare(self, folder):
        super().prepare(folder)
        path = self.path(folder)
        files = sorted(path.rglob("*.parquet"))
        self.files = {str(file.relative_to(path)): file.read_bytes() for file in files}

    def write(self, data, folder):
        super().write(data, folder)
        for name, content in self.files.items():
            (self.path(folder) / name).write_bytes(content)

    def make(self, rng, folder):
        self.write(b"", folder)
        name = rng.choice(list(self.files))
        file = self.path(folder) / name
        facts = {}
        if rng.random() < 0.5:
            file.write_bytes(changed(self.files[name], rng, change_binary))
        else:
            facts = rewrite(file, rng)
        top = file.parent.parent if file.parent.name == "entries" else file.parent
        document = json.loads((top / "trace.json").read_bytes())
        facts |= {"bytes": file.stat().st_size, "blake2b": blake2b(file)}
        document["files"][str(file.relative_to(top))] |= facts
        (top / "trace.json").write_bytes(sealed(json.dumps(document)))


def blake2b(file):
    import hashlib

    return hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest()


def rewrite(file, rng):
    """Write a table with other contents; returns what the manifest is to say of it."""
    table = pq.read_table(file)
    at = rng.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    what, options = rng.randrange(8), {}
    if what < 3 and pa.types.is_integer(column.type) and len(column):
        values = column.to_numpy().copy()
        limit = np.iinfo(values.dtype)
        bad = rng.choice([v for v in (*INTEGERS, -1) if limit.min <= v <= limit.max])
        values[rng.randrange(len(values)) :] = bad
        table = table.set_column(at, name, pa.array(values))
    elif what == 3:
        table = table.slice(0, rng.choice((0, len(table) // 2)))
    elif what == 4:
        table = pa.concat_tables([table] * rng.choice((2, 50)))
    elif what == 5:
        table = table.set_column(at, name, pa.array(["x"] * len(table)))
    elif what == 6:
        table = table.remove_column(at)
    else:
        options = rng.choice(
            (({"write_statistics": False}), {"row_group_size": 3}, {"compression": "gzip"})
        )
    pq.write_table(table, file, **options)
    return {"rows": len(table)} if rng.random() < 0.7 else {}


class Spool(Target):
    """A spool, made a trace."""

    header = spool_fuzz.SPOOL_HEADER
    objects = (Frame.ROUND, Frame.EVENT, Frame.END)  # frames that are JSON

    def __init__(self, name, good=None):
        super().__init__(name, good or [spool_fuzz.sealed(self.header, self.frames(3))])

    def frames(self, rounds):
        return spool_fuzz.good_frames(rounds)[0]

    def make(self, rng, folder):
        made = self.frames(rng.choice((1, 3)))
        data = spool_fuzz.nonsense(self.header, self._hostile(made, rng), rng)
        if rng.random() < 0.3:
            data = spool_fuzz.change(rng.choice(self.good), rng)
        self.write(data, folder)

    def _hostile(self, made, rng):
        """Change the JSON of some frames."""
        made = list(made)
        for at, (kind, payload) in enumerate(made):
            if kind in self.objects and rng.random() < 0.2:
                made[at] = kind, changed(payload, rng, change_json)
        return made

    def path(self, folder):
        return folder / "input.trace.spool"

    def write(self, data, folder):
        self.path(folder).mkdir(exist_ok=True)
        (self.path(folder) / FRAMES_FILE).write_bytes(data)
        shutil.rmtree(folder / "out.trace", ignore_errors=True)

    def commands(self, rng, folder):
        yield "ingest", self.path(folder), "-o", folder / "out.trace"
        yield "info", folder / "out.trace"


class Live(Spool):
    """The same stream as it comes from a dom0: a false SSH client gives it."""

    def prepare(self, folder):
        collection._POLL_S = 0.01
        script = 'cat "$0" 2>/dev/null; cat "$1" >&2 2>/dev/null; exit "$(cat "$2")"'
        words = [self.path(folder) / FRAMES_FILE, folder / "said", folder / "status"]
        os.environ["PMLKIT_SSH"] = shlex.join(["sh", "-c", script, *map(str, words)])

    def write(self, data, folder):
        super().write(data, folder)
        (folder / "said").write_bytes(b"agent: good morning\n")
        (folder / "status").write_text("0")
        shutil.rmtree(folder / "out.trace.spool", ignore_errors=True)

    def make(self, rng, folder):
        super().make(rng, folder)
        said = b"agent: good morning\nagent: error: no\n"
        (folder / "said").write_bytes(spool_fuzz.change(said, rng))
        (folder / "status").write_text(rng.choice(("0", "0", "1", "255")))

    def named(self, folder):
        return " web"

    def commands(self, rng, folder):
        yield "collect", "web", "--host", "dom0", "-o", folder / "out.trace"
        yield "info", folder / "out.trace"


class KvmFrames:
    """What a KVM host's agent sends; also hostile pages of ring buffers and kernel texts."""

    good_header, objects = spool_fuzz.KVM_HEADER, spool_fuzz.KVM_OBJECTS

    @property
    def header(self):
        return self.hostile_header or self.good_header

    def frames(self, rounds):
        return spool_fuzz.kvm_frames(rounds)

    def make(self, rng, folder):
        self.hostile_header = None
        if rng.random() < 0.2:
            self.hostile_header = copy.deepcopy(self.good_header)
            texts = self.hostile_header["capture"]
            if rng.random() < 0.7:
                texts = texts["formats"]
            name = rng.choice([name for name in texts if name != "formats"])
            texts[name] = change_text(texts[name].encode(), rng).decode(errors="surrogatepass")
        super().make(rng, folder)

    hostile_header = None

    def _hostile(self, made, rng):
        made = super()._hostile(made, rng)
        for at, (kind, payload) in enumerate(made):
            if kind == KvmFrame.PAGES and rng.random() < 0.1:
                made[at] = kind, change_binary(payload, rng)
        return made


class KvmSpool(KvmFrames, Spool):
    """A spool of a KVM host's agent."""


class KvmByBpf(KvmSpool):
    """One whose log comes by BPF."""

    header = spool_fuzz.KVM_BPF_HEADER

    def frames(self, rounds):
        return spool_fuzz.kvm_frames(rounds, by_bpf=True)


class KvmSets(KvmSpool):
    """One of soft-dirty bits."""

    good_header = spool_fuzz.KVM_HEADER | {"mode": "soft-dirty", "pages": 8192}

    def frames(self, rounds):
        return spool_fuzz.kvm_sets(rounds)


class KvmLive(KvmFrames, Live):
    """The stream of a KVM host's agent, as it comes."""

    def commands(self, rng, folder):
        yield "collect", "--kvm", "web", "--host", "kvm", "-o", folder / "out.trace"
        yield "info", folder / "out.trace"


class Experiment(Target):
    """An experiment's file, planned but not run."""

    def prepare(self, folder):
        os.chdir(folder)
        parameters = "trace = ''; traces = []; window = '1s'; m = 1; out = ''"
        write_notebook(folder / "one.ipynb", "print(window)", parameters=parameters)
        factories.make_trace(folder / "own.trace", rounds=2)

    def path(self, folder):
        return folder / "input.yaml"

    def named(self, folder):
        return ""  # a refusal may be of the notebook or the trace that it names

    def commands(self, rng, folder):
        yield "run", self.path(folder), "--dry-run"


class WorkloadFile(Target):
    """A workload's description."""

    def path(self, folder):
        return folder / "mine" / "workload.yaml"

    def named(self, folder):
        return "mine"

    def write(self, data, folder):
        self.path(folder).parent.mkdir(exist_ok=True)
        (folder / "mine" / "m.c").write_text("int main(void) { return 0; }\n")
        super().write(data, folder)

    def commands(self, rng, folder):
        yield "record", "--list", folder / "mine"


EXPERIMENT = b"""\
title: A title
about: What is asked.
traces: [own.trace, {trace: own.trace, made_by: make b}]
runs:
  - notebook: ./one.ipynb
    parameters: {window: 2s}
    grid: {window: [1s, 2s], m: [1, 2]}
  - notebook: ./one.ipynb
    together: true
    traces: [own.trace]
    grid: [{m: [1]}, {window: [2, 3]}]
"""
WORKLOAD = b"""\
summary: does something and says so
command: ./m "$size"
sources: [m.c]
parameters:
  size: {default: 4, help: in MiB}
  share: {default: 0.5, help: of it}
memory_mib: 128
seconds: 6
phases: [one, two]
"""
CSV = b"""\
t_start_ns,t_end_ns,vcpu,gfn,kind
0,10000000,0,10,w
0,10000000,1,20,r
10000000,20000000,0,10,x
90000000,100000000,0,11,w
"""
LOG = CSV.replace(b",r", b",p1").replace(b",x", b",?")
REQUESTS = b"".join(
    struct.pack("<IQIq", *row)
    for row in ((5, 1, 4096, 2), (5, 2, 512, -1), (6, 1, 8192, 3), (900, 1, 4096, -1))
)
ENTRIES = ((1, 0, 5), (3, 1 << 16, 7), (1, 2, 9), (0, 0, 0))
RING = b"".join(struct.pack("<IIQ", *entry) for entry in ENTRIES)
PUSHES = ((100.000001, 0, 0, 0x2E3), (100.000002, 1, 1, 0x1F), (107.5, 0, 0, 5))
FTRACE = "# tracer: nop\nCPU:1 [LOST 12 EVENTS]\n" + "".join(
    f" qemu-1 [000] ...1.  {time:.6f}: kvm_dirty_ring_push: ring {ring}: dirty 0x1 reset 0x0 "
    f"slot {slot} offset {offset:#x} (used 1)\n"
    f" qemu-1 [000] ...1.  {time:.6f}: kvm_dirty_ring_reset: ring {ring}: dirty 0x2 reset 0x2 "
    "(used 0)\n"
    for time, ring, slot, offset in PUSHES
)
MEASURED = {"status": "measured", "start-time": 10, "calc-time": 1, "dirty-rate": 108}
BY_VCPU = [{"id": 0, "dirty-rate": 4}, {"id": 1, "dirty-rate": 6}]
ANSWERS = [
    {"status": "measuring", "start-time": 10, "calc-time": 1},
    MEASURED | {"sample-pages": 512, "mode": "page-sampling"},
    MEASURED | {"start-time": 20, "calc-time-unit": "millisecond", "vcpu-dirty-rate": BY_VCPU},
]
RATES = "\n".join(json.dumps({"return": answer}) for answer in ANSWERS).encode()
LACKEY = b"""\
==7== Lackey, an example Valgrind tool
I  00400fff,3
 L 00500000,8
 S 00500000,8
I  00401002,4
 M 00600ffc,8
"""
PINATRACE = b"""\
#
# Memory Access Trace Generated By Pin
#
0x7f1c2b3a: R 0x7ffd5e10
0x7f1c2b3e: W     0x00007ffd5ffc  8 0x10
0x7f1c2b42: R 0xffffffffff600000
#eof
"""


def damo_record():
    """Return a record as damo writes it, of three snapshots."""
    rows = [[(0, 8192, 1), (8192, 65536, 0)], [(0, 4096, 3)], [(4096, 8192, 2)]]
    snapshots = [
        {"start_time": n * 10**8, "end_time": (n + 1) * 10**8, "regions": [*map(_region, row)]}
        for n, row in enumerate(rows)
    ]
    intervals = {"sample_us": 5000, "aggr_us": 100_000, "ops_update_us": 0}
    record = {"kdamond_idx": 0, "context_idx": 0, "intervals": intervals, "target_id": 0}
    return json.dumps([record | {"snapshots": snapshots}]).encode()


def _region(row):
    start, end, samples = row
    accesses = {"samples": samples, "percent": 5}
    return {"start": start, "end": end, "nr_accesses": accesses, "age": {}}


LCS_MAGIC = struct.pack("<Q", 0x123456789ABCDEF0)


def lcs(version, requests):
    """Return a file of libCacheSim's own format."""
    return (LCS_MAGIC + struct.pack("<Q", version)).ljust(8184, b"\0") + LCS_MAGIC + requests


def parquet():
    """Return a Parquet file of requests, as others write them."""
    columns = {"ts": [1, 2, 2, 9], "lbn": [8, 16, 8, 99], "len": [4096, 512, 9000, 4096]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns | {"rw": ["r", "w", "read", "w"]}), file)
    return file.getvalue()


DISK = [(1, 4096, 1, 0x28, 0x100, 800, 50), (2, 512, 1, 0x2A, 0x100, 7, 70)]
DISK_2 = [(0x2A, 0x200, 1, 9000, 1, 800, 50, 3), (0x28, 0x200, 2, 512, 1, 7, 70, 3)]
OPS = [(5, 1, 4096, 1, 0, -1), (6, 2, 9000, 2, 0, -1)]
REGIONS = "".join(
    f"  kdamond.0  4452 [000] {time:.6f}: damon:damon_aggregated: target_id=0 nr_regions=1 "
    f"{first}-{first + 8192}: {accesses} 3\n"
    for time, first, accesses in ((100, 0, 3), (100.1, 8192, 0), (100.2, 4096, 20))
)
HMP = "Status: measured\nStart Time: 100 (ms)\nSample Pages: 512 (per GB)\nPeriod: 1 (sec)\n"
HMP += "Mode: dirty-ring\nDirty rate: 108 (MB/s)\nvcpu[0], Dirty rate: 8 (MB/s)\n"
RECORDED = [
    [tracedat.page([tracedat.push(10**9 + n * 1000, 11, 0, 0, n) for n in range(4)])],
    [tracedat.page([tracedat.push(10**9, 12, 1, 1, 5), tracedat.reset(10**9 + 9, 20, 1)], 7)],
]
THREADS = {11: "CPU 0/KVM", 12: "CPU 1/KVM", 20: "qemu"}
TRACE_DAT = [tracedat.version_6(RECORDED, THREADS), tracedat.version_7(RECORDED, THREADS)]
NAMED = ("--columns", "time=ts,obj=lbn,size=len,op=rw")
ROWS = b"ts,lbn,len,rw\n0.5,8,4096,r\n0.7,16,512,w\n1.5,8,9000,w\n"
_PACKED = (gzip.compress, zstd)
IMPORTS = [
    Import("csv", [CSV, LOG], change_text, _PACKED),
    Import("csv", [ROWS], change_text, name="csv-named", options=NAMED),
    Import("parquet", [parquet()], change_binary, options=NAMED),
    Import("oracle-general", [REQUESTS], change_binary, _PACKED),
    Import(
        "lcs",
        [lcs(1, REQUESTS), lcs(3, b"".join(struct.pack("<IQqIIq", *row) for row in OPS))],
        change_binary,
        _PACKED,
    ),
    Import(
        "vscsi",
        [
            b"".join(struct.pack("<IIIHHQQ", *row) for row in DISK),
            b"".join(struct.pack("<HHIIIQQQ", *row) for row in DISK_2),
        ],
        change_binary,
    ),
    Import("damo", [damo_record()], change_json, (zlib.compress, gzip.compress)),
    Import("damo", [REGIONS.encode()], change_text, name="damo-script"),
    Import("kvm-dirty-ring", [RING], change_binary),
    Import("kvm-dirty-ring", [FTRACE.encode()], change_text, name="kvm-ftrace"),
    Import("kvm-dirty-ring", TRACE_DAT, change_binary, name="kvm-trace-dat"),
    Import("query-dirty-rate", [RATES], change_json, suffix="csv"),
    Import("query-dirty-rate", [HMP.encode()], change_text, name="dirty-rate-text", suffix="csv"),
    Import("lackey", [LACKEY], change_text),
    Import("pinatrace", [PINATRACE], change_text),
]
TARGETS = {
    target.name: target
    for target in (
        TraceJson(),
        TraceTable(),
        Spool("spool_ingest"),
        Live("spool_live"),
        KvmSpool("kvm_ingest"),
        KvmSets("kvm_soft_dirty"),
        KvmByBpf("kvm_bpf"),
        KvmLive("kvm_live"),
        Experiment("experiment", [EXPERIMENT], change_text),
        WorkloadFile("workload", [WORKLOAD], change_text),
        *IMPORTS,
    )
}
_WITHOUT = {n for n, f in interop.FORMATS.items() if "load" in f.ways} - {i.format for i in IMPORTS}
if _WITHOUT:
    raise SystemExit(f"fuzz_inputs.py has no good input of {', '.join(sorted(_WITHOUT))}")
