# SPDX-License-Identifier: Apache-2.0
"""`pmlkit diff`: the difference of two recordings' working sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmlkit.cli.options import (
    as_json,
    example,
    kinds,
    labels,
    min_count,
    only_answer,
    option,
    page_tables,
    region,
    sliding,
    span,
    traces_argument,
)
from pmlkit.cli.parameters import WINDOW
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from typing import Any

_EXAMPLES = example(
    "pmlkit diff pressure pressure-roomy --window 100ms",
    "pmlkit diff a.trace b.trace --label before --label after --kinds written",
    "pmlkit diff a.trace b.trace --start 2s --end 8s --sliding --json",
)


@click.command(epilog=_EXAMPLES)
@traces_argument
@labels
@option("--window", type=WINDOW,
        help="T, as a time (250ms) or in rounds (5r). [default: 1s, or the nearest T that both "
             "support]")  # fmt: skip
@min_count
@sliding
@kinds()
@page_tables
@region
@span
@only_answer
@as_json
def diff(
    traces: tuple[str, ...],
    labels: tuple[str, ...],
    sliding: bool,
    only_answer: bool,
    as_json: bool,
    window: str | int | None,
    **how: Any,
) -> None:
    """Compare the working sets of two traces, before and after.

    The answer is how much more or less memory the second one needs, with a 95 % interval if the
    recordings are long enough. The table lists the differences of the mean, the 95th percentile,
    the peak, and each phase. Traces whose numbers have different meanings, such as a log of writes
    and a trace of all accesses, are refused.
    """
    from pmlkit import difference
    from pmlkit.cli import console, several

    with console.busy("counting pages", quiet=as_json):
        opened = several.labelled(traces, labels)
        step = "sliding" if sliding else None
        found = difference.between(opened, None, window, step, **how)
    tables = [] if only_answer else [lambda: console.difference(found)]
    value = {"summary": found.as_dict()} if only_answer else found.as_dict
    show(as_json, value, console.answer, found.lines, *tables)
