# SPDX-License-Identifier: Apache-2.0
"""Requests for objects: what they are pages of, what is refused, and what libCacheSim says."""

import gzip
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_imported import lru
from test_interop import needs_package

import pmlkit
from pmlkit import interop, missratio
from pmlkit.errors import UsageError
from pmlkit.interop import lcs
from pmlkit.interop.oracle import REQUEST
from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.vscsi import VERSIONS

SECOND = 10**9


def requests(*rows):
    """Make requests of (time, obj, size)."""
    return np.array([(*row, -1) for row in rows], REQUEST).tobytes()


def load(tmp_path, data, name="oracle-general", file="x.bin", **options):
    (tmp_path / file).write_bytes(data)
    return interop.load(name, tmp_path / file, tmp_path / "x.trace", overwrite=True, **options)


def gfns(trace):
    return trace.to_pandas(["gfn"])["gfn"].tolist()


# What libCacheSim says

# As a power of two; its default, 24, is a table of 128 MiB, which costs more than the simulation.
TABLE = 12


def lru_of_libcachesim(path, kind, pages, **parameters):
    libcachesim = needs_package("libcachesim")
    options = libcachesim.ReaderInitParam(ignore_obj_size=True, **parameters)
    reader = libcachesim.TraceReader(str(path), getattr(libcachesim.TraceType, kind), options)
    count = reader.get_num_of_req()
    misses, _ = libcachesim.LRU(cache_size=pages, hashpower=TABLE).process_trace(reader)
    return round(misses * count), count


def whole_misses(trace, pages):
    curve = missratio.of_trace(trace)
    return round(curve.at([pages])[0] * curve.uses), curve.uses


@pytest.mark.parametrize("name", pmlkit.bundled())
def test_libcachesim_on_our_export_gives_our_curve(tmp_path, name):
    libcachesim = needs_package("libcachesim")
    trace = pmlkit.open(pmlkit.bundled(name))
    for one in [trace] if trace.meta.kind == "pml" else [trace, trace.pml]:
        path = tmp_path / f"{one.meta.kind}.oracleGeneral"
        count, curve = interop.export(one, "oracle-general", path), missratio.of_trace(one)
        assert count == curve.uses
        sizes = np.geomspace(1, curve.sizes_pages[-1], 20).astype(int)
        for size, ours in zip(sizes, curve.at(sizes), strict=True):
            kind = libcachesim.TraceType.ORACLE_GENERAL_TRACE
            reader = libcachesim.TraceReader(str(path), kind)
            cache = libcachesim.LRU(cache_size=int(size) * 4096, hashpower=TABLE)
            misses, _ = cache.process_trace(reader)
            assert round(misses * count) == round(ours * count)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=2, max_size=80))
def test_every_request_of_oracle_general_is_kept(tmp_path_factory, steps):
    tmp_path = tmp_path_factory.mktemp("oracle")
    times = np.cumsum([step for step, _ in steps]) + 5
    objects = [obj for _, obj in steps]
    rows = zip(times.tolist(), objects, [4096] * len(objects), strict=True)
    trace = load(tmp_path, requests(*rows))
    assert gfns(trace) == objects
    for size in (1, 3, 5):
        expected = lru(objects, size), len(objects)
        assert whole_misses(trace, size) == expected
        assert lru_of_libcachesim(tmp_path / "x.bin", "ORACLE_GENERAL_TRACE", size) == expected


@pytest.mark.parametrize("version", lcs.VERSIONS)
def test_lcs_is_what_libcachesim_reads(tmp_path, version):
    rng = np.random.default_rng(version)
    rows = np.zeros(200, lcs.VERSIONS[version])
    rows["time"], rows["obj"] = np.arange(200) // 7 + 3, rng.integers(0, 30, 200)
    rows["size"], rows["next"] = 4096, -1
    stat = struct.pack("<5q", 1, 200, 30, 200 * 4096, 30 * 4096)
    head = struct.pack("<QQ", lcs.MAGIC, version) + stat
    end = struct.pack("<Q", lcs.MAGIC)
    data = head.ljust(8184, b"\0") + end + rows.tobytes()
    trace = load(tmp_path, data, "lcs", "x.lcs")
    assert gfns(trace) == rows["obj"].tolist()
    for size in (3, 10, 20):
        theirs = lru_of_libcachesim(tmp_path / "x.lcs", "LCS_TRACE", size)
        assert whole_misses(trace, size) == theirs
    old = load(tmp_path, head.ljust(1016, b"\0") + end + rows.tobytes(), "lcs")
    assert gfns(old) == rows["obj"].tolist()


@pytest.mark.parametrize("version", VERSIONS)
def test_vscsi_is_what_libcachesim_reads(tmp_path, version):
    rng = np.random.default_rng(version)
    rows = np.zeros(200, VERSIONS[version])
    rows["ver"], rows["len"], rows["lbn"] = version << 8, 4096, rng.integers(0, 30, 200) * 8
    rows["ts"], rows["cmd"] = 5_000_000 + np.arange(200) * 300, 0x2A
    for options in ({}, {"page_size": 0}):
        trace = load(tmp_path, rows.tobytes(), "vscsi", **options)
        assert trace.meta.entries == 200
        for size in (3, 10, 20):
            theirs = lru_of_libcachesim(tmp_path / "x.bin", "VSCSI_TRACE", size)
            assert whole_misses(trace, size) == theirs
    assert trace.meta.clock["base_ns"] == 5 * SECOND
    assert set(trace.to_pandas(["kind"])["kind"]) == {2}
    assert trace.duration_ns == 60_000_000


def test_a_vscsi_request_is_for_the_pages_that_its_sectors_lie_in(tmp_path):
    rows = np.zeros(2, VERSIONS[1])
    rows["ver"], rows["lbn"], rows["len"] = 256, [7, 16], [1024, 8192]
    trace = load(tmp_path, rows.tobytes(), "vscsi")
    assert gfns(trace) == [0, 1, 2, 3]
    assert trace.meta.domain["address"] == "block"


# Objects and pages


def test_what_is_longer_than_a_page_is_split(tmp_path):
    data = requests((1, 10, 8192), (1, 11, 4096), (2, 10, 4096), (2, 10, 8193))
    trace = load(tmp_path, data)
    assert gfns(trace) == [0, 1, 3, 0, 0, 1, 2]
    assert any(note.startswith("2 requests use several pages") for note in trace.meta.notes)
    large = load(tmp_path, data, page_size=2 << 20)
    assert gfns(large) == [10, 11, 10, 10]
    assert large.meta.domain["page_size"] == 2 << 20
    assert gfns(load(tmp_path, data, page_size=0)) == [10, 11, 10, 10]
    assert gfns(load(tmp_path, data, unit=4096)) == [10, 11, 11, 10, 10, 11, 12]


def test_hashed_numbers_become_frames_and_small_ones_are_frames(tmp_path):
    trace = load(tmp_path, requests((1, 0xFEDCBA9876543210, 1), (1, 2**64 - 1, 1)))
    assert gfns(trace) == [0, 1]
    assert trace.meta.domain["address"] == "block"
    assert gfns(load(tmp_path, requests((1, 2**52 - 1, 1)))) == [2**52 - 1]


def test_requests_of_no_size_are_left_out_and_counted(tmp_path):
    trace = load(tmp_path, requests((1, 5, 0), (1, 6, 1), (2, 5, 0)))
    assert gfns(trace) == [6]
    assert any(note.startswith("2 requests of size 0") for note in trace.meta.notes)


def test_the_next_access_may_be_anything(tmp_path):
    rows = np.array([(1, 7, 1, 2**63 - 1), (1, 8, 1, -1), (2, 7, 1, -7)], REQUEST)
    assert gfns(load(tmp_path, rows.tobytes())) == [7, 8, 7]


@pytest.mark.parametrize("file", ["x.oracleGeneral.zst", "x.bin", "x.oracleGeneral.gz"])
def test_compressed_files_are_read(tmp_path, file):
    data = requests(*((t, t % 9, 4096) for t in range(500)))
    if file.endswith(".gz"):
        packed = gzip.compress(data)
    else:  # two frames, one after the other
        packed = b"".join(
            pa.compress(part, "zstd", asbytes=True) for part in (data[:2400], data[2400:])
        )
    assert gfns(load(tmp_path, packed, file=file)) == [t % 9 for t in range(500)]
    with pytest.raises(ForeignFileError, match="cut"):
        load(tmp_path, packed[:-9], file=file)


def test_a_request_that_claims_too_much_is_refused(tmp_path):
    rows = np.array([(1, 5, 2**32 - 1, -1)] * 9, REQUEST)
    with pytest.raises(ForeignFileError, match=r"request 2 .*claims 1,048,576 pages.*`page_size`"):
        load(tmp_path, rows.tobytes())
    assert load(tmp_path, rows.tobytes(), page_size=1 << 30).memory_pages == 4


# Times


def test_the_clock_of_the_file_comes_back(tmp_path):
    data = requests((1_700_000_000, 1, 4096), (1_700_000_007, 2, 4096), (1_700_000_007, 2, 4096))
    trace = load(tmp_path, data)
    assert trace.meta.clock["base_ns"] == 1_700_000_000 * SECOND
    assert trace.duration_ns == 8 * SECOND
    interop.export(trace, "oracle-general", tmp_path / "back")
    found = np.fromfile(tmp_path / "back", REQUEST)
    assert found["time"].tolist() == [1_700_000_000, 1_700_000_007, 1_700_000_007]
    assert found["next"].tolist() == [-1, 2, -1]


def test_a_tick_that_is_too_short_is_refused_with_one_that_is_not(tmp_path):
    trace = pmlkit.open(pmlkit.bundled("hotcold"))
    with pytest.raises(UsageError, match=r"a tick of 1 ns is too short for .* at least 2 ns"):
        interop.export(trace, "oracle-general", tmp_path / "x", window=1)
    assert list(tmp_path.iterdir()) == []
    interop.export(trace, "oracle-general", tmp_path / "x", window=2)
    assert (np.diff(np.fromfile(tmp_path / "x", REQUEST)["time"].astype("i8")) >= 0).all()


def test_many_ticks_are_as_many_rounds_and_gaps(tmp_path):
    trace = load(tmp_path, requests(*((3 * t, t % 50, 1) for t in range(20_000))))
    assert trace.n_rounds == 39_999 and trace.meta.entries == 20_000


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("lcs", b"x" * 30, "byte 0"),
        ("lcs", struct.pack("<Q", lcs.MAGIC) * 2, "no complete header"),
        ("lcs", (struct.pack("<QQ", lcs.MAGIC, 9).ljust(8184) + struct.pack("<Q", lcs.MAGIC)),
         "version 9"),
        ("vscsi", b"x" * 80, "has an unknown version"),
        ("vscsi", b"", "has an unknown version"),
        ("vscsi", np.array([(0, 512, 0, 0, 0, 1, 2**63, 0)], VERSIONS[2]).tobytes(), "2.63 ns"),
        ("vscsi", np.array([(0, 512, 0, 9, 0, 2**62, 1, 0)], VERSIONS[2]).tobytes(), "2.63 bytes"),
        ("oracle-general", b"\x28\xb5\x2f\xfd" + b"nothing of zstd", "cut off or damaged"),
    ],
)  # fmt: skip
def test_damage_is_one_line(tmp_path, name, data, says):
    with pytest.raises(ForeignFileError, match=says):
        load(tmp_path, data, name)


def test_an_option_that_a_format_has_not_is_refused(tmp_path):
    with pytest.raises(UsageError, match="vscsi has no --columns"):
        load(tmp_path, b"", "vscsi", columns="obj=1")
    with pytest.raises(UsageError, match="a page of 4000 bytes"):
        load(tmp_path, requests((1, 1, 1)), page_size=4000)
