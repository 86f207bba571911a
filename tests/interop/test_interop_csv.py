# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet: what goes out comes back; those of others by named columns; faults by line."""

import io
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import peak_kb
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as pacsv
from test_interop_requests import gfns, lru_of_libcachesim, whole_misses

import pmlkit
from pmlkit import cli, interop, missratio, workingset
from pmlkit.errors import UsageError
from pmlkit.interop.reading import ForeignFileError

HEAD = "t_start_ns,t_end_ns,gfn"
COLUMNS = "time=time,obj=obj,size=size"


def load(tmp_path, text, name="csv", **options):
    path = tmp_path / f"x.{name}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return interop.load(name, path, tmp_path / "x.trace", overwrite=True, **options)


@pytest.mark.parametrize("name", ["hotcold", "rrww-lab"])
def test_a_round_trip_loses_nothing(tmp_path, name):
    trace = pmlkit.open(pmlkit.bundled(name))
    for one in (trace, trace.pml):
        interop.export(one, "csv", tmp_path / "x.csv", overwrite=True)
        made = interop.load("csv", tmp_path / "x.csv", tmp_path / "x.trace", overwrite=True)
        columns = ["round", "vcpu", "gfn", "kind"]
        pd.testing.assert_frame_equal(one.to_pandas(columns), made.to_pandas(columns))
        for column in ("t_start_ns", "t_end_ns", "entries"):
            np.testing.assert_array_equal(one.rounds[column], made.rounds[column])
        ours, theirs = (missratio.of_trace(t).miss_ratio for t in (one, made))
        np.testing.assert_array_equal(ours, theirs)
        if name == "hotcold":
            assert made.meta.period["ns"] == 10_000_000
            sizes = (workingset.estimate(t, "1s")["pages"].tolist() for t in (one, made))
            assert next(sizes) == next(sizes)
        else:
            assert made.meta.period["ns"] is None


def test_a_file_comes_back_as_it_was(tmp_path):
    text = f'"t_start_ns","t_end_ns","vcpu","gfn","kind"\n'  # noqa: F541
    start = 1_700_000_000_000_000_000
    text += f'{start},{start + 5},0,7,"r"\n{start},{start + 5},1,7,"w"\n'
    text += f'{start + 5},{start + 9},0,7,"r"\n{start + 9},{start + 9},0,7,"r"\n'
    trace = load(tmp_path, text)
    assert trace.meta.clock["base_ns"] == start and trace.duration_ns == 9
    interop.export(trace, "csv", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text() == text


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_the_size_of_a_page_comes_back(make_trace, tmp_path, size):
    domain = {"name": "pages", "memory_bytes": 128 * size, "page_size": size}
    trace = make_trace(pml=False, memory_map=[], domain=domain)
    interop.export(trace, "csv", tmp_path / "x.csv")
    assert ("page_bytes" in (tmp_path / "x.csv").read_text()) == (size != 4096)
    made = interop.load("csv", tmp_path / "x.csv", tmp_path / "made.trace")
    assert made.meta.domain["page_size"] == size
    ours, theirs = (pmlkit.wss(one, window="1r")["bytes"].tolist() for one in (trace, made))
    assert ours == theirs


BAD = {
    "twice": (f"{HEAD},gfn\n0,1,2,3\n", "line 1 .*column gfn twice"),
    "blank lines": (f"{HEAD}\n0,1,2\n\n\n5,4,2\n", "line 5 .*ends before"),
    "a bad value after blank lines": (f"\n{HEAD}\n\n0,1,2\n\n0,1,x\n", "line 6 .*gfn 'x'"),
    "a missing column": ("a,b\n1,2\n", "no column t_start_ns: its columns are a, b.*columns"),
    "pages of no size": (f"{HEAD},page_bytes\n0,1,2,1000\n", "line 2 .*pages of 1000 bytes: give"),
    "two sizes of pages": (f"{HEAD},page_bytes\n0,1,2,512\n\n0,1,3,4096\n", "line 4 .*of 4096 "),
    "no size of a page": (f"{HEAD},page_bytes\n0,1,2,\n", "line 2 .*no page_bytes"),
    "a size twice": (f"{HEAD},page_bytes,page_bytes\n0,1,2,512,512\n", "page_bytes twice"),
    "too few cells": (f"{HEAD}\n0,1,2\n0,1\n", "line 3 .*has 2 columns"),
    "too many cells": (f"{HEAD}\n0,1,2,3\n", "line 2 .*has 4 columns"),
    "a negative frame": (f"{HEAD}\n0,1,-2\n", "line 2 .*gfn '-2'"),
    "a huge frame": (f"{HEAD}\n0,1,{10**400}\n", "line 2 .*gfn '1000"),
    "an empty cell": (f"{HEAD}\n0,1,1\n0,1,\n", "line 3 .*no gfn"),
    "a negative time": (f"{HEAD}\n-5,1,1\n", "line 2 .*before the start"),
    "a vcpu beyond": (f"{HEAD},vcpu\n0,1,1,65536\n", "line 2 .*vcpu '65536'"),
    "two kinds of traces": (f"{HEAD},kind\n0,1,1,r\n0,1,1,p1\n", "PML log, and reads"),
    "a frame beyond 64-bit addresses": (f"{HEAD}\n0,1,2\n0,1,{1 << 52}\n", "row 2 .*2\\^64 bytes"),
    "carriage returns alone": (f"{HEAD}\r0,1,2\r", "carriage return alone.*to LF"),
    "only a header": (f"{HEAD}\n", "holds no entry"),
    "only blank lines": ("\n\n", "it is empty"),
    "zeros": (b"\0" * 5000, "no column"),
    "bytes": (bytes(range(256)) * 40, "no column|has a line"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_fault_names_its_line(tmp_path, text, says, capsys):
    with pytest.raises(ForeignFileError, match=says):
        load(tmp_path, text)
    assert not (tmp_path / "x.trace").exists()
    words = ["import", "csv", str(tmp_path / "x.csv"), "-o", str(tmp_path / "x.trace")]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "defect" not in error


def test_spaces_byte_order_marks_and_line_ends_do_no_harm(tmp_path):
    rows = "0, 5 ,7, r\r\n\r\n0,5,0x8,r\r\n"
    text = "\ufeff" + '\r\n"t_start_ns" , t_end_ns,gfn ,"kind"\r\n' + rows
    trace = load(tmp_path, text)
    assert gfns(trace) == [7, 8] and trace.duration_ns == 5


def test_regular_rounds_have_a_period(tmp_path):
    rows = "".join(f"{10**7 * r},{10**7 * (r + 1)},{g}\n" for r in range(4) for g in (1, 2))
    trace = load(tmp_path, f"{HEAD}\n{rows}")
    assert trace.meta.period["ns"] == 10**7
    assert workingset.estimate(trace, "20ms")["pages"].tolist() == [2, 2]


def test_two_vcpus_in_a_round_make_a_trace_that_passes(tmp_path):
    rows = "".join(f"0,9,{g},{g % 2},w\n" for g in range(6))
    trace = load(tmp_path, f"{HEAD},vcpu,kind\n{rows}")
    trace.check()
    assert trace.meta.kind == "pml" and len(trace.batches) == 6


# Those of others


def test_named_columns_are_what_libcachesim_reads(tmp_path):
    rng = np.random.default_rng(3)
    objects = rng.integers(0, 40, 300)
    rows = "".join(f"{i // 5},{obj},4096\n" for i, obj in enumerate(objects))
    trace = load(tmp_path, "time,obj,size\n" + rows, columns=COLUMNS)
    assert gfns(trace) == objects.tolist() and trace.duration_ns == 60 * 10**9
    numbered = load(tmp_path, rows.replace(",", ";"), columns="time=1,obj=2,size=3")
    assert gfns(numbered) == objects.tolist()
    named = "".join(f"{i // 5}\tpage-{obj}\t4096\n" for i, obj in enumerate(objects))
    of_names = load(tmp_path, named, columns="time=1,obj=2,size=3", separator="tab")
    (tmp_path / "t.txt").write_text("".join(f"{obj}\n" for obj in objects))
    only = interop.load("csv", tmp_path / "t.txt", tmp_path / "t.trace", columns="obj=1")
    for size in (5, 20, 35):
        theirs = lru_of_libcachesim(tmp_path / "t.txt", "PLAIN_TXT_TRACE", size)
        for one in (trace, numbered, of_names, only):
            assert whole_misses(one, size) == theirs


def test_times_with_more_places_than_a_nanosecond_are_rounded(tmp_path):
    """Python prints 0.1 + 0.2 and 3 * 0.1 so; truncated, they would be in the tick before."""
    times = [0.1, 0.2, 0.1 + 0.2, 0.7 + 0.1, 1e-5 + 0.9, 1.1 * 3]
    rows = "".join(f"{time!r},{page}\n" for page, time in enumerate(times))
    trace = load(tmp_path, f"t,o\n{rows}", columns="time=t,obj=o", window=10_000)
    starts = trace.rounds["t_start_ns"].to_numpy() + trace.meta.clock["base_ns"]
    used = starts[trace.to_pandas(["round"])["round"]]
    assert used.tolist() == [round(time * 1e5) * 10_000 for time in times]


@pytest.mark.parametrize("scale", [0, 3, 9, 12, 20])
@pytest.mark.parametrize("bits", [128, 256])
def test_decimals_of_parquet_are_seconds_whatever_their_scale(tmp_path, scale, bits):
    kind = getattr(pa, f"decimal{bits}")(30, scale)
    times = pa.array([Decimal(1), Decimal(3), Decimal(4)], kind)
    made = of_parquet(tmp_path, {"t": times, "o": [1, 2, 3]})
    assert made.duration_ns == 4 * 10**9 and made.meta.clock["base_ns"] == 10**9


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64()])
def test_times_of_parquet_have_any_width(tmp_path, kind):
    made = of_parquet(tmp_path, {"t": pa.array([1, 3, 4], kind), "o": [1, 2, 3]})
    assert made.duration_ns == 4 * 10**9


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        (pa.array([1.0, float("nan")]), "row 1 .*has no obj"),
        (pa.array([[1], [2]]), r"objects of list<.*>, not numbers or names"),
        (pa.array([{"a": 1}, {"a": 2}]), r"objects of struct<.*>, not numbers or names"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, objects, says):
    with pytest.raises(ForeignFileError, match=says):
        of_parquet(tmp_path, {"t": [1, 2], "o": objects})


def of_parquet(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    options = {"overwrite": True, "columns": "time=t,obj=o"}
    return interop.load("parquet", tmp_path / "t.parquet", tmp_path / "x.trace", **options)


def test_names_need_not_be_utf_8(tmp_path):
    text = "o\nfenêtre\nporte\nfenêtre\n".encode("latin-1")
    assert gfns(load(tmp_path, text, columns="obj=o")) == [0, 1, 0]


@pytest.mark.parametrize("separator", ["é", "", "ab", "\0", '"'])
def test_a_separator_is_one_character_of_ascii(tmp_path, separator):
    with pytest.raises(UsageError, match="give one character of ASCII"):
        load(tmp_path, "t,o\n1,2\n", columns="obj=o", separator=separator)


@pytest.mark.parametrize(("unit", "ns"), [("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)])
def test_times_have_units(tmp_path, unit, ns):
    text = "t,o\n1700000000,1\n1700000003,2\n"
    trace = load(tmp_path, text, columns="time=t,obj=o", time_unit=unit)
    assert trace.duration_ns == 4 * ns
    assert trace.meta.clock["base_ns"] == 1_700_000_000 * ns


def test_fractions_of_a_second_are_kept_by_a_window(tmp_path):
    text = "t,o\n1700000000.125,1\n1700000000.1250005,2\n"
    trace = load(tmp_path, text, columns="time=t,obj=o", window=100)
    assert trace.rounds["t_start_ns"].tolist() == [0, 100, 500]
    assert trace.meta.clock["base_ns"] == 1_700_000_000_125_000_000
    assert load(tmp_path, text, columns="time=t,obj=o").duration_ns == 10**9


def test_sectors_are_split_into_pages(tmp_path):
    text = "t,lbn,len,rw\n1,7,1024,R\n1,16,4096,W\n"
    options = {"columns": "time=t,obj=lbn,size=len,op=rw", "unit": 512}
    trace = load(tmp_path, text, **options)
    assert trace.to_pandas(["gfn", "kind"]).values.tolist() == [[0, 1], [1, 1], [2, 2]]


def parquet(frame):
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def test_parquet_of_anybody(tmp_path):
    times = pd.to_datetime([10**18, 10**18 + 5 * 10**9, 10**18 + 5 * 10**9])
    frame = pd.DataFrame({"when": times, "page": [3, 4, 3], "more": ["a", "b", None]})
    trace = load(tmp_path, parquet(frame), "parquet", columns="time=when,obj=page")
    assert gfns(trace) == [3, 4, 3] and trace.meta.clock["base_ns"] == 10**18
    assert trace.duration_ns == 6 * 10**9
    frame["when"] = [1.0, 2.5, 7.25]
    trace = load(tmp_path, parquet(frame), "parquet", columns="time=when,obj=page", window=10**6)
    assert trace.rounds["t_start_ns"].tolist()[::2] == [0, 1_500_000_000, 6_250_000_000]


@pytest.mark.parametrize(
    ("frame", "columns", "says"),
    [
        ({"t": [2, 1], "o": [1, 2]}, "time=t,obj=o", "row 1 .*back in time"),
        ({"t": [1, None], "o": [1, 2]}, "time=t,obj=o", "row 1 .*no time|is none"),
        ({"o": [1, None]}, "obj=o", "row 1 .*no obj|named"),
        ({"o": [1, -2]}, "obj=o", "row 1 .*negative obj"),
        ({"o": [1], "s": [-1]}, "obj=o,size=s", "row 0 .*size"),
        ({"o": [1], "s": ["x"]}, "obj=o,size=s", "size of"),
        ({"o": [1], "p": ["trim"]}, "obj=o,op=p", "row 0 .*op trim"),
        ({"t": ["x"], "o": [1]}, "time=t,obj=o", "times of"),
        ({"t": [2.0**70], "o": [1]}, "time=t,obj=o", "row 0 .*time"),
        ({"o": [1]}, "obj=x", "no column x: its columns are o"),
    ],
)
def test_values_of_parquet_that_are_none(tmp_path, frame, columns, says):
    with pytest.raises(ForeignFileError, match=says):
        load(tmp_path, parquet(pd.DataFrame(frame)), "parquet", columns=columns)


def test_a_file_that_is_no_parquet(tmp_path):
    for data in (b"", b"PAR1" * 9, b"words"):
        with pytest.raises(ForeignFileError, match="cannot be read as parquet"):
            load(tmp_path, data, "parquet", columns="obj=o")


@pytest.mark.parametrize(
    ("columns", "says"),
    [("time=t", "no column contains the obj"), ("obj", "names no column"),
     ("x=1", "cannot contain 'x'"), ("obj=1,obj=2", "two columns")],
)  # fmt: skip
def test_columns_that_are_none(tmp_path, columns, says):
    with pytest.raises(UsageError, match=says):
        load(tmp_path, "1\n", columns=columns)


def test_compressed_csv_is_read(tmp_path):
    text = f"{HEAD}\n0,5,7\n".encode()
    assert gfns(load(tmp_path, pa.compress(text, "zstd", asbytes=True))) == [7]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_end_in_anything_but_a_line(tmp_path_factory, noise, at):
    tmp_path = tmp_path_factory.mktemp("noise")
    text = f"{HEAD},vcpu,kind\n0,5,7,0,r\n5,9,8,1,w\n".encode()
    for options in ({}, {"columns": "obj=3,time=1"}):
        try:
            load(tmp_path, text[:at] + noise + text[at:], **options)
        except ForeignFileError as error:
            assert "\n" not in str(error)


def test_few_pages_that_return_millions_of_times(tmp_path):
    rows = 1_600_000  # rounds whose table is longer than 128 MiB
    numbers = np.arange(rows)
    table = pa.table({"time": numbers, "obj": numbers % 100})
    pacsv.write_csv(table, tmp_path / "x.csv")
    made = tmp_path / "x.trace"
    call = ["import", "csv", str(tmp_path / "x.csv"), "-o", str(made), "--columns"]
    code, peak, _ = peak_kb(*call, "time=time,obj=obj", "--time-unit", "us", "--window", "1us")
    assert code == 0 and peak < 768 << 10
    trace = pmlkit.open(made)
    assert trace.n_rounds == trace.meta.entries == trace.check()["batches"] == rows
    assert trace.duration_ns == rows * 1000
    sizes = workingset.estimate(trace, "100us")
    assert sizes.pages.min() == sizes.pages.max() == 100
    assert missratio.of_trace(trace).at([99, 100]).tolist() == [1, 100 / rows]
