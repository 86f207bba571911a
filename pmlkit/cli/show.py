# SPDX-License-Identifier: Apache-2.0
"""Print the result of a command: as JSON with ``--json``, otherwise as text.

This module is separate from `console`, whose imports take a second: every command imports this one.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import click

from pmlkit.cli.options import as_options

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pmlkit.trace.reader import Trace

__all__ = ["show", "show_trace"]


def show_trace(
    as_json: bool, trace: Trace, checked: bool = False, only_answer: bool = False
) -> bool:
    """Print a trace's description; return whether its known answers are met.

    Parameters
    ----------
    checked : bool
        Whether `Trace.check` has found its files undamaged.
    """
    from pmlkit.cli import console
    from pmlkit.trace import known, summary

    answers = known.measure(trace)
    met = sum(one.met for one in answers)
    answer = summary.answer(trace, met, len(answers), checked)
    lines = [answer, f"Source: {summary.source_text(trace)}."]
    facts = {"summary": {"answer": answer, "source": summary.source_text(trace)}}
    if only_answer:
        show(as_json, facts, console.answer, lines)
    else:
        tables = partial(console.trace, trace, answers)
        value = lambda: facts | console.trace_dict(trace, answers)  # noqa: E731
        show(as_json, value, console.answer, lines, tables)
    return met == len(answers)


def show(
    as_json: bool,
    value: object,
    render: Callable[..., object],
    *arguments: object,
    indent: int | None = 2,
) -> None:
    """Print a result, as JSON or as text.

    Parameters
    ----------
    value
        Values for JSON (numpy's scalars become numbers), or a function that returns them.
    render, *arguments
        Called without ``--json``.
    indent
        As in `json.dumps`; None: one line.
    """
    if as_json:
        value = value() if callable(value) else value
        click.echo(as_options(json.dumps(value, indent=indent, default=_number)))
    else:
        render(*arguments)


def _number(scalar: np.generic) -> object:
    return scalar.item()
