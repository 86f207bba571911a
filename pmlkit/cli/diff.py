# SPDX-License-Identifier: Apache-2.0
"""`pmlkit diff`: the difference of working sets, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmlkit.cli.options import (
    as_json,
    example,
    kinds,
    min_count,
    only_answer,
    option,
    page_tables,
    region,
    sliding,
    span,
)
from pmlkit.cli.parameters import WINDOW, TracePath
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_EXAMPLES = example(
    "pmlkit diff pressure pressure-roomy --window 100ms",
    "pmlkit diff a.trace b.trace --label before --label after --kinds written",
    "pmlkit diff a.trace b.trace --start 2s --end 8s --sliding --json",
    "pmlkit diff before-*.trace vs after-*.trace --window 1s",
)


class _Side(TracePath):
    """A trace, or the word between the two sides."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == BETWEEN else super().convert(value, param, ctx)


BETWEEN = "vs"


@click.command(epilog=_EXAMPLES)
@click.argument("traces", nargs=-1, required=True, type=_Side(), metavar="BEFORE... [vs] AFTER...")
@option("--label", "labels", multiple=True, metavar="NAME",
        help="Name of a side in the table; give it twice, before and after.")  # fmt: skip
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
    """Compare working sets before and after, or repeats of each.

    The answer is how much more or less memory the second side needs, with a 95 % interval. The
    table lists the differences of the mean, the 95th percentile, the peak, and each phase.

    The interval of two traces covers the variation within them, and needs long recordings. To cover
    what differs from one recording to the next, repeat them, and put the word "vs" between: `pmlkit
    diff a1.trace a2.trace a3.trace vs b1.trace b2.trace b3.trace`. Two or more on each side have an
    interval.

    Traces whose numbers have different meanings, such as a log of writes and a trace of all
    accesses, are refused.
    """
    from pmlkit import difference
    from pmlkit.cli import console

    with console.busy("counting pages", quiet=as_json):
        step = "sliding" if sliding else None
        result = difference.between(_sides(traces, labels), None, window, step, **how)
    tables = [] if only_answer else [lambda: console.difference(result)]
    value = {"summary": result.as_dict()} if only_answer else result.as_dict
    show(as_json, value, console.answer, result.lines, *tables)


def _sides(traces: Sequence[str], labels: Sequence[str]) -> Any:
    """Return the traces of each side, by their labels if there are any."""
    words = [word for word in traces if word == BETWEEN]
    if len(words) > 1 or (not words and len(traces) != 2):
        count = len(traces) - len(words)
        what = f"{count} trace{'s' * (count != 1)} and {len(words) or 'no'} {BETWEEN!r}"
        hint = f"give two traces, or put one {BETWEEN!r} between those before and those after"
        raise UsageError(what, hint)
    at = list(traces).index(BETWEEN) if words else 1
    sides = [list(traces[:at]), list(traces[at + len(words) :])]
    if labels and len(labels) != 2:
        raise UsageError(f"{len(labels)} labels for two sides: give --label twice")
    if labels and labels[0] == labels[1]:
        raise UsageError(f"the label {labels[0]!r} occurs twice: give distinct labels")
    return dict(zip(labels, sides, strict=True)) if labels else sides
