# SPDX-License-Identifier: Apache-2.0
"""The command ``pmlkit frontier``: techniques at equal cost, and at equal error."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import IntRange

from pmlkit.cli.options import as_json, example, names, only_answer, option, output
from pmlkit.cli.parameters import ABOVE_0, DURATION_TEXTS, TRACE
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import pandas as pd


_EXAMPLES = example(
    "pmlkit frontier redis sqlite hotcold --window 1s",
    "pmlkit frontier redis sqlite --techniques flag-sample,vmware --looks 1,4 --json",
    "pmlkit frontier a.trace b.trace --jobs 2 -o results/frontier",
)


@click.command(epilog=_EXAMPLES)
@click.argument("traces", nargs=-1, required=True, type=TRACE, metavar="TRACE...")
@option("--techniques", default="all", shell_complete=names("pmlkit.techniques:TECHNIQUES"),
        help="Names from `pmlkit compare --list`, separated by commas.")  # fmt: skip
@option("--window", type=DURATION_TEXTS, help="T, one or several. [default: 100ms,1s,5s]")
@option("--looks", default=None, help="Numbers of looks per T. [default: 1,2,4,10]")
@option("--watched", default=None,
        help="Numbers of watched frames or regions. All of the memory is always added. [default: "
             "64,256,1024,4096,16384]")  # fmt: skip
@option("--seeds", default=None, type=IntRange(1),
        help="Number of runs of techniques that draw random numbers. [default: 3]")  # fmt: skip
@option("--ns-per-insn", default=None, type=ABOVE_0,
        help="Length of an instruction, if the clock of a TRACE does not contain it.")  # fmt: skip
@option("--jobs", default=1, type=IntRange(1), help="Number of traces to process in parallel.")
@option(
    "--again", is_flag=True, help="Run everything in FOLDER again, after a change of a technique."
)
@output("FOLDER", "Store the points of each trace here, and continue an earlier sweep. Write the "
                  "tables (LaTeX, CSV) and the figure here, too.", folder=True)  # fmt: skip
@only_answer
@as_json
def frontier(
    traces: tuple[str, ...],
    jobs: int,
    again: bool,
    output: str,
    only_answer: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Compare techniques at equal cost, and at equal error.

    Each TRACE is an access trace, or the name of a bundled one. Every technique runs on each TRACE,
    at every number of looks per T and of watched frames, with unscaled intervals. The result at a
    budget is the least mean error of the settings whose mean cost is within the budget. Intervals
    come from a bootstrap over the recordings.
    """
    from pmlkit import frontier as sweeps
    from pmlkit.cli import console
    from pmlkit.figures import frontier_tables

    plan = sweeps.plan(**how)
    folder = Path(output) if output else None
    with console.busy("sweeping", quiet=as_json):
        points = sweeps.sweep(traces, plan, folder, jobs, again=again)
    if folder:
        with console.busy("drawing", quiet=as_json):
            frontier_tables.save(points, folder)
    closest = sweeps.closest(points)
    if only_answer:
        summary = {"summary": closest.as_dict()}
        return show(as_json, summary, console.answer, closest.lines)
    lines = [*closest.lines, f"{sweeps.caption(points)}."]
    value = lambda: frontier_tables.as_dict(points)  # noqa: E731
    show(as_json, value, console.answer, lines, *_tables(points))


def _tables(points: pd.DataFrame) -> Iterator[Callable[[], None]]:
    from pmlkit.cli import console
    from pmlkit.figures import frontier_tables

    for title, sheet in frontier_tables.sheets(points).items():
        yield partial(console.sheet, sheet, title)
