# SPDX-License-Identifier: Apache-2.0
"""Parquet files whose pages say other things than their footers: bombs of a few hundred KiB."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 100_000
DATA, DICTIONARY, DATA_2 = 0, 2, 3
PLAIN, RLE, DELTA, DELTA_TEXTS = 0, 3, 5, 6
HUGE = (1 << 31) - 1


def varint(word):
    said = b""
    while word > 127:
        said, word = said + bytes([word & 127 | 128]), word >> 7
    return said + bytes([word])


def struct_of(fields):
    """Return a struct in Thrift's compact form: numbers, truths and dicts by their fields."""
    said, last = b"", 0
    for number, value in sorted(fields.items()):
        kind = 12 if isinstance(value, dict) else 2 - value if isinstance(value, bool) else 5
        said += bytes([(number - last) << 4 | kind])
        if kind == 12:
            said += struct_of(value)
        elif kind == 5:
            said += varint((value << 1 ^ value >> 31) & 0xFFFFFFFF)
        last = number
    return said + b"\0"


def page(kind, unpacked, data, values, encoding=PLAIN):
    """Return a page: its header says `unpacked` and `values`, whatever its data are."""
    fields = {1: kind, 2: unpacked, 3: len(data)}
    if kind == DICTIONARY:
        fields[7] = {1: values, 2: encoding}
    elif kind == DATA:
        fields[5] = {1: values, 2: encoding, 3: RLE, 4: RLE}
    else:
        fields[8] = {1: values, 2: 0, 3: values, 4: encoding, 5: 0, 6: 0, 7: True}
    return struct_of(fields) + data


def zstd_of_zeros(size):
    """Return a frame of Zstandard that unpacks to so many zeros: four bytes for 128 KiB."""
    blocks, rest = divmod(size, 1 << 17)
    sizes = [1 << 17] * blocks + [rest] * bool(rest)
    said = struct.pack("<IBQ", 0xFD2FB528, 0xE0, size)
    for number, length in enumerate(sizes):
        last = number == len(sizes) - 1
        said += struct.pack("<I", last | 1 << 1 | length << 3)[:3] + b"\0"
    return said


def bomb(path, pages, compression="none", dtype=np.int64, name="obj", texts=False, **options):
    """Write a file of one column, and put these pages where its own were."""
    values = np.random.default_rng(1).integers(0, 1 << 40, ROWS).astype(dtype)
    column = pa.array([f"{value:020}" for value in values]) if texts else pa.array(values)
    options = {"use_dictionary": False, "data_page_size": 1 << 24, **options}
    schema = pa.schema([pa.field(name, column.type, nullable=False)])
    table = pa.table([column], schema=schema)
    pq.write_table(table, path, compression=compression, **options)
    put(path, pages)


def put(path, pages, column=0):
    """Put pages where those of a column were."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    at = chunk.data_page_offset
    if chunk.has_dictionary_page:
        at = chunk.dictionary_page_offset
    crafted = b"".join(pages)
    assert len(crafted) <= chunk.total_compressed_size
    data = bytearray(path.read_bytes())
    data[at : at + len(crafted)] = crafted
    path.write_bytes(data)


def delta_texts(path, pages):
    encoding = {"column_encoding": {"obj": "DELTA_LENGTH_BYTE_ARRAY"}}
    bomb(path, pages, texts=True, **encoding)


DELTA_HUGE = varint(128) + varint(4) + varint(HUGE) + varint(0)  # a run of 2^31 values
DELTA_BLOCKS = varint(1 << 31) + varint(1 << 24) + varint(HUGE) + varint(0)
RLE_HUGE = b"\x20" + varint((1 << 31) - 1 << 1) + bytes(4)
# What each says, and how to write it.
BOMBS = {
    "zstd": lambda path: bomb(path, [page(DATA, HUGE, zstd_of_zeros(HUGE), ROWS)], "zstd"),
    "zstd, version 2": lambda path: bomb(
        path, [page(DATA_2, HUGE, zstd_of_zeros(HUGE), ROWS)], "zstd"
    ),
    "zstd that claims more": lambda path: bomb(
        path, [page(DATA, 8 * ROWS, zstd_of_zeros(HUGE), ROWS)], "zstd"
    ),
    "snappy that claims more": lambda path: bomb(
        path, [page(DATA, HUGE, varint(HUGE) + b"\0a", ROWS)], "snappy"
    ),
    "uncompressed": lambda path: bomb(path, [page(DATA, HUGE, bytes(1000), ROWS)]),
    "values": lambda path: bomb(path, [page(DATA, 8 * ROWS, bytes(1000), HUGE)]),
    "dictionary": lambda path: bomb(
        path, [page(DICTIONARY, HUGE, zstd_of_zeros(HUGE), ROWS)], "zstd", use_dictionary=True
    ),
    "values of a dictionary": lambda path: bomb(
        path, [page(DICTIONARY, 1000, bytes(1000), HUGE)], use_dictionary=True
    ),
    "texts of a dictionary": lambda path: bomb(
        path, [page(DICTIONARY, 1000, bytes(1000), HUGE)], texts=True, use_dictionary=True
    ),
    "pages without values": lambda path: bomb(path, [page(DATA, 0, b"", 0) * 70_000], texts=True),
    "negative": lambda path: bomb(path, [page(DATA, -1, bytes(1000), ROWS)]),
    "no header": lambda path: bomb(path, [b"\x9d" * 100]),
    "delta": lambda path: bomb(path, [page(DATA, 100, DELTA_HUGE.ljust(100, b"\0"), ROWS, DELTA)]),
    "blocks of delta": lambda path: bomb(
        path, [page(DATA, 100, DELTA_BLOCKS.ljust(100, b"\0"), ROWS, DELTA)]
    ),
    "lengths of texts": lambda path: delta_texts(
        path, [page(DATA, 100, DELTA_HUGE.ljust(100, b"\0"), ROWS, DELTA_TEXTS)]
    ),
    "runs": lambda path: bomb(
        path,
        [page(DICTIONARY, 8, bytes(8), 1), page(DATA, len(RLE_HUGE), RLE_HUGE, ROWS, 8)],
        use_dictionary=True,
    ),
}
