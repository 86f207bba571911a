# SPDX-License-Identifier: Apache-2.0
"""Interchange: what goes out comes back, other programs read it, and damage is said."""

import json
import shutil
import struct
import subprocess
import sys
import zlib
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from needs import REQUIRED, needs_valgrind
from waiting import HANG_S

from pmlkit import cli, interop, workingset
from pmlkit.errors import OutputExists, UsageError
from pmlkit.interop.reading import ForeignFileError
from pmlkit.kernels.loops import next_accesses
from pmlkit.kernels.pages import PageIndex
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

READ, WRITE, EXEC = Kind.READ, Kind.WRITE, Kind.EXEC
EVENTS = [[(10, WRITE), (20, READ), (11, WRITE), (10, EXEC)], [(20, READ)], [], [(11, WRITE)]]


def needs_package(name):
    """Import a peer from PyPI, or skip; in CI it has to be there."""
    return __import__(name) if REQUIRED else pytest.importorskip(name)


@pytest.fixture
def trace(make_trace):
    return make_trace("h.trace", events=EVENTS)


def rows(trace):
    return trace.to_pandas(["round", "gfn", "kind"]).values.tolist()


def back(name, path, tmp_path, **options):
    return interop.load(name, path, tmp_path / "back.trace", **options)


# CSV


def test_csv_gives_the_same_entries_back(trace, tmp_path):
    assert interop.export(trace, "csv", tmp_path / "x.csv") == 6
    made = back("csv", tmp_path / "x.csv", tmp_path)
    assert rows(made) == rows(trace)
    np.testing.assert_array_equal(made.rounds["t_end_ns"], trace.rounds["t_end_ns"])
    assert made.memory_pages == 21
    made.check()


def test_csv_of_a_random_trace_and_of_its_pml_log(make_trace, tmp_path):
    trace = make_trace(rounds=20, seed=5)
    for each, name in ((trace, "a"), (trace.pml, "b")):
        path = tmp_path / f"{name}.csv"
        interop.export(each, "csv", path)
        made = interop.load("csv", path, tmp_path / f"{name}.trace")
        assert made.meta.kind == each.meta.kind
        ours, theirs = (one.to_pandas(["gfn", "kind", "vcpu"]) for one in (each, made))
        pd.testing.assert_frame_equal(ours, theirs)
        made.check()


def test_csv_of_others_needs_only_time_and_frame(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("gfn,t_start_ns,t_end_ns\n7,0,5\n9,0,5\n7,20,25\n")
    made = back("csv", path, tmp_path)
    assert rows(made) == [[0, 7, 1], [0, 9, 1], [2, 7, 1]]
    assert made.rounds["t_start_ns"].tolist() == [0, 5, 20]


# oracleGeneral


def test_oracle_general_is_what_libcachesim_documents(trace, tmp_path):
    path = tmp_path / "x.oracleGeneral"
    assert interop.export(trace, "oracle-general", path, window=10_000_000, kinds="rw") == 5
    found = list(struct.iter_unpack("<IQIq", path.read_bytes()))
    assert found == [
        (0, 10, 4096, -1),
        (0, 20, 4096, 3),
        (0, 11, 4096, 4),
        (1, 20, 4096, -1),
        (3, 11, 4096, -1),
    ]
    made = back("oracle-general", path, tmp_path, window=10_000_000)
    assert rows(made) == [[0, 10, 1], [0, 20, 1], [0, 11, 1], [1, 20, 1], [3, 11, 1]]
    made.check()


def test_the_next_access_against_a_search():
    gfn = np.random.default_rng(1).integers(0, 20, 300).astype("u8")
    naive = [next((j for j in range(i + 1, 300) if gfn[j] == gfn[i]), -1) for i in range(300)]
    index, following = PageIndex(), np.empty(len(gfn), np.int64)
    ids = index.ids(gfn)
    next_accesses(ids, 0, np.full(len(index), -1), following)
    assert following.tolist() == naive


def test_libcachesim_reads_it(make_trace, tmp_path):
    libcachesim = needs_package("libcachesim")
    trace = make_trace(rounds=40, pages=64, seed=2)
    path = tmp_path / "x.oracleGeneral"
    count = interop.export(trace, "oracle-general", path)
    reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    assert reader.get_num_of_req() == count
    uses = trace.to_pandas(["round", "gfn"]).drop_duplicates()
    assert count == len(uses)
    assert reader.get_working_set_size()[0] == uses["gfn"].nunique()
    misses, _ = libcachesim.LRU(cache_size=16 * 4096).process_trace(reader)
    assert misses == pytest.approx(lru_misses(uses["gfn"], 16) / count)


def lru_misses(gfn, size):
    cache, misses = {}, 0
    for page in gfn:
        misses += cache.pop(page, None) is None
        cache[page] = True
        if len(cache) > size:
            del cache[next(iter(cache))]
    return misses


# damo


def damo_pages(*words):
    """What damo says of a record, in pages."""
    script = "import runpy, sys, os; import damo; d = os.path.dirname(damo.__file__); "
    script += "sys.path.insert(0, d); runpy.run_path(d + '/damo.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script, "report", "wss", *map(str, words)],
        capture_output=True, text=True, timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [int(words[1]) // 4096 for words in lines if words and words[0].isdigit()]


def test_damo_reports_the_working_sets_that_pmlkit_does(make_trace, tmp_path):
    needs_package("damo")
    if not shutil.which("file") and not REQUIRED:
        pytest.skip("damo needs file(1): apt-get install file")
    trace = make_trace(rounds=40, seed=3)
    path = tmp_path / "damon.data"
    assert interop.export(trace, "damo", path, window=100_000_000) == 4
    ours = sorted(workingset.estimate(trace, "100ms")["pages"])
    words = ["-i", path, "--exclude_samples", 0, "--raw_number", "--range", 0, 101, 25]
    assert damo_pages(*words) == [*ours[:4], ours[3]]


def test_damo_gives_the_pages_of_each_snapshot_back(trace, tmp_path):
    path = tmp_path / "damon.data"
    interop.export(trace, "damo", path)
    made = back("damo", path, tmp_path)
    assert rows(made) == [[0, 10, 1], [0, 11, 1], [0, 20, 1], [1, 20, 1], [3, 11, 1]]
    made.check()


def test_damo_counts_the_rounds_of_a_window_in_which_a_page_was_used(trace, tmp_path):
    path = tmp_path / "x.json"
    interop.export(trace, "damo", path, window=20_000_000)
    (record,) = json.loads(path.read_text())
    assert record["intervals"] == {"sample_us": 10_000, "aggr_us": 20_000, "ops_update_us": 0}
    regions = record["snapshots"][0]["regions"]
    found = [(r["start"] >> 12, r["end"] >> 12, r["nr_accesses"]["samples"]) for r in regions]
    assert found == [(0, 10, 0), (10, 12, 1), (12, 20, 0), (20, 21, 2), (21, 4096, 0)]
    assert record["snapshots"][0]["total_bytes"] == 16 << 20


def test_damos_numbers_may_be_text(trace, tmp_path):
    region = {"start": "40,960", "end": "49,152", "nr_accesses": {"samples": "1"}}
    snapshot = {"start_time": "1,000", "end_time": "2,000", "regions": [region]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"target_id": 0, "snapshots": [snapshot]}]))
    assert rows(back("damo", path, tmp_path)) == [[0, 10, 1], [0, 11, 1]]


# KVM and QEMU


def test_a_dirty_ring_in_binary(tmp_path):
    path = tmp_path / "ring"
    entries = [(1, 0, 7), (3, 0, 8), (0, 0, 0), (1, 1, 7)]
    path.write_bytes(b"".join(struct.pack("<IIQ", *entry) for entry in entries))
    made = back("kvm-dirty-ring", path, tmp_path)
    assert made.meta.kind == "pml"
    assert rows(made) == [[0, 7, 0], [0, 8, 0], [0, (1 << 32) + 7, 0]]
    made.check()


def test_a_dirty_ring_of_ftrace(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text(
        "# tracer: nop\n"
        " qemu-1 [000] ...1.  100.000002: kvm_dirty_ring_push: ring 1: dirty 0x2 reset 0x0 "
        "slot 0 offset 0x1f (used 2)\n"
        " qemu-1 [001] ...1.  100.000001: kvm_dirty_ring_push: ring 0: dirty 0x1 reset 0x0 "
        "slot 0 offset 0x2e3 (used 1)\n"
    )
    made = back("kvm-dirty-ring", path, tmp_path)
    assert made.to_pandas(["vcpu", "gfn"]).values.tolist() == [[0, 0x2E3], [1, 0x1F]]
    assert made.duration_ns == 1001


def test_query_dirty_rate_becomes_a_table(tmp_path):
    path, out = tmp_path / "answers.json", tmp_path / "rates.csv"
    measured = {"status": "measured", "calc-time": 1, "sample-pages": 512, "mode": "page-sampling"}
    measuring = {"status": "measuring", "start-time": 10, "calc-time": 1}
    answers = [
        {"return": measuring},
        {"return": measured | {"start-time": 10, "dirty-rate": 108}},
        {"return": measured | {"start-time": 20, "dirty-rate": 10, "calc-time": 500,
         "calc-time-unit": "millisecond", "mode": "dirty-ring",
         "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 4}, {"id": 1, "dirty-rate": 6}]}},
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(answer) for answer in answers))
    table = interop.load("query-dirty-rate", path, out)
    assert table["t_ns"].tolist() == [10**9] + [10_500_000_000] * 3
    assert table["bytes"].tolist() == [108 << 20, 5 << 20, 2 << 20, 3 << 20]
    assert table["vcpu"].tolist() == [-1, -1, 0, 1]
    pd.testing.assert_frame_equal(pd.read_csv(out, keep_default_na=False), table)
    with pytest.raises(UsageError, match="NAME.csv"):
        interop.load("query-dirty-rate", path, tmp_path / "x.trace")


# lackey


def test_lackey_counts_instructions_and_knows_kinds(tmp_path):
    path = tmp_path / "lackey.log"
    path.write_text(
        "==7== Lackey, an example Valgrind tool\n"
        "I  00400fff,3\n L 00500000,8\n S 00500000,8\nI  00401002,4\n M 00600ffc,8\n"
        "I  00401006,2\n L 00500010,4\n"
    )
    made = back("lackey", path, tmp_path, instructions=2)
    assert rows(made) == [
        [0, 0x500, 1], [0, 0x500, 2], [0, 0x600, 1], [0, 0x600, 2], [0, 0x601, 1], [0, 0x601, 2],
        [0, 0x400, 4], [0, 0x401, 4], [1, 0x500, 1], [1, 0x401, 4],
    ]  # fmt: skip
    assert made.rounds["t_end_ns"].tolist() == [2, 3]
    made.check()


@needs_valgrind
def test_lackey_of_valgrind_itself(tmp_path):
    log = tmp_path / "lackey.log"
    command = ["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={log}", "true"]
    subprocess.run([shutil.which(command[0]), *command[1:]], check=True, timeout=HANG_S)
    made = back("lackey", log, tmp_path, instructions=10_000)
    lines = log.read_text().splitlines()
    instructions = [line for line in lines if line.startswith("I ")]
    stored = {int(line[3:].split(",")[0], 16) >> 12 for line in lines if line[:2] in (" S", " M")}
    assert made.n_rounds == -(-len(instructions) // 10_000)
    assert made.duration_ns == len(instructions)
    written = set(made.to_pandas(["gfn"], kinds="w")["gfn"])
    assert stored <= written <= stored | {page + 1 for page in stored}
    made.check()


# Damage

BAD = {
    "oracle cut": ("oracle-general", b"\0" * 30, "byte 24 .*cut"),
    "oracle of text": ("oracle-general", b"some words, and no requests here" * 3, "back in time"),
    "oracle back in time": (
        "oracle-general",
        struct.pack("<IQIq", 5, 1, 1, -1) + struct.pack("<IQIq", 4, 1, 1, -1),
        "request 1 .*back in time",
    ),
    "oracle empty": ("oracle-general", b"", "holds no entry"),
    "damo cut": ("damo", zlib.compress(b"[]" * 99)[:-9], "not a json record"),
    "damo of another": ("damo", b'[{"a": 1}]', "not a json record"),
    "damo without regions": ("damo", b'[{"target_id": 0, "snapshots": [{}]}]', "not a record"),
    "damo two targets": (
        "damo",
        b'[{"target_id": 0, "snapshots": []}, {"target_id": 1, "snapshots": []}]',
        "2 targets",
    ),
    "csv without a frame": ("csv", b"t_start_ns,t_end_ns\n1,2\n", "has no column gfn"),
    "csv of words": ("csv", b"t_start_ns,t_end_ns,gfn\n1,2,x\n", "not a CSV of entries"),
    "csv of another kind": ("csv", b"t_start_ns,t_end_ns,gfn,kind\n1,2,3,z\n", "line 2 .*'z'"),
    "csv back in time": ("csv", b"t_start_ns,t_end_ns,gfn\n5,6,1\n1,2,1\n", "line 3 .*back"),
    "csv that overlaps": ("csv", b"t_start_ns,t_end_ns,gfn\n0,9,1\n1,2,1\n", "line 3 .*overlaps"),
    "csv that is empty": ("csv", b"", "not a CSV"),
    "ring cut": ("kvm-dirty-ring", b"\1\0\0\0" * 5, "byte 16 .*cut"),
    "ring of other flags": ("kvm-dirty-ring", struct.pack("<IIQ", 9, 0, 0), "entry 0"),
    "ring of words": ("kvm-dirty-ring", b"nothing of a ring", "neither"),
    "rates of words": ("query-dirty-rate", b"{]", "line 1 .*not JSON"),
    "rates without any": (
        "query-dirty-rate",
        b'{"return": {"status": "unstarted"}}',
        "no measured",
    ),
    "rates cut": ("query-dirty-rate", b'{"return": {"status": "measured"}}', "answer 1"),
    "lackey of words": ("lackey", b"I  00400000,3\nhello\n", "line 2"),
    "lackey cut": ("lackey", b"I  004000", "line 1 .*not an access"),
    "lackey empty": ("lackey", b"==1== nothing\n", "holds no entry"),
}


@pytest.mark.parametrize(("name", "data", "says"), BAD.values(), ids=BAD)
def test_damage_is_said_and_nothing_is_left(tmp_path, capsys, name, data, says):
    path = tmp_path / "file"
    path.write_bytes(data)
    out = "x.csv" if name == "query-dirty-rate" else "x.trace"
    with pytest.raises(ForeignFileError, match=says):
        interop.load(name, path, tmp_path / out)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert cli.main(["import", name, str(path), "-o", str(tmp_path / out)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_output_that_is_there_stays(trace, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("mine")
    with pytest.raises(OutputExists):
        interop.export(trace, "csv", path)
    assert path.read_text() == "mine"
    interop.export(trace, "csv", path, overwrite=True)
    assert path.read_text().startswith('"t_start_ns"')


def test_formats_and_ways_that_there_are_not(trace, tmp_path):
    with pytest.raises(UsageError, match="no format 'x'"):
        interop.export(trace, "x", tmp_path / "x")
    with pytest.raises(UsageError, match="can be imported, but not exported"):
        interop.export(trace, "lackey", tmp_path / "x")
    with pytest.raises(ForeignFileError, match="does not exist"):
        interop.load("csv", tmp_path / "none", tmp_path / "x.trace")


# The commands


def test_export_and_import_by_the_command_line(trace, tmp_path, capsys):
    path = str(tmp_path / "x.csv")
    words = ["export", str(trace.path), "csv", "-o", path, "--start", "10ms", "--json"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"path": path, "count": 2}
    out = tmp_path / "y.trace"
    assert cli.main(["import", "csv", path, "-o", str(out), "--memory", "64M", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory_pages"] == 64 << 8
    meta = Trace.open(out).meta
    assert (meta.source, meta.provenance["command"]) == ("import:csv", "pmlkit import csv x.csv")


def test_a_format_is_a_module_and_an_entry_of_the_table(tmp_path, monkeypatch, capsys):
    module = ModuleType("pmlkit.interop.frames")
    module.load = lambda path: interop.Imported([(0, 1, 0, np.fromfile(path, "u8"), int(READ))])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(interop.FORMATS, "frames", interop.Format("frames", ("load",), "u64"))
    np.array([7, 9], "u8").tofile(tmp_path / "x")
    out = tmp_path / "x.trace"
    assert cli.main(["import", "frames", str(tmp_path / "x"), "-o", str(out)]) == 0
    assert rows(Trace.open(out)) == [[0, 7, 1], [0, 9, 1]]
    assert cli.main(["import", "--list"]) == 0
    assert "frames" in capsys.readouterr().out


def test_the_formats_are_listed(capsys):
    assert cli.main(["import", "--list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(interop.FORMATS)
    assert cli.main(["export", "--list"]) == 0
    assert "lackey" not in capsys.readouterr().out
    assert cli.main(["export"]) == 2


def test_lines_are_numbered_and_no_line_is_longer_than_a_tracer_writes(tmp_path):
    from pmlkit.interop import reading

    path = tmp_path / "x.txt"
    path.write_bytes(b"one\n\nthree")
    assert list(reading.lines(path)) == [(1, b"one\n"), (2, b"\n"), (3, b"three")]
    path.write_bytes(b"one\n" + b"x" * reading.LINE_LIMIT)
    with pytest.raises(ForeignFileError, match="line 2 of .* is longer than 65,536 bytes"):
        list(reading.lines(path))
