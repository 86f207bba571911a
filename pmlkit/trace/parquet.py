# SPDX-License-Identifier: Apache-2.0
"""The Parquet files of a trace: written with a digest, checked when they are read.

The same rows give the same bytes: a file contains no time of day and no random number.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pmlkit.errors import TraceDamaged, UsageError, is_out_of_memory, read_error
from pmlkit.trace.manifest import open_member
from pmlkit.trace.parquet_pages import Group, PageFault, check_pages, read_footer
from pmlkit.trace.schema import DEFAULTS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    import pandas as pd

    from pmlkit.trace.schema import Checksum, Column, Field
    from pmlkit.types import Json, PathLike


DIGEST_BYTES = 32

# Measured on recordings of a Linux guest (boot, xz, sort), in bytes per entry after zstd:
# frames   1.3 to 1.5 as split byte streams, 1.9 to 2.1 delta-packed (bit packing hides from zstd
#          that rounds resemble each other), 1.1 to 1.9 plain
# kinds    0.14 split, 0.24 plain; split takes half the time
# others   0.02 plain: they are long runs; delta packing or a dictionary takes three times as long
# Level 1 takes 11 ns per entry for the frames. Level 2 takes 13 ns and saves 5 %, level 9 takes
# 90 ns and saves 10 %. Encoding in Arrow's batches of 1024 values takes 3 ns longer per entry than
# a row group at once. Pages of version 1 are copied before compression (2 ns), version 2 is not.
ENTRY_ENCODINGS = {
    "use_dictionary": False,
    "column_encoding": dict.fromkeys(("gfn", "kind"), "BYTE_STREAM_SPLIT"),
    "compression_level": 1,
    "write_batch_size": 1 << 20,
    "data_page_version": "2.0",
    "write_statistics": ["round"],
}
_OPTIONS: Json = {
    "compression": "zstd",
    "compression_level": 9,
    # One page per column and row group, so that zstd sees all of it (8 bytes x 512 K rows).
    "data_page_size": 16 << 20,
    # The logical types of the columns suffice to read them.
    "store_schema": False,
}
if "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters:
    _OPTIONS["max_rows_per_page"] = 1 << 20  # later Arrow cuts at 20,000 rows by default

# Increasing columns of the small tables. Delta-packed batches of real logs take a third of the
# bytes of a dictionary, and a quarter of the time.
_RISING = ("round", "batch", "t_start_ns", "t_end_ns", "insn_start", "insn_end", "t_ns", "insn")

# Not ValueError, which our own code also raises for intact files.
READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, KeyError, IndexError)

# Limits for files from elsewhere. A table may unpack to more than LIMIT_TABLE_BYTES only if the
# trace is large on the disk as well (LIMIT_RATIO).
LIMIT_GROUP_ROWS = 1 << 22
LIMIT_GROUP_BYTES = 1 << 27
LIMIT_TABLE_BYTES = 1 << 27
LIMIT_RATIO = 16
LIMIT_TEXT_BYTES = 1 << 12
PART_ROWS = 1 << 16
_LONGEST_GROUP_ROWS = 1 << 20  # limit of the files that we write
THRIFT: Json = {
    "thrift_string_size_limit": 1 << 20,
    "thrift_container_size_limit": 1 << 17,
}


class HashingFile:
    """A file opened for writing that counts and hashes its bytes; `close` syncs it to the disk.

    Parameters
    ----------
    path : path-like
        The file; it must not exist.

    Attributes
    ----------
    bytes : int
        Bytes written so far.
    """

    def __init__(self, path: PathLike) -> None:
        self._file = open(path, "xb")  # noqa: SIM115 (closed by close)
        self._hash = _new_digest()
        self._discarding = False
        self.bytes = 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        if self._discarding:
            return len(data)
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        if not self._discarding:
            self._file.flush()

    def discard(self) -> None:
        """Ignore all further writes, as the file will be removed."""
        self._discarding = True

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            if not self._discarding:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def checksum(self) -> Checksum:
        """Return size and digest of the written bytes."""
        return {"bytes": self.bytes, "blake2b": self._hash.hexdigest()}


class ParquetFile:
    """A Parquet file being written, row group by row group.

    Parameters
    ----------
    path : path-like
        The file; it must not exist.
    options : dict
        Encodings, as `pyarrow.parquet.ParquetWriter` takes them.
    """

    def __init__(self, path: PathLike, schema: pa.Schema, options: Json | None = None) -> None:
        self._sink = HashingFile(path)
        self._writer = pq.ParquetWriter(self._sink, schema, **{**_OPTIONS, **(options or {})})  # type: ignore[arg-type]

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group, or as several if it is long."""
        rows = min(max(len(table), 1), _LONGEST_GROUP_ROWS)
        self._writer.write_table(table, row_group_size=rows)

    def close(self) -> Checksum:
        """Finish the file."""
        self._writer.close()
        self._sink.close()
        return self._sink.checksum()

    def abort(self) -> None:
        """Close the file, in whatever state it is."""
        # Closing writes Arrow's footer, which fails again if the disk is full.
        self._sink.discard()
        self._writer.close()
        self._sink.close()


def write_table(path: PathLike, table: pa.Table, trace_bytes: int = 0) -> Checksum:
    """Write one small table as one file, for `read_table`.

    Parameters
    ----------
    path : path-like
        The file; it must not exist.
    trace_bytes : int
        Size of the trace's files that are written already.
    """
    options = _encodings(table.schema.names)
    if len(table) * row_bytes(table.schema) > _limit_bytes(trace_bytes):
        options |= _one_plain(table.schema)
    file = ParquetFile(path, table.schema, options)
    try:
        file.write(table)
        return file.close()
    except BaseException:
        file.abort()
        raise


def _encodings(names: list[str]) -> Json:
    rising = [name for name in names if name in _RISING]
    return {
        "use_dictionary": [name for name in names if name not in rising],
        "column_encoding": dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
    }


def _one_plain(schema: pa.Schema) -> Json:
    """Return options that store one column uncompressed.

    Millions of rounds of equal length would pack into kilobytes, which `LIMIT_RATIO` refuses.
    """
    plain = next(field.name for field in schema if field.type in (pa.int64(), pa.uint64()))
    packed = [name for name in schema.names if name != plain]
    encodings = _encodings(packed)
    return {
        "use_dictionary": encodings["use_dictionary"],
        "column_encoding": {**encodings["column_encoding"], plain: "PLAIN"},
        "compression": {**dict.fromkeys(packed, _OPTIONS["compression"]), plain: "none"},
        "compression_level": dict.fromkeys(packed, _OPTIONS["compression_level"]),
    }


def _limit_bytes(on_disk: int) -> int:
    """Return the largest size in memory of a table of a trace of `on_disk` bytes."""
    return max(LIMIT_TABLE_BYTES, LIMIT_RATIO * on_disk)


def to_table(name: str, data: pd.DataFrame) -> pa.Table:
    """Convert rows to the schema of a table.

    Parameters
    ----------
    name : str
        The name of the table, a key of `schema.TABLES`.
    data : DataFrame, or argument of its constructor
        Columns that have a default (`schema.DEFAULTS`) may be missing.

    Raises
    ------
    UsageError
        If a column is missing or unknown, or a value does not fit its type.
    """
    import pandas as pd

    schema, frame = TABLES[name], pd.DataFrame(data)
    unknown = [str(column) for column in frame.columns if column not in schema.names]
    if unknown:
        raise UsageError(f"{name} has no column {unknown[0]!r}: its columns are {schema.names}")
    if not len(frame):
        return schema.empty_table()
    columns = [_column(name, frame, field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(name: str, frame: pd.DataFrame, field: Field) -> Any:
    if field.name not in frame:
        if field.name not in DEFAULTS[name]:
            raise UsageError(f"{name} needs a column {field.name!r}: add it")
        return pa.repeat(pa.scalar(DEFAULTS[name][field.name], field.type), len(frame))
    try:
        column: Any = pa.Array.from_pandas(frame[field.name], type=field.type, safe=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name}.{field.name} cannot be {field.type}: {error}") from error
    if column.null_count:
        raise UsageError(f"{name}.{field.name} has {column.null_count} empty cells: fill them")
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def read_table(
    path: Path,
    file: str,
    checksum: Checksum,
    schema: pa.Schema,
    trace_bytes: int = 0,
) -> pa.Table:
    """Check the digest of a small table and read all of it.

    Parameters
    ----------
    path : Path
        The trace.
    file : str
        The file in it.
    trace_bytes : int
        Size of all files of the trace, which limits the memory that the table may take.

    Raises
    ------
    TraceDamaged
        If the file is not the one that was written.
    """
    try:
        with open_member(path, file) as stream:
            _check_stream(path, file, checksum, stream)
            stream.seek(0)
            with parquet_errors(path, file):
                limit = _limit_bytes(max(checksum["bytes"], trace_bytes))
                return _read_columns(path, file, stream, schema, limit)
    except OSError as error:
        raise read_error(path, file, error) from error


def _read_columns(
    path: Path, file: str, stream: BinaryIO, schema: pa.Schema, limit: int
) -> pa.Table:
    parquet, _ = open_parquet(path, file, stream, schema)
    unpacked = parquet.metadata.num_rows * row_bytes(schema)
    if unpacked > limit:
        why = f"would unpack to {unpacked >> 20:,} MiB, and at most {limit >> 20:,} are read"
        raise TraceDamaged(path, file, why)
    _check_texts(path, file, stream, schema)
    columns = []
    for field in schema:
        column = parquet.read(columns=[field.name], use_threads=False).column(0)
        columns.append(_shared_if_constant(column))
    table = pa.Table.from_arrays(columns, schema=schema)
    table.validate(full=True)
    return table


def _shared_if_constant(column: Column) -> Column:
    """Share the memory of a column's chunks if it is constant, as most columns of long tables."""
    if len(column) > PART_ROWS and _is_constant(column):
        return constant(column[0], len(column))
    return column


def _is_constant(column: Column) -> bool:
    if not pa.types.is_integer(column.type):
        return False
    import pyarrow.compute as pc

    ends = pc.min_max(column)
    return bool(ends["min"] == ends["max"])


def constant(value: Any, length: int) -> Column:
    """Make a column of one value whose chunks share their memory."""
    part: Column = pa.repeat(value, min(length, PART_ROWS))
    whole, rest = divmod(length, max(len(part), 1))
    return pa.chunked_array([part] * whole + [part[:rest]], value.type)


def _check_texts(path: PathLike, file: str, stream: BinaryIO, schema: pa.Schema) -> None:
    """Refuse long texts: one may be repeated a million times, so each is read once."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    if not texts:
        return
    stream.seek(0)
    parquet = pq.ParquetFile(stream, pre_buffer=False, read_dictionary=texts, **THRIFT)
    for name in texts:
        column: Any = parquet.read(columns=[name], use_threads=False).column(0)
        for chunk in column.chunks:
            longest: int = max(map(len, chunk.dictionary.view(pa.binary()).to_pylist()), default=0)
            if longest > LIMIT_TEXT_BYTES:
                limit = f"at most {LIMIT_TEXT_BYTES:,} are read"
                raise TraceDamaged(path, file, f"has a {name} of {longest:,} bytes, and {limit}")


def row_bytes(schema: pa.Schema) -> int:
    """Return the memory that a row of a table takes, bytes; strings are not counted."""
    return sum(8 if pa.types.is_string(t) else -(-t.bit_width // 8) for t in schema.types)


def verify(path: Path, file: str, checksum: Checksum) -> None:
    """Hash a file of the trace `path`; raise `TraceDamaged` if its checksum differs."""
    try:
        with open_member(path, file) as stream:
            _check_stream(path, file, checksum, stream)
    except OSError as error:
        raise read_error(path, file, error) from error


def _check_stream(path: PathLike, file: str, checksum: Checksum, stream: BinaryIO) -> None:
    check_size(path, file, checksum, os.fstat(stream.fileno()).st_size)
    digest = hashlib.file_digest(stream, _new_digest)  # type: ignore[arg-type]
    check_size(path, file, checksum, stream.tell())
    if digest.hexdigest() != checksum["blake2b"]:
        raise TraceDamaged(path, file, "has been changed since it was written (its digest differs)")


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def check_size(path: PathLike, file: str, checksum: Checksum, size: int) -> None:
    """Compare a file's size with the one in its checksum."""
    expected = checksum["bytes"]
    if size < expected:
        raise TraceDamaged(path, file, f"is cut off ({size} of {expected} bytes are left)")
    if size > expected:
        raise TraceDamaged(path, file, f"is too long ({size} bytes instead of {expected})")


def open_parquet(
    path: PathLike, file: str, source: BinaryIO, schema: pa.Schema
) -> tuple[pq.ParquetFile, list[Group]]:
    """Open a Parquet file after checking its columns and the memory that it would take.

    Always read it with ``use_threads=False``: Arrow's thread pools can abort or hang the
    interpreter at its exit (apache/arrow issues 34314, 50482).

    Parameters
    ----------
    path : path-like
        The trace.
    file : str
        The file in it.
    source : binary file
        Opened by us, as Arrow refuses a path that is not UTF-8.

    Returns
    -------
    pyarrow.parquet.ParquetFile, list of Group
        The file, and the row groups of its footer.

    Raises
    ------
    TraceDamaged
        If the columns differ, or a row group would unpack to more than `LIMIT_GROUP_ROWS` rows or
        `LIMIT_GROUP_BYTES`, by its footer or by its page headers. Nothing is unpacked before this
        check.
    """
    try:
        groups = read_footer(source)
        parquet = pq.ParquetFile(source, pre_buffer=False, **THRIFT)
        if not parquet.schema_arrow.equals(schema):
            raise TraceDamaged(path, file, "has other columns than a trace of this version")
        for number, group in enumerate(groups):
            if len(group.chunks) != len(schema):
                raise PageFault(f"has {len(group.chunks)} columns in row group {number}")
            _check_group(path, file, number, group)
            check_pages(source, number, group.chunks, LIMIT_GROUP_BYTES, at_once=True)
    except PageFault as fault:
        raise TraceDamaged(path, file, str(fault)) from fault
    return parquet, groups


def _check_group(path: PathLike, file: str, number: int, group: Group) -> None:
    size = f"{group.rows:,} rows ({group.unpacked:,} bytes) in row group {number}"
    for value, limit in ((group.rows, LIMIT_GROUP_ROWS), (group.unpacked, LIMIT_GROUP_BYTES)):
        if not 0 <= value <= limit:
            raise TraceDamaged(path, file, f"has {size}, and at most {limit:,} are read")


@contextlib.contextmanager
def parquet_errors(path: PathLike, file: str) -> Iterator[None]:
    """Context that turns exceptions of Arrow about a file into `TraceDamaged`."""
    try:
        yield
    except READ_ERRORS as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise read_error(path, file, error) from error
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise TraceDamaged(path, file, f"cannot be read as Parquet ({line[:120]})") from error
