# SPDX-License-Identifier: Apache-2.0
"""`pmlkit mrc`: miss-ratio curves of a trace."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import (
    as_json,
    drawing,
    example,
    kinds,
    labels,
    only_answer,
    option,
    page_tables,
    region,
    span,
    traces_argument,
)
from pmlkit.cli.parameters import RATIO, WINDOW, Ratio
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd

    from pmlkit.missratio.curve import MissRatioCurve
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json


_EXAMPLES = example(
    "pmlkit mrc redis --target 0.1",
    "pmlkit mrc redis --summary",
    "pmlkit mrc pressure pressure-roomy --label tight --label roomy -o f/both",
    "pmlkit mrc x.trace --method exact --method shards --rate 0.1 -o f/mrc",
    "pmlkit mrc x.trace --window 1s --start 10s --end 60s --json",
)
_METHODS = ("exact", "shards", "aet")
_POINTS = 256


@click.command(epilog=_EXAMPLES)
@traces_argument
@labels
@option("--method", "methods", type=Choice(_METHODS), multiple=True,
        help="Method; can be repeated. [default: exact]")  # fmt: skip
@option("--rate", default=0.01, type=Ratio(low=1e-9),
        help="Share of the pages that SHARDS samples.")  # fmt: skip
@option("--min-pages", default=8192, type=IntRange(0),
        help="Sample at least this many pages; if fewer exist, use all of them.")  # fmt: skip
@option("--max-pages", type=IntRange(1), help="Largest number of pages that SHARDS samples.")
@option("--target", "targets", default=(0.1, 0.01), type=RATIO, multiple=True,
        help="Print the memory for this miss ratio, such as 0.1 or 10%; can be "
             "repeated.")  # fmt: skip
@option("--window", type=WINDOW, help="Print the ratios of each window of this length instead.")
@kinds()
@page_tables
@region
@drawing("Draw it")
@span
@only_answer
@as_json
def mrc(
    traces: tuple[str, ...],
    labels: tuple[str, ...],
    methods: tuple[str, ...],
    rate: float,
    min_pages: int,
    max_pages: int | None,
    targets: tuple[float, ...],
    window: str | int | None,
    output: str | None,
    only_answer: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Print the memory for a target miss ratio, and all ratios (LRU).

    First uses are counted as misses. The table also lists the size at the curve's knee. Several
    traces are printed side by side, by one method.
    """
    from pmlkit import missratio
    from pmlkit.cli import console, several

    by_label, methods = several.labelled(traces, labels), methods or ("exact",)
    if len(by_label) > 1 and (window is not None or len(methods) > 1):
        raise UsageError("several traces take one --method and no --window: give one TRACE")
    if window is not None:
        trace = next(iter(by_label.values()))
        return _over_time(trace, window, targets, output, only_answer, as_json, chosen)
    of_shards = {"rate": rate, "min_pages": min_pages, "max_pages": max_pages}
    columns = _columns(by_label, methods)
    with console.busy("computing the LRU stack", quiet=as_json):
        for column in columns.values():
            options = of_shards if column.method == "shards" else {}
            column.curve = missratio.of_trace(column.trace, column.method, **options, **chosen)
        if output:
            from pmlkit import figures

            of = by_label if len(by_label) > 1 else next(iter(by_label.values()))
            curves = {name: column.curve for name, column in columns.items()}
            figures.save(figures.compare_curves(curves, of), output)
    _show(columns, targets, only_answer, as_json, chosen)


@dataclass
class _Column:
    """A curve of the table: of a trace by a method."""

    label: str
    trace: Trace
    method: str
    curve: MissRatioCurve = field(init=False)


def _columns(traces: Mapping[str, Trace], methods: Sequence[str]) -> dict[str, _Column]:
    """Return the columns by their names: those of the methods, or of several traces."""
    if len(traces) > 1:
        return {label: _Column(label, trace, methods[0]) for label, trace in traces.items()}
    ((label, trace),) = traces.items()
    return {method: _Column(label, trace, method) for method in methods}


def _show(
    columns: Mapping[str, _Column],
    targets: Sequence[float],
    only_answer: bool,
    as_json: bool,
    chosen: Json,
) -> None:
    """Print the answer of each column, and the table."""
    from pmlkit import answers, several
    from pmlkit.cli import console

    traces = {column.label: column.trace for column in columns.values()}
    results = {
        name: replace(
            answers.miss_ratio(column.trace, column.curve, targets, **chosen), name=column.label
        )
        for name, column in columns.items()
    }
    rows: Json = {name: {"summary": one.as_dict()} for name, one in results.items()}
    if not only_answer:
        rows = {n: _facts(column.curve, targets) | rows[n] for n, column in columns.items()}
    if len(traces) > 1:
        apart = several.unlike(traces, chosen["kinds"])
        notes = (f"Note: {one}." for one in (*apart, *several.losses(traces)))
        lines = [*notes, *(one.answer for one in results.values())]
        value = {"unlike": {one.what: one.values for one in apart}, "curves": rows}
    else:
        each = list(results.values())
        lines, value = [*(line for one in each for line in one.lines), each[0].origin], rows
    page_sizes = [column.trace.meta.domain["page_size"] for column in columns.values()]
    tables = [] if only_answer else [lambda: console.curves(rows, page_sizes)]
    show(as_json, value, console.answer, lines, *tables)


def _facts(curve: MissRatioCurve, targets: Sequence[float]) -> Json:
    """Return a curve's facts and points as JSON."""
    thin = curve.thinned(_POINTS)
    names = ("sizes_pages", "miss_ratio", "low", "high")
    arrays = {name: getattr(thin, name) for name in names}
    return {
        "uses": curve.uses,
        "pages": curve.pages,
        "rate": curve.rate,
        "sampled_pages": curve.sampled_pages,
        "cold": curve.cold,
        "knee_pages": curve.knee(),
        "pages_for": {f"{target:g}": curve.pages_for(target) for target in targets},
        **{name: None if array is None else array.tolist() for name, array in arrays.items()},
    }


def _over_time(
    trace: Trace,
    window: str | int,
    targets: Sequence[float],
    output: str | None,
    only_answer: bool,
    as_json: bool,
    chosen: Json,
) -> None:
    from pmlkit import answers, missratio
    from pmlkit.cli import console

    with console.busy("computing the LRU stack", quiet=as_json):
        table = missratio.over_time(trace, window, **chosen)
        if output:
            from pmlkit import figures

            figures.save(figures.miss_ratio_over_time(trace, window, **chosen), output)
    found = answers.miss_ratios(trace, table, targets, window, **chosen)
    rows = [] if only_answer else [lambda: console.over_time(table, trace.meta.domain["page_size"])]
    value = {"summary": found.as_dict()} if only_answer else lambda: _records(table)
    show(as_json, value, console.answer, found.lines, *rows)


def _records(table: pd.DataFrame) -> list[Json]:
    """Return the rows of a table, NaN as None."""
    return json.loads(table.to_json(orient="records"))
