# SPDX-License-Identifier: Apache-2.0
"""What the pages of a stranger's Parquet file say is known before they are unpacked."""

import hashlib
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_trace, peak_kb, reseal
from parquet_bombs import (
    BOMBS,
    DATA_2,
    HUGE,
    ROWS,
    page,
    put,
    struct_of,
    varint,
    zstd_of_zeros,
)
from rewriting import rewrite

from pmlkit import interop
from pmlkit.errors import PmlkitError, TraceDamaged
from pmlkit.interop import formats
from pmlkit.trace import manifest
from pmlkit.trace.parquet_pages import PageFault, _Struct, chunk_pages, read_footer
from pmlkit.trace.reader import Trace

PART = "entries/part-00000.parquet"
PEAK_KB = 512 << 10
SAYS = {
    **dict.fromkeys(("zstd", "zstd, version 2", "snappy that claims more", "uncompressed"),
                    "an uncompressed_page_size of 2,147,483,647 bytes in row group 0"),
    "values": "in its column 'obj' in row group 0 a page whose num_values is 2,147,483,647",
    "pages without values": "more than 65,536 pages",
    **dict.fromkeys(("values of a dictionary", "texts of a dictionary"),
                    "a dictionary whose num_values is 2,147,483,647, and at most 1,000 fit"),
    "negative": "a page without an uncompressed_page_size",
    "zstd that claims more": "Destination buffer is too small",
    **dict.fromkeys(("delta", "blocks of delta", "lengths of texts"), "Decode bit-width EOF"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_page_that_claims_too_much(tmp_path, name):
    path = tmp_path / "x.parquet"
    BOMBS[name](path)
    assert path.stat().st_size < 4 << 20
    call = ["import", "parquet", str(path), "-o", str(tmp_path / "x.trace"), "--columns", "obj=obj"]
    code, peak, lines = peak_kb(*call)
    assert peak < PEAK_KB
    if name == "runs":  # as many as it has rows are taken
        assert code == 0 and Trace.open(tmp_path / "x.trace").meta.entries == ROWS
        return
    assert code == 1 and str(path) in lines[-1] and SAYS.get(name, "page header") in lines[-1]
    assert not (tmp_path / "x.trace").exists()


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ([page(DATA_2, HUGE, zstd_of_zeros(HUGE), ROWS)],
         "has pages with an uncompressed_page_size of .* bytes in row group 0, and at most 134"),
        ([page(DATA_2, 100, b"", ROWS + 1)],
         "column 'gfn' in row group 0 a page whose num_values is 100,001, and at most 100,000 fit"),
    ],
)  # fmt: skip
def test_a_page_of_a_trace_that_claims_too_much(tmp_path, pages, words):
    path = make_trace(tmp_path / "x.trace", rounds=1, pml=False)
    gfn = np.random.default_rng(1).integers(0, 1 << 40, ROWS).astype(np.uint64)
    table = Trace.open(path).entries()
    table = table.take(pa.array(np.zeros(ROWS, np.int64)))
    table = table.set_column(3, table.schema.field("gfn"), pa.array(gfn))
    pq.write_table(table, path / PART, compression="zstd", use_dictionary=False)
    put(path / PART, pages, column=3)
    data = (path / PART).read_bytes()
    files = manifest.load(path)["files"]
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    files[PART] |= {"bytes": len(data), "blake2b": digest, "rows": ROWS}
    reseal(path, files=files, entries=ROWS)
    with pytest.raises(TraceDamaged, match=words) as error:
        Trace.open(path).entries()
    assert error.value.file == PART


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_pages_of_arrow_are_what_its_footer_says(tmp_path, version, compression):
    numbers = np.arange(100_000)
    table = pa.table({"a": numbers, "b": (numbers % 7).astype(str)})
    how = {"compression": compression, "data_page_version": version, "data_page_size": 10_000}
    pq.write_table(table, tmp_path / "x", row_group_size=30_000, **how)
    metadata = pq.ParquetFile(tmp_path / "x").metadata
    with open(tmp_path / "x", "rb") as file:
        groups = read_footer(file)
        assert len(groups) == metadata.num_row_groups == 4
        for number, group in enumerate(groups):
            whole = metadata.row_group(number)
            assert (group.rows, group.unpacked) == (whole.num_rows, whole.total_byte_size)
            for column, chunk in enumerate(group.chunks):
                its = whole.column(column)
                assert (*chunk[:4], max(chunk.dictionary_at, 0)) == (
                    (its.path_in_schema,), its.num_values, its.total_compressed_size,
                    its.data_page_offset, its.dictionary_page_offset or 0,
                )  # fmt: skip
                assert chunk.lowest == _bytes(its.statistics.min)
                assert chunk.highest == _bytes(its.statistics.max)
                made = list(chunk_pages(file, chunk))
                total = its.total_uncompressed_size
                assert 0.9 * total < sum(made) < total  # that is with the headers


def _bytes(value):
    return value.encode() if isinstance(value, str) else value.to_bytes(8, "little", signed=True)


def test_a_header_of_any_bytes_is_read_or_refused():
    rng = random.Random(1)
    good = page(DATA_2, 8 * ROWS, b"", ROWS)
    assert _Struct(good).read(0, 0)[0][12, 8][5, 1] == ROWS
    assert _Struct(struct_of({1: -5, 9: {2: True}})).read(0, 0)[0] == {(5, 1): -5, (12, 9): {}}
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            fields, end = _Struct(bytes(data)).read(0, 0)
        except (IndexError, PageFault):  # cut off, or none
            continue
        assert all(-(1 << 63) <= n < 1 << 63 for n in fields.values() if isinstance(n, int))
        assert end > 0


def test_flipped_bytes_of_pages_end_in_one_line(tmp_path):
    path, rng = tmp_path / "x.parquet", random.Random(2)
    table = pa.table({"obj": [f"name {n % 50}" for n in range(500)]})
    pq.write_table(table, path, compression="zstd")
    data = path.read_bytes()
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.randrange(4, 120)] ^= 1 << rng.randrange(8)
        rewrite(path, flipped)
        try:
            interop.load("parquet", path, tmp_path / "x.trace", overwrite=True, columns="obj=obj")
        except PmlkitError as error:
            assert str(error).isprintable()


def test_one_long_name_of_many_rows_is_held_once(tmp_path):
    path = tmp_path / "x.parquet"
    schema = pa.schema([("obj", pa.string()), ("op", pa.string())])
    rows = 200_000
    names = pa.array(["x" * 100_000, "y"])
    objects = pa.DictionaryArray.from_arrays(np.arange(rows) % 2, names)
    ops = pa.DictionaryArray.from_arrays(np.arange(rows) % 2, pa.array(["get", "set"]))
    table = pa.table([objects, ops], names=schema.names)
    pq.write_table(table, path, store_schema=False)
    call = ["import", "parquet", str(path), "-o", str(tmp_path / "x.trace")]
    code, peak, _ = peak_kb(*call, "--columns", "obj=obj,op=op")
    assert code == 0 and peak < PEAK_KB
    trace = Trace.open(tmp_path / "x.trace")
    assert trace.meta.entries == rows
    assert trace.to_pandas(["gfn", "kind"])[:4].values.tolist() == [[0, 1], [1, 2]] * 2


def test_flipped_bits_of_a_footer_end_in_one_line(tmp_path, monkeypatch):
    """Some contradict what others say: Arrow ends the process where Python asks for a column."""
    write, errors, written = formats._write, set(), set()

    def once(made, name, path, *more):  # the same rows make the same trace: half of all cases
        chunks = list(formats._guarded(made.rounds, path, name))
        if str(chunks) not in written:
            written.add(str(chunks))
            write(replace(made, rounds=iter(chunks)), name, path, *more)

    monkeypatch.setattr(formats, "_write", once)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"obj": [1, 2, 3]}), path, use_dictionary=False, store_schema=False)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for bit in range(8 * footer, 8 * (len(data) - 4)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        rewrite(path, flipped)
        try:
            interop.load("parquet", path, tmp_path / "x.trace", overwrite=True, columns="obj=obj")
        except PmlkitError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
            errors.add(str(error))
    assert any("histogram size mismatch" in each for each in errors)
    assert written


CHUNK = b"\x26\0\0"  # a column whose place is 0, and no more
FOOTERS = {
    "lists of more than 1,048,576 elements": b"\x29\xfc\x28"  # 40 row groups of 100,000 columns
    + 40 * (b"\x19\xfc" + varint(100_000) + 100_000 * CHUNK + b"\0"),
    "more than 65,536 columns": b"\x29\x1c\x19\xfc" + varint(65_537) + 65_537 * CHUNK + b"\0",
    "a column in row group 0 without metadata in the footer": b"\x29\x1c\x19\x1c" + CHUNK + b"\0",
    "structs that are nested more than 6 deep": b"\x2c" + 9 * b"\x1c" + 9 * b"\0",
    "a list of other types in field 4": b"\x29\x18\0",
}


@pytest.mark.parametrize(("words", "groups"), FOOTERS.items())
def test_a_footer_that_claims_too_much(tmp_path, words, groups):
    footer = b"\x15\x04\x19\x0c" + groups + b"\0"  # a version, no schema
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    call = ["import", "parquet", str(path), "-o", str(tmp_path / "x.trace"), "--columns", "obj=obj"]
    code, peak, lines = peak_kb(*call)
    assert code == 1 and str(path) in lines[-1] and words in lines[-1] and peak < PEAK_KB


def test_a_footer_that_is_too_long(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(1 << 25) + (1 << 25).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(PmlkitError, match="has a footer of 33,554,432 bytes, and at most 16,777"):
        interop.load("parquet", path, tmp_path / "x.trace", columns="obj=obj")
