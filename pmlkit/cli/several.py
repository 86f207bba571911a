# SPDX-License-Identifier: Apache-2.0
"""Output of commands for several recordings: answers, important differences, and one table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pmlkit.cli.show import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pmlkit.answers import WorkingSet
    from pmlkit.several import Unlike
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

__all__ = ["labelled", "wss"]


def labelled(paths: Sequence[str], labels: Sequence[str] = ()) -> dict[str, Trace]:
    """Open the traces of a command, by their labels."""
    from pmlkit import several

    return several.labelled(list(paths), labels)


def wss(
    traces: Mapping[str, Trace],
    step: str | None,
    only_answer: bool,
    as_json: bool,
    window: str | int | None,
    **how: Any,
) -> None:
    """Print the working sets of recordings: answers, percentiles, and windows side by side."""
    from pmlkit import answers, several
    from pmlkit.cli import console

    with console.busy("counting pages", quiet=as_json):
        part = {name: value for name, value in how.items() if name != "min_count"}
        common = several.common_window(traces, window, **part)
        summaries = {
            label: replace(answers.working_set(trace, common, step, **how), name=label)
            for label, trace in traces.items()
        }
        apart = several.unlike(traces, how["kinds"])
    notes = [f"Note: {one}." for one in (*apart, *several.losses(traces))]
    lines = notes + [one.answer for one in summaries.values()]
    tables = [lambda: console.summaries(summaries)]
    if not only_answer:
        tables.append(lambda: console.side_by_side({n: one.table for n, one in summaries.items()}))
    show(as_json, lambda: _json(summaries, apart, only_answer), console.answer, lines, *tables)


def _json(
    summaries: Mapping[str, WorkingSet], apart: Sequence[Unlike], only_answer: bool
) -> dict[str, Json]:
    from pmlkit.cli import console

    document: dict[str, Json] = {
        "unlike": {one.what: one.values for one in apart},
        "summaries": {label: one.as_dict() for label, one in summaries.items()},
    }
    if not only_answer:
        document["windows"] = {
            label: console.records(one.columns) for label, one in summaries.items()
        }
    return document
