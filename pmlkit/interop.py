# SPDX-License-Identifier: Apache-2.0
"""Interchange: traces to and from the files of other programs.

>>> from pmlkit import interop                                            # doctest: +SKIP
>>> interop.export(trace, "oracle-general", "x.oracleGeneral")            # doctest: +SKIP
>>> interop.load("damo", "damon.data", "x.trace")                         # doctest: +SKIP

What a format cannot hold is lost, and its line in `FORMATS` says what. An imported trace says in
its notes what it was, and what is not known of it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import OutputExists, PmlkitError, UnknownName, UsageError, output_error
from pmlkit.kinds import Kind
from pmlkit.schema import PAGE_SIZE, TraceMeta
from pmlkit.trace import Trace
from pmlkit.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from pmlkit.types import Array, PathLike


__all__ = ["FORMATS", "ForeignFileError", "Format", "Imported", "export", "load"]


class ForeignFileError(PmlkitError):
    """A file is not of the format named. Attributes: `path`, `where`, `why`."""

    def __init__(
        self,
        path: PathLike,
        where: str,
        why: str,
        hint: str = "check the format's name, and the file",
    ) -> None:
        self.path, self.where, self.why = os.fspath(path), where, why
        place = f"{where} of {self.path}" if where else self.path
        super().__init__(f"{place} {why}", hint)


@dataclass(frozen=True)
class Format:
    """A format: the module that knows it, and what it is. `ways` holds export, load, or both."""

    module: str
    ways: tuple[Any, ...]
    about: str


FORMATS = {
    "csv": Format(
        "interop_csv",
        ("export", "load"),
        "a row per entry: t_start_ns, t_end_ns, vcpu, gfn, kind; rounds without entries are lost",
    ),
    "oracle-general": Format(
        "interop_oracle",
        ("export", "load"),
        "libCacheSim's oracleGeneral: pages by time; kinds and vCPUs are lost",
    ),
    "damo": Format(
        "interop_damo",
        ("export", "load"),
        "damo's json records: in how many rounds of a window a page was used; no order, no kinds",
    ),
    "kvm-dirty-ring": Format(
        "interop_kvm",
        ("load",),
        "KVM's dirty rings: struct kvm_dirty_gfn (binary), or kvm_dirty_ring_push of ftrace (text)",
    ),
    "query-dirty-rate": Format(
        "interop_kvm",
        ("load",),
        "answers of QEMU's query-dirty-rate: a rate, no pages; becomes a table (.csv, .parquet)",
    ),
    "lackey": Format(
        "interop_lackey",
        ("load",),
        "valgrind --tool=lackey --trace-mem=yes: a program's pages, its instructions the clock",
    ),
}


@dataclass(frozen=True)
class Imported:
    """What a format's module makes of a file.

    Attributes
    ----------
    rounds : iterable of (int, int, int, ndarray, ndarray)
        Start and end (ns), vCPU, frames and kinds in order of use; several in a row may have the
        same start and end, and are one round then.
    kind : {"access", "pml"}
    notes : list of str
        What is not known.
    """

    rounds: object
    kind: str = "access"
    notes: tuple[Any, ...] = ()
    clock: str = "host"
    round_ns: int | None = None


def export(
    trace: Trace, name: str, output: PathLike, overwrite: bool = False, **options: Any
) -> int:
    """Write a trace in another program's format.

    Parameters
    ----------
    trace : Trace or path-like
    name : str
        Of `FORMATS`.
    output : path-like
        The file to write.
    overwrite : bool
        Replace a file that is there.
    options : start_ns, end_ns, kinds, window
        Which entries; `window` (ns) is a tick of oracleGeneral's clock (1 s, as libCacheSim
        takes it), or the length of damo's snapshots (a round).

    Returns
    -------
    int
        Entries (or snapshots) written.

    Raises
    ------
    UsageError
        If there is no such format, or it cannot be written.
    OutputError, OutputExists
    """
    write = _function(name, "export")
    trace = trace if isinstance(trace, Trace) else Trace.open(trace)
    with _whole(output, overwrite) as partial:
        return write(trace, partial, **options)


def load(
    name: str,
    path: PathLike,
    output: PathLike,
    overwrite: bool = False,
    memory_bytes: int | None = None,
    **options: Any,
) -> Any:
    """Make a trace of another program's file (of query-dirty-rate a table).

    Parameters
    ----------
    name : str
        Of `FORMATS`.
    path : path-like
        The file.
    output : path-like
        ``NAME.trace``; of query-dirty-rate ``.csv`` or ``.parquet``.
    overwrite : bool
        Replace a trace that is there.
    memory_bytes : int, optional
        Of the machine; by default up to the highest page that is in the file.
    options : window, instructions
        `window` (ns): a tick of oracleGeneral's clock (1 s); `instructions`: of lackey's, that are
        a round (1,000,000).

    Returns
    -------
    Trace, or pandas.DataFrame of query-dirty-rate

    Raises
    ------
    ForeignFileError
        If the file is of another format, or damaged: where.
    UsageError, OutputError, OutputExists
    """
    read = _function(name, "load")
    if not Path(path).is_file():
        raise ForeignFileError(
            path, "", "is not there" if not Path(path).exists() else "is no file"
        )
    if name == "query-dirty-rate":
        return _write_table(read(Path(path), name, **options), output, overwrite)
    made = read(Path(path), name, **options)
    return _write(made, name, path, output, overwrite, memory_bytes)


def _function(name: str, way: str) -> Callable[..., Any]:
    if name not in FORMATS:
        raise UnknownName("format", name, FORMATS)
    if way not in FORMATS[name].ways:
        raise UsageError(f"{name} can only be imported: nothing reads it back")
    return getattr(import_module(f"pmlkit.{FORMATS[name].module}"), way)


def _write(
    made: Imported,
    name: str,
    path: PathLike,
    output: PathLike,
    overwrite: bool,
    memory_bytes: int | None,
) -> Trace:
    highest, rounds = 0, []  # type: ignore[var-annotated]
    meta = TraceMeta(
        kind=made.kind,
        source=f"import:{name}",
        domain={"name": Path(path).name, "memory_bytes": memory_bytes or PAGE_SIZE},
        clock={"kind": made.clock},
        period={"ns": made.round_ns},
        provenance={"command": f"pmlkit import {name} {shlex.quote(str(path))}"},
        notes=[f"imported from {name}", *made.notes],
    )
    with TraceWriter(output, meta, overwrite) as writer:
        for group in _by_round(made.rounds):
            start, end = group[0][:2]
            if rounds and start > rounds[-1][1]:
                rounds.append((rounds[-1][1], start))  # nothing was used in between
            for vcpu, gfn, kind in _ordered(group, made.kind):
                writer.add_entries(len(rounds), len(rounds), vcpu, gfn, kind)
                highest = max(highest, int(gfn.max()))
            rounds.append((start, end))
        if not rounds:
            raise ForeignFileError(path, "", "holds no entry")
        number = range(len(rounds))
        starts, ends = zip(*rounds, strict=True)
        writer.set_rounds({"round": number, "t_start_ns": starts, "t_end_ns": ends})
        if memory_bytes is None:
            domain = meta.domain | {"memory_bytes": (highest + 1) * PAGE_SIZE}
            writer.replace_meta(domain=domain)
    return Trace.open(output)


def _by_round(parts: Any) -> Iterator[Any]:
    group: list[Any] = []
    for part in parts:
        if group and part[:2] != group[0][:2]:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _ordered(group: Any, kind: Any) -> Iterator[Any]:
    """Give a round's entries as a trace has them.

    A PML log is kept as it is. An access trace holds each use once, in order of first use, and
    what was executed at the end, by number.
    """
    if kind == "pml":
        yield from ((vcpu, gfn, kinds) for _, _, vcpu, gfn, kinds in group if len(gfn))
        return
    vcpu, gfn, kinds = (np.concatenate([_full(part, i) for part in group]) for i in (2, 3, 4))
    executed = kinds == int(Kind.EXEC)
    data = np.flatnonzero(~executed)
    _, first = np.unique(np.stack([gfn[data], kinds[data]]), axis=1, return_index=True)
    data = data[np.sort(first)]
    if len(data):
        yield vcpu[data], gfn[data], kinds[data]
    if executed.any():
        frames, first = np.unique(gfn[executed], return_index=True)
        yield vcpu[executed][first], frames, int(Kind.EXEC)


def _full(part: Any, index: int) -> NDArray[np.uint64]:
    """Give a column of a part of a round; a scalar stands for all."""
    return np.broadcast_to(np.asarray(part[index], dtype=np.uint64), len(part[3]))


@contextlib.contextmanager
def _whole(output: PathLike, overwrite: bool) -> Iterator[Path]:
    """Give the name to write to; the file gets its own once it is whole."""
    final = Path(output)
    if final.exists() and (not overwrite or not final.is_file()):
        raise OutputExists(output)
    partial = final.with_name(f"{final.name}.partial")
    try:
        yield partial
        partial.replace(final)
    except OSError as error:
        raise output_error(output, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _write_table(table: pd.DataFrame, output: PathLike, overwrite: bool) -> Any:
    suffix = Path(output).suffix
    if suffix not in (".csv", ".parquet"):
        raise UsageError("query-dirty-rate becomes a table: name it NAME.csv or NAME.parquet")
    with _whole(output, overwrite) as partial:
        if suffix == ".csv":
            table.to_csv(partial, index=False)
        else:
            table.to_parquet(partial, index=False)
    return table


def selected(
    trace: Trace,
    columns: Sequence[str],
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> Iterator[dict[str, Array]]:
    """Iterate over a trace's entries as dicts of arrays, a row group at a time.

    Yields
    ------
    dict of str to ndarray
    """
    for batch in trace.iter_entries(columns, start_ns, end_ns, kinds):
        if batch.num_rows:
            yield {name: batch[name].to_numpy(zero_copy_only=False) for name in columns}
