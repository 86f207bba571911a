# SPDX-License-Identifier: Apache-2.0
"""The table of formats, and the import and export of traces through it.

>>> from pmlkit import interop                                            # doctest: +SKIP
>>> interop.export(trace, "oracle-general", "x.oracleGeneral")            # doctest: +SKIP
>>> interop.load("damo", "damon.data", "x.trace")                         # doctest: +SKIP

A new format is a module in this folder and an entry in `FORMATS`. The module has
``load(path, **options)``, which returns `Imported`, or ``export(trace, path, **options)``, which
returns the number of entries written, or both. Information that a format cannot store is lost, and
its line in `FORMATS` describes the loss. The notes of an imported trace describe its origin, and
the facts that are unknown.
"""

from __future__ import annotations

import inspect
import shlex
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# pyarrow imports pandas when it first needs it, and drops an exception that comes meanwhile: the
# signal that raised it was lost, and what was left half imported could block all later imports.
import pandas as pd
import pyarrow as pa

from pmlkit import progress
from pmlkit.costs import INSTRUCTIONS
from pmlkit.errors import PmlkitError, TraceDamaged, UnknownName, UsageError
from pmlkit.files import open_regular, portable, refuse_inside_trace, whole
from pmlkit.interop.reading import HEAD, UTF_16, ForeignFileError, foreign, wrapping_of
from pmlkit.interop.rounds import Imported, OutOfOrder, Rows, columns, from_zero, regular_ns, tables
from pmlkit.selection import rounds_of
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import MEMORY_GUESSED, PAGE_SIZE, TraceMeta
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from pmlkit.interop.rounds import Chunk
    from pmlkit.types import Array, Gfns, Ints, Json, PathLike


__all__ = ["FORMATS", "Format", "export", "load", "selected"]


@dataclass(frozen=True)
class Format:
    """A format: its module, whether it has `load` and `export`, and one line about it.

    `unit` is the unit that an export counts. `unwraps` names the compressions, and UTF-16, that the
    module reads itself, or whose first bytes may be those of a file in this format.
    """

    module: str
    ways: tuple[str, ...]
    about: str
    unit: str = "entries"
    unwraps: tuple[str, ...] = ()


_HEADLESS = ("zstd", "gzip", "zip", "lz4", UTF_16)  # a first time may be one of their magics
FORMATS = {
    "csv": Format(
        "csv",
        ("export", "load"),
        "one row per entry: t_start_ns, t_end_ns, vcpu, gfn, kind; imports others with --columns",
        unwraps=("zstd", "gzip"),
    ),
    "oracle-general": Format(
        "oracle",
        ("export", "load"),
        "libCacheSim's oracleGeneral: one request per use; kinds and vCPUs are lost",
        unwraps=_HEADLESS,
    ),
    "lcs": Format(
        "lcs",
        ("load",),
        "libCacheSim's own binary format, versions 1 to 8",
        unwraps=("zstd", "gzip"),
    ),
    "vscsi": Format(
        "vscsi",
        ("load",),
        "vscsiStats of VMware: the requests of a virtual disk",
        unwraps=_HEADLESS,
    ),
    "parquet": Format(
        "columns", ("load",), "any Parquet file: one row per request, with named columns"
    ),
    "damo": Format(
        "damo",
        ("export", "load"),
        "damo's records (json, perf script): the number of rounds of a window in which "
        "a page was used",
        unit="snapshots",
        unwraps=("gzip",),
    ),
    "kvm-dirty-ring": Format(
        "kvm",
        ("load",),
        "KVM's dirty rings: struct kvm_dirty_gfn, or tracepoints (text, trace-cmd's trace.dat)",
    ),
    "query-dirty-rate": Format(
        "rates",
        ("load",),
        "QEMU's dirty rates (QMP, HMP, virsh): no pages; becomes a table (.csv, .parquet)",
        unwraps=(UTF_16,),
    ),
    "lackey": Format(
        "lackey",
        ("load",),
        "valgrind --tool=lackey --trace-mem=yes: a program's pages, its instructions the clock",
    ),
    "pinatrace": Format(
        "pinatrace",
        ("load",),
        "pinatrace of Intel's Pin: a program's reads and writes, each a tick of the clock",
    ),
}


def export(
    trace: Trace,
    name: str,
    output: PathLike,
    overwrite: bool = False,
    start_ns: int | None = None,
    end_ns: int | None = None,
    **options: object,
) -> int:
    """Write a trace in another program's format.

    Parameters
    ----------
    trace : Trace or path-like
    name : str
        One of `FORMATS`.
    overwrite : bool
        Replace an existing file.
    start_ns, end_ns : int, optional
        Only rounds that share time with this range, ns.
    **options
        `kinds` selects entries. `window` (ns) is a tick of oracleGeneral's clock (1 s, as in
        libCacheSim), or the length of damo's snapshots (a round).

    Returns
    -------
    int
        Entries (or snapshots) written.

    Raises
    ------
    UsageError
        If the format does not exist, or cannot be written, or no round is in the range.
    OutputError, OutputExists
    """
    write = _function(name, "export")
    trace = trace if isinstance(trace, Trace) else Trace.open(trace)
    rounds_of(trace, start_ns, end_ns)  # refuses a part without rounds
    with whole(output, overwrite) as partial:
        return write(trace, partial, start_ns=start_ns, end_ns=end_ns, **options)


def load(
    name: str,
    path: PathLike,
    output: PathLike,
    overwrite: bool = False,
    memory_bytes: int | None = None,
    **options: object,
) -> Trace | pd.DataFrame:
    """Convert another program's file to a trace (query-dirty-rate: to a table).

    Parameters
    ----------
    name : str
        One of `FORMATS`.
    output : path-like
        ``NAME.trace``; for query-dirty-rate, ``.csv`` or ``.parquet``.
    overwrite : bool
        Replace an existing trace.
    memory_bytes : int, optional
        Memory of the machine; default: up to the highest page in the file.
    options
        Options of some formats; None has no effect. `window` (ns): a tick of the clock of
        oracle-general and lcs (1 s), an interval of vscsi (1 ms), csv and parquet (the time unit).
        `page_size` (bytes, 4096; 0: an object is a page): requests are divided into such pages.
        `unit` (bytes): the unit of an object's number. `columns`, `time_unit`: of csv and parquet
        (`pmlkit.interop.columns`); `separator`, `header` (bool): of csv. `instructions`: lackey's
        instructions that form a round (1,000,000). `window` of kvm-dirty-ring: a round (default:
        until the rings are reset). `kernel`: the host's Linux, for the order within a drain.

    Returns
    -------
    Trace, or pandas.DataFrame for query-dirty-rate

    Raises
    ------
    ForeignFileError
        If the file is of another format, or damaged; the message has the position.
    UsageError, OutputError, OutputExists
    """
    read = _function(name, "load")
    options = _known_options(name, read, options)
    _refuse_unfit(path, FORMATS[name])
    with foreign(path, name):
        imported = read(Path(path), **options)
    if isinstance(imported, Imported):
        return _write(imported, name, path, output, overwrite, memory_bytes)
    return _write_table(imported, name, output, overwrite)


def _known_options(name: str, read: Callable[..., object], options: Json) -> Json:
    """Return the options that are not None; UsageError for one that the format does not have."""
    given = {option: value for option, value in options.items() if value is not None}
    known = inspect.signature(read).parameters
    for option in given:
        if option not in known:
            flag = option.replace("_", "-")
            raise UsageError(f"{name} has no --{flag}: `pmlkit import --help` lists the options")
    return given


def _refuse_unfit(path: PathLike, format: Format) -> None:
    """Refuse what a format's module cannot read: no regular file, or a file in another wrapping."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
    except FileNotFoundError as error:
        raise ForeignFileError(path, "", "does not exist", "check the path") from error
    except OSError as error:
        why = f"cannot be read ({error.strerror or error})"
        raise ForeignFileError(path, "", why, "check its permissions") from error
    wrapping = wrapping_of(head)
    if wrapping == UTF_16 not in format.unwraps:
        raise ForeignFileError(path, "", "is text in UTF-16", "save it as UTF-8")
    if wrapping and wrapping not in format.unwraps:
        raise ForeignFileError(path, "", f"is compressed with {wrapping}", "unpack it")


def _function(name: str, way: str) -> Callable[..., Any]:
    if name not in FORMATS:
        raise UnknownName("format", name, [one for one in FORMATS if way in FORMATS[one].ways])
    if way not in FORMATS[name].ways:
        raise UsageError(f"{name} can be imported, but not exported")
    return getattr(import_module(f"pmlkit.interop.{FORMATS[name].module}"), way)


def _write(
    imported: Imported,
    name: str,
    path: PathLike,
    output: PathLike,
    overwrite: bool,
    memory_bytes: int | None,
) -> Trace:
    meta = TraceMeta(
        kind=imported.kind,
        source=f"import:{name}",
        domain={"name": Path(path).name, "memory_bytes": memory_bytes or PAGE_SIZE},
        clock={
            "kind": imported.clock,
            "ns_per_insn": 1.0 if imported.clock == INSTRUCTIONS else None,
        },
        provenance={"command": f"pmlkit import {name} {shlex.quote(portable(str(path)))}"},
    )
    refuse_inside_trace(output)
    with TraceWriter(output, meta, overwrite) as writer, progress.task("rows") as task:
        rows = Rows(writer, imported)
        for chunk in _guarded(imported.rounds, path, name):
            _refuse_beyond(path, rows.rows, chunk[3], imported.page_size)
            try:
                rows.add(*chunk)
            except OutOfOrder as error:
                why = "goes back in time, or overlaps the row before it"
                raise ForeignFileError(path, f"row {error.row + 1}", why) from error
            task.begin(f"{rows.rows:,}")
        if not rows.rows:
            raise ForeignFileError(path, "", "holds no entry")
        rows.close()
        with foreign(path, name):
            imported = imported.finished()
        spans, imported = from_zero(rows.spans(), imported)
        writer.set_tables_of(tables(rows, spans, imported))
        writer.replace_meta(**_description(imported, name, meta, rows, spans, memory_bytes))
    del rows, spans, writer
    pa.default_memory_pool().release_unused()  # the audit may need as much again
    return _audited(output)


def _refuse_beyond(path: PathLike, before: int, gfn: Gfns, page_size: int) -> None:
    """Refuse a page beyond 64-bit addresses; `before` rows came before those of `gfn`."""
    beyond = gfn >= np.uint64((1 << 64) // page_size)
    if beyond.any():
        at = int(beyond.argmax())
        why = f"names page {int(gfn[at]):,}, which is beyond 2^64 bytes"
        raise ForeignFileError(path, f"row {before + at + 1}", why)


def _guarded(chunks: Iterable[Chunk], path: PathLike, name: str) -> Iterator[Chunk]:
    """Yield the chunks of an importer in the types of a trace; errors name the file."""
    with foreign(path, name):
        chunks = iter(chunks)
    while True:
        with foreign(path, name):
            chunk = next(chunks, None)
            if chunk is None:
                return
            chunk = columns(*chunk)
        yield chunk


def _description(
    imported: Imported,
    name: str,
    meta: TraceMeta,
    rows: Rows,
    spans: Ints,
    memory_bytes: int | None,
) -> Json:
    """Return the metadata that is known only after the file's last row."""
    used = (rows.highest + 1) * imported.page_size
    notes = [f"imported from {name}", *imported.notes, rows.account()]
    notes += [f"{count:,} {what}" for what, count in imported.counts.items() if count]
    if rows.reordered:
        notes.append("executed pages come at the end of their round, sorted by number")
    return {
        "domain": meta.domain
        | {"memory_bytes": memory_bytes or used, "page_size": imported.page_size}
        | {"vcpus": rows.highest_vcpu + 1, "address": imported.address},
        "clock": meta.clock | {"base_ns": imported.base_ns},
        "period": meta.period | {"ns": imported.round_ns or regular_ns(spans)},
        "notes": notes,
        "options": meta.options | ({} if memory_bytes else {MEMORY_GUESSED: True}),
        "complete": imported.complete,
        "losses": imported.losses,
    }


def _audited(output: PathLike) -> Trace:
    """Open and check the written trace; one that fails is a defect of pmlkit, and is removed."""
    trace = Trace.open(output)
    try:
        trace.check()
    except TraceDamaged as error:
        shutil.rmtree(output, ignore_errors=True)
        what = f"the resulting trace contradicts the format: {error.file} {error.why}"
        raise PmlkitError(
            what, "this is a defect in pmlkit: please report it, with the file"
        ) from error
    return trace


def _write_table(table: pd.DataFrame, name: str, output: PathLike, overwrite: bool) -> pd.DataFrame:
    suffix = Path(output).suffix
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"{name} becomes a table: name it NAME.csv or NAME.parquet")
    # By a handle: a name need not be UTF-8.
    with whole(output, overwrite) as partial, open(partial, "wb") as file:
        if suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)
    return table


def selected(
    trace: Trace,
    columns: Sequence[str],
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> Iterator[dict[str, Array]]:
    """Yield a trace's entries as dicts of arrays by column, a row group at a time."""
    for batch in trace.iter_entries(columns, start_ns, end_ns, kinds):
        if batch.num_rows:
            yield {name: batch[name].to_numpy(zero_copy_only=False) for name in columns}
