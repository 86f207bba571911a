# SPDX-License-Identifier: Apache-2.0
"""What the pages of a stranger's Parquet file say is known before they are unpacked."""

import hashlib
import random
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_trace, peak_kb, reseal
from parquet_bombs import BOMBS, DATA_2, HUGE, ROWS, page, put, struct_of, zstd_of_zeros

from pmlkit import interop, manifest
from pmlkit.errors import PmlkitError, TraceDamaged
from pmlkit.parquet_pages import PageFault, _struct, column_pages
from pmlkit.trace import Trace

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
    began = time.monotonic()
    code, peak, said = peak_kb(*call)
    assert peak < PEAK_KB and time.monotonic() - began < 60
    if name == "runs":  # as many as it has rows are taken
        assert code == 0 and Trace.open(tmp_path / "x.trace").meta.entries == ROWS
        return
    assert code == 1 and str(path) in said[-1] and SAYS.get(name, "page header") in said[-1]
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
        for group in range(metadata.num_row_groups):
            for column in range(2):
                made = column_pages(file, metadata, group, column)
                told = metadata.row_group(group).column(column).total_uncompressed_size
                assert 0.9 * told < sum(made) < told  # that is with the headers
                assert max(made) <= sum(made)


def test_a_header_of_any_bytes_is_read_or_refused():
    rng = random.Random(1)
    good = page(DATA_2, 8 * ROWS, b"", ROWS)
    assert _struct(good, 0, 0)[0][12, 8][5, 1] == ROWS
    assert _struct(struct_of({1: -5, 9: {2: True}}), 0, 0)[0] == {(5, 1): -5, (12, 9): {}}
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            fields, end = _struct(bytes(data), 0, 0)
        except (IndexError, PageFault):  # cut off, or none
            continue
        assert all(-(1 << 31) <= n < 1 << 31 for n in fields.values() if isinstance(n, int))
        assert end > 0


def test_flipped_bytes_of_pages_end_in_one_line(tmp_path):
    path, rng = tmp_path / "x.parquet", random.Random(2)
    table = pa.table({"obj": [f"name {n % 50}" for n in range(500)]})
    pq.write_table(table, path, compression="zstd")
    data = path.read_bytes()
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.randrange(4, 120)] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
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
