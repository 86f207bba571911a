# SPDX-License-Identifier: Apache-2.0
"""`pmlkit mrc`: miss-ratio curves of a trace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from click import Choice, FloatRange, IntRange

from pmlkit.cli.options import (
    WINDOW,
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
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import pandas as pd

    from pmlkit.answers import MissRatio
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
@option("--rate", default=0.01, type=FloatRange(0, 1, min_open=True),
        help="Share of the pages that SHARDS samples.")  # fmt: skip
@option("--min-pages", default=8192, type=IntRange(0),
        help="Sample at least this many pages; if fewer exist, use all of them.")  # fmt: skip
@option("--max-pages", type=IntRange(1), help="Largest number of pages that SHARDS samples.")
@option("--target", "targets", default=(0.1, 0.01), type=FloatRange(0, 1), multiple=True,
        help="Print the memory for this miss ratio; can be repeated.")  # fmt: skip
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
    from pmlkit import answers
    from pmlkit.cli import console, several

    if only_answer and window is not None:
        raise UsageError(
            "--summary covers the whole part: leave out --window, or use --start, --end"
        )
    by_label, methods = several.labelled(traces, labels), methods or ("exact",)
    if len(by_label) > 1 and (window is not None or len(methods) > 1):
        raise UsageError("several traces take one --method and no --window: give one TRACE")
    opened = next(iter(by_label.values()))
    with console.busy("computing the LRU stack", quiet=as_json):
        if window is not None:
            return _over_time(opened, window, output, as_json, chosen)
        sample = {"rate": rate, "min_pages": min_pages, "max_pages": max_pages}
        if len(by_label) > 1:
            curves = {
                label: curve
                for label, trace in by_label.items()
                for curve in _curves(trace, methods, sample, chosen).values()
            }
        else:
            curves = _curves(opened, methods, sample, chosen)
        if output:
            from pmlkit import figures

            of = by_label if len(by_label) > 1 else opened
            figures.save(figures.compare_curves(curves, of), output)
    if len(by_label) > 1:
        return several.mrc(by_label, curves, targets, _facts, only_answer, as_json, chosen)
    found = [answers.miss_ratio(opened, c, targets, **chosen) for c in curves.values()]
    if only_answer:
        rows = {one.curve.method: {"summary": one.as_dict()} for one in found}
        return show(as_json, rows, console.answer, _lines(found))
    rows = {
        one.curve.method: _facts(one.curve, targets) | {"summary": one.as_dict()} for one in found
    }
    page_size = opened.meta.domain["page_size"]
    show(as_json, rows, console.answer, _lines(found), lambda: console.curves(rows, page_size))


def _lines(found: Sequence[MissRatio]) -> list[str]:
    """Return the answer of each method, and one line on their scope."""
    return [*(line for one in found for line in one.lines), found[0].origin]


def _curves(
    trace: Trace, methods: Sequence[str], sample: Json, chosen: Json
) -> dict[str, MissRatioCurve]:
    from pmlkit import missratio

    options = {"shards": sample}
    return {
        method: missratio.of_trace(trace, method, **options.get(method, {}), **chosen)
        for method in methods
    }


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
    trace: Trace, window: str | int, output: str | None, as_json: bool, chosen: Json
) -> None:
    from pmlkit import missratio
    from pmlkit.cli import console

    table = missratio.over_time(trace, window, **chosen)
    if output:
        from pmlkit import figures

        how = {name: chosen[name] for name in ("start", "end", "kinds")}
        figures.save(figures.miss_ratio_over_time(trace, window, **how), output)
    page_size = trace.meta.domain["page_size"]
    show(as_json, lambda: _records(table), console.over_time, table, page_size)


def _records(table: pd.DataFrame) -> list[Json]:
    """Return the rows of a table, NaN as None."""
    return json.loads(table.to_json(orient="records"))
