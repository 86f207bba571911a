# SPDX-License-Identifier: Apache-2.0
"""Select rows of a trace: their columns, and those that filters keep; separate from `Trace`.

`with_parameters_of` gives several methods the parameters of one selection.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.trace import arrow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from pmlkit.types import Array, Bools, Gfns

__all__ = ["Filter", "checked_columns", "filtered", "membership", "with_parameters_of"]

Filter = Callable[["Array"], "Bools"]
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


def with_parameters_of(
    select: Callable[Concatenate[T, P], tuple[pa.Schema, Iterator[Any]]],
) -> Callable[[Callable[[T, pa.Schema, Iterator[Any]], R]], Callable[Concatenate[T, P], R]]:
    """Return a decorator of methods, which get the result of `select` for its parameters."""

    def decorate(
        convert: Callable[[T, pa.Schema, Iterator[Any]], R],
    ) -> Callable[Concatenate[T, P], R]:
        @functools.wraps(convert)
        def read(trace: T, /, *args: P.args, **options: P.kwargs) -> R:
            return convert(trace, *select(trace, *args, **options))

        returned = inspect.signature(convert).return_annotation
        signature = inspect.signature(select).replace(return_annotation=returned)
        vars(read)["__signature__"] = signature  # `help` and completion show the parameters
        return read

    return decorate


def checked_columns(what: str, columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
    """Return the names of columns, by default all; raise a UsageError if one is unknown."""
    columns = list(schema.names if columns is None else columns)
    unknown = [name for name in columns if name not in schema.names]
    if unknown or not columns:
        raise UsageError(f"{what} have no column {unknown}: choose from {schema.names}")
    return columns


def membership(frames: Gfns) -> Filter:
    """Return a filter that keeps the frames that are among `frames`, which ascend."""

    def is_member(gfn: Gfns) -> Bools:
        place = np.minimum(np.searchsorted(frames, gfn), len(frames) - 1)
        return frames[place] == gfn if len(frames) else np.zeros(len(gfn), dtype=bool)

    return is_member


def filtered(
    batches: Iterator[pa.RecordBatch], columns: list[str], filters: Mapping[str, Filter]
) -> Iterator[pa.RecordBatch]:
    """Yield the columns of each batch, of the rows that the filters (by column) keep."""
    for batch in batches:
        for name, matches in filters.items():
            kept = matches(arrow.values(batch[name]))
            batch = batch if kept.all() else batch.filter(arrow.mask(kept))
        yield batch.select(columns)
