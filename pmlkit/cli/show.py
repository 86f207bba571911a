# SPDX-License-Identifier: Apache-2.0
"""What the commands print: a trace, or a value as JSON or as people read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.trace.reader import Trace

__all__ = ["show", "show_trace"]


def show_trace(as_json: bool, trace: Trace) -> bool:
    """Print what a trace is; return whether its known answers came out."""
    from pmlkit.cli import console
    from pmlkit.trace import known

    answers = known.measure(trace)
    value = console.trace_dict(trace, answers) if as_json else None
    show(as_json, value, console.trace, trace, answers)
    return all(answer.met for answer in answers)


def show(as_json: bool, value: Any, render: Callable[..., Any], *found: Any) -> None:
    """Print a value as JSON (numpy's numbers as Python's), or `found` as people read it."""
    if as_json:
        click.echo(json.dumps(value, indent=2, default=lambda number: number.item()))
    else:
        render(*found)
