# SPDX-License-Identifier: Apache-2.0
"""damo's records of every kind: the same snapshots, and no more memory than they need."""

import gzip
import itertools
import json
import subprocess
import sys
import zlib

import pytest
from foreign import survives
from hypothesis import given
from hypothesis import strategies as st
from needs import REQUIRED
from waiting import HANG_S

from pmlkit import interop, workingset
from pmlkit.errors import ResolutionError
from pmlkit.interop.reading import ForeignFileError

PAGE = 4096
MS = 10**6


def region(first, stop, samples=1):
    return {
        "start": first * PAGE, "end": stop * PAGE,
        "nr_accesses": {"samples": samples, "percent": None},
        "age": {"usec": None, "aggr_intervals": 0},
    }  # fmt: skip


def snapshot(start_ms, end_ms, *regions):
    return {"start_time": start_ms * MS, "end_time": end_ms * MS, "regions": list(regions)}


def record(*snapshots, **more):
    about = {"kdamond_idx": 0, "context_idx": 0, "intervals": None, "scheme_idx": None}
    return about | {"target_id": 0, "snapshots": list(snapshots)} | more


TWO = record(snapshot(0, 100, region(0, 2), region(2, 4, 0)), snapshot(100, 200, region(1, 3, 20)))
ROWS = [[0, 0], [0, 1], [1, 1], [1, 2]]


@pytest.fixture
def load(tmp_path):
    def make(data, **options):
        path = tmp_path / "x"
        data = json.dumps(data).encode() if isinstance(data, dict | list) else data
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return interop.load("damo", path, tmp_path / "x.trace", **options)

    return make


def rows(trace):
    return trace.to_pandas(["round", "gfn"]).values.tolist()


@pytest.mark.parametrize(
    "data",
    [
        [TWO],
        TWO,
        {"damo_reocrd_ver": 1, "damo_records": {
            "damon_records": {"kdamonds": [{"a": [1, {}]}], "record_list": [TWO]}}},
        {"damon_records": {"kdamonds": [], "record_list": [TWO]}},
        {"kdamonds": [], "record_list": [TWO]},
        [record(*TWO["snapshots"][1:]), record(*TWO["snapshots"][:1])],
    ],
    ids=["list", "record", "DamoRecord", "DamonRecords", "record_list", "two records"],
)  # fmt: skip
@pytest.mark.parametrize(
    "pack", [bytes, zlib.compress, gzip.compress], ids=["plain", "zlib", "gzip"]
)
def test_every_kind_of_json(load, data, pack):
    trace = load(pack(json.dumps(data, indent=4).encode()))
    assert rows(trace) == ROWS
    assert trace.rounds["t_end_ns"].tolist() == [100 * MS, 200 * MS]
    assert trace.meta.period["ns"] == 100 * MS
    assert trace.meta.lost is None and trace.meta.complete is None


def test_numbers_as_damo_writes_them_for_people(load):
    one = {"start": "40,960", "end": "49,152", "nr_accesses": {"samples": None, "percent": "5 %"}}
    data = record({"start_time": "1 m 2 s", "end_time": "1 m 2.1 s", "regions": [one]})
    trace = load([data])
    assert rows(trace) == [[0, 10], [0, 11]] and trace.duration_ns == 100 * MS
    assert any("0 is its 62.000000 s" in note for note in trace.meta.notes)


def test_irregular_intervals_and_gaps_are_windows_of_time(load):
    times = [(0, 99), (99, 201), (201, 300), (900, 1001)]
    snapshots = [snapshot(*span, region(n, n + 1)) for n, span in enumerate(times)]
    trace = load([record(*snapshots)])
    assert trace.rounds["t_end_ns"].tolist() == [t * MS for t in (99, 201, 300, 900, 1001)]
    assert trace.meta.period["ns"] is None


def test_a_clock_since_1970_is_a_base_and_one_since_the_boot_is_none(load):
    zero = 1_700_000_000_000
    trace = load([record(snapshot(zero, zero + 100, region(0, 1)))])
    assert trace.meta.clock["base_ns"] == zero * MS and trace.duration_ns == 100 * MS


def test_floats_of_times_and_a_start_just_before_the_last_end(load):
    first, second = snapshot(0, 100, region(0, 1)), snapshot(100, 200, region(1, 2))
    first["end_time"] = 100_000_000.6
    trace = load([record(first, second)])
    assert trace.rounds["t_start_ns"].tolist() == [0, 100_000_000]


def test_pages_at_two_regions_edges_count_once(load):
    one, other = region(0, 1), region(1, 3)
    one["end"] = other["start"] = PAGE + 100
    assert rows(load([record(snapshot(0, 1, one, other))])) == [[0, 0], [0, 1], [0, 2]]


def test_addresses_that_no_machine_has_are_virtual(load):
    assert load([TWO]).meta.domain["address"] == "guest-physical"


def test_addresses_of_a_process_are_virtual(load):
    high = 0x7FFF_FFFF_F000 // PAGE
    trace = load([record(snapshot(0, 1, region(high, high + 1)))])
    assert trace.meta.domain["address"] == "virtual"


def test_a_snapshot_of_nothing_is_a_round_without_entries(load):
    trace = load([record(snapshot(0, 1), snapshot(1, 2, region(1, 2)))])
    assert rows(trace) == [[1, 1]]


@given(
    lengths=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    pages=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=6, max_size=6),
)
def test_snapshots_that_last_no_time_share_a_round(tmp_path_factory, lengths, pages):
    """Two that begin and end at the same time are one interval, whose pages count once."""
    ends = list(itertools.accumulate(lengths))
    spans = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    used = {span: set() for span in spans}
    snapshots = []
    for span, (first, count) in zip(spans, pages, strict=False):
        snapshots.append(snapshot(*span, region(first, first + count)))
        used[span] |= set(range(first, first + count))
    folder = tmp_path_factory.mktemp("damo")
    (folder / "x").write_text(json.dumps([record(*snapshots)]))
    trace = interop.load("damo", folder / "x", folder / "x.trace")
    assert rows(trace) == [[n, page] for n, span in enumerate(used) for page in sorted(used[span])]


# perf script


def line(seconds, first, stop, accesses, regions=1, target=1, age=" 3"):
    return (
        f"  kdamond.0  4452 [000] {seconds:.6f}: damon:damon_aggregated: target_id={target} "
        f"nr_regions={regions} {first * PAGE}-{stop * PAGE}: {accesses}{age}\n"
    )


def test_the_text_of_perf_script(load):
    text = line(100, 0, 2, 3, 2) + line(100.000001, 2, 4, 0, 2) + line(100.1, 1, 3, 20)
    trace = load(text)
    assert rows(trace) == ROWS
    assert trace.rounds["t_end_ns"].tolist() == [100 * MS, 200 * MS]


def test_the_text_of_trace_cmd_and_of_older_kernels(load):
    text = "    kdamond.0-129062 [005] ..... 101.000000: damon_aggregated:     target_id=0 "
    text += "nr_regions=1 0-8192: 0 974\n kdamond.0-129062 [005] 101.100000: damon_aggregated: "
    assert rows(load(text + "target_id=0 nr_regions=1 0-8192: 3\n")) == [[1, 0], [1, 1]]


def test_two_snapshots_of_one_moment_are_one_round(load):
    assert rows(load(line(100, 1, 3, 20) + line(100, 1, 4, 20))) == [[0, 1], [0, 2], [0, 3]]


def test_one_snapshot_has_no_length(load):
    trace = load("       kdamond.0     1 [000]   100.000000: damon:damon_aggregated: target_id=1 "
                 "nr_regions=1 4096-8192: 3\n")  # fmt: skip
    assert rows(trace) == [[0, 1]]
    assert any("is not known: it is set to 1 ns" in note for note in trace.meta.notes)


def test_one_snapshot_with_the_one_that_damo_adds(load):
    trace = load(line(100, 1, 2, 3) + line(100.1, 0, 0, -1, age=" -1"))
    assert rows(trace) == [[0, 1]] and trace.duration_ns == 100 * MS


def test_snapshots_that_are_not_whole_are_left_out_and_counted(load):
    text = line(100, 0, 1, 1) + line(100.1, 0, 1, 1, 2) + line(100.2, 0, 1, 1)
    trace = load(text + "PERF_RECORD_LOST lost 4\n" + line(100.3, 5, 6, 1, 3))
    assert any("2 incomplete snapshots" in note for note in trace.meta.notes)
    assert trace.meta.lost == 4
    assert trace.to_pandas(["gfn"])["gfn"].tolist() == [0, 0]


# What cannot be


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([record(snapshot(0, 1, region(0, 1 << 25)))], "claims 33,554,432 accessed pages"),
        (
            [record(*(snapshot(n, n + 1, region(0, 1 << 23)) for n in range(40)))],
            "in its snapshots",
        ),
        ([record(snapshot(0, 1, region(-1, 1)))], "region from -4096"),
        ([record(snapshot(0, 1, region(3, 1)))], "region from 12288 to 4096"),
        ([record(snapshot(2, 1))], "lasts from 2000000 to 1000000 ns"),
        ([record(snapshot(0, 2, region(0, 1)), snapshot(1, 3, region(0, 1)))], "overlap"),
        ([record(snapshot(0, 1, region(0, 1, -1)))], "-1 accesses"),
        ([record(snapshot(0, 1, region(0, 1, float("nan"))))], "nan accesses"),
        ([record(snapshot(0, 1), data_source="damon_stat")], "no addresses"),
        ([record(), record(kdamond_idx=1)], "2 targets"),
        ([record(snapshot(0, 1, {"start": 0, "end": 1}))], "has no nr_accesses"),
        ([record(snapshot(0, 1, region(0, 1) | {"nr_accesses": {}}))], "neither samples nor"),
        ([record({"start_time": 0, "end_time": 1})], "has no regions"),
        ([record({"start_time": "soon", "end_time": 1, "regions": []})], "snapshot 1 "),
        ('[{"target_id": 0, "snapshots": [{"start_time": 0, "end_time": 1e999}]}]', "snapshot 1 "),
        ('[{"target_id": 0, "snapshots": []} ', "its end"),
        ("[" * 100_000, "instead of"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        (b"PERFILE2" + bytes(99), "perf's own data: import the output of `perf script`"),
        (line(1, 0, 1, 1) + line(2, 0, 1, 1, target=2), "line 2 .*second target"),
        (line(1, 0, 1, 1) + line(2, 0, 1, 1)[:-30], "line 2 .*is not a damon_aggregated event"),
        (line(2, 0, 1, 1) + line(1, 0, 1, 1) + line(3, 0, 1, 1), "line 2 .*back in time"),
        ("words", "no complete snapshot of damon_aggregated"),
    ],
)
def test_what_cannot_be_read_is_one_line(load, data, says):
    with pytest.raises(ForeignFileError, match=says):
        load(data)


def test_a_compressed_file_is_unpacked_a_piece_at_a_time(load):
    blank = zlib.compressobj()
    packed = blank.compress(b"[") + b"".join(blank.compress(b" " * (1 << 20)) for _ in range(64))
    with pytest.raises(ForeignFileError, match="its end"):
        load(packed + blank.flush())


MEMORY = """
import re, sys
from pmlkit.interop.formats import _function
from pmlkit.errors import PmlkitError
# Of its own: what getrusage gives begins with the size of the process that started it.
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
try:
    made = _function("damo", "load")(sys.argv[1])
    print(sum(len(part[3]) for part in made.rounds))
except PmlkitError as error:
    print(error)
print((peak() - before) >> 10)
"""


def memory(path):
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANG_S)
    answer, mib = done.stdout.splitlines()
    return answer, int(mib)


def test_a_region_of_32_gib_needs_little_memory(tmp_path):
    path = tmp_path / "x"
    path.write_text(json.dumps([record(snapshot(0, 100, region(1 << 20, 9 << 20)))]))
    said, mib = memory(path)
    assert said == str(8 << 20) and mib < 256


def test_a_bomb_needs_little_memory(tmp_path):
    path = tmp_path / "x"
    start = b'[{"target_id": 0, "snapshots": [{"regions": ['
    path.write_bytes(zlib.compress(start + b"[]," * (1 << 25)))
    said, mib = memory(path)
    assert "more than 4,194,304 characters" in said and mib < 384


def test_damo_counts_the_same_bytes(load, tmp_path):
    """damo's own reader, of the text that damo itself writes of a record."""
    if not REQUIRED:
        pytest.importorskip("damo")
    script = "import sys, os, json, damo; sys.path.insert(0, os.path.dirname(damo.__file__)); "
    script += "import _damo_records as r; records = r.parse_json_file(sys.argv[1]); "
    script += "r.write_perf_script(records, sys.argv[2]); r.write_json_compressed(records, "
    script += "sys.argv[3]); print(json.dumps([[x.size() for x in s.regions if "
    script += "x.nr_accesses.samples] for s in records[0].snapshots]))"
    snapshots = [
        snapshot(100 * n, 100 * n + 100, region(n, n + 3), region(90, 95, n % 2)) for n in range(9)
    ]
    path = tmp_path / "made.json"
    path.write_text(json.dumps([record(*snapshots)]))
    names = [str(path), str(tmp_path / "perf"), str(tmp_path / "packed")]
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    theirs = [sum(sizes) // PAGE for sizes in json.loads(done.stdout)]
    for name in names:
        trace = interop.load("damo", name, f"{name}.trace")
        assert workingset.estimate(trace, "1r")["pages"].tolist() == theirs
        assert trace.duration_ns == 900 * MS


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data):
    survives("damo", data)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(
    st.sampled_from(["start_time", "end_time", "regions", "start", "end", "nr_accesses"]), VALUES
)
def test_any_value_is_read_or_refused(name, value):
    one, inner = snapshot(0, 1), region(0, 1)
    (one if name in one else inner)[name] = value
    if name != "regions":
        one["regions"] = [inner]
    survives("damo", json.dumps([record(one)]).encode())


@given(st.lists(st.one_of(st.just(line(1, 0, 2, 3)), st.text(max_size=20)), max_size=4), st.data())
def test_any_text_is_read_or_refused(lines, data):
    text = "\n".join(lines)
    if text:
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]
    survives("damo", text.encode("utf-8", "surrogatepass"))


def test_an_export_counts_a_window_in_pieces(make_trace, tmp_path, monkeypatch):
    from pmlkit.interop import damo as interop_damo

    trace = make_trace(rounds=37, seed=1, row_group_rows=100)
    for name, many in (("whole.json", 1 << 21), ("pieces.json", 40)):
        monkeypatch.setattr(interop_damo, "_MANY", many)
        monkeypatch.setattr(interop_damo, "_PIECE", many // 10)  # regions
        assert interop.export(trace, "damo", tmp_path / name, window=10**8) == 4
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "pieces.json").read_bytes()
    (made,) = json.loads((tmp_path / "whole.json").read_text())
    assert json.dumps([made], indent=1) == (tmp_path / "whole.json").read_text()
    used = trace.to_pandas(["round", "gfn"]).drop_duplicates()
    inside = used[used["round"] < 10]["gfn"].value_counts()
    found = {
        page: one["nr_accesses"]["samples"]
        for one in made["snapshots"][0]["regions"]
        for page in range(one["start"] // PAGE, one["end"] // PAGE)
        if one["nr_accesses"]["samples"]
    }
    assert found == inside.to_dict()


@pytest.mark.parametrize("window", [1, 999, 15_000_000])
def test_a_window_of_an_export_has_its_unit(make_trace, tmp_path, window):
    """It is an integer of ns here, of which a unit was not forgotten."""
    with pytest.raises(ResolutionError, match=r"resolves 10 ms: use a multiple of 10 ms"):
        interop.export(make_trace(), "damo", tmp_path / "x.json", window=window)
    assert not (tmp_path / "x.json").exists()
