# SPDX-License-Identifier: Apache-2.0
"""`pmlkit reads`: the working set with the reads that PML does not log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from click import Choice

from pmlkit.cli_options import WINDOW, as_json, example, option, span, trace_argument

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from pmlkit.trace import Trace
    from pmlkit.types import Json


METHODS = ("written", "leaves", "present", "accessed", "density", "harvest")


@click.command(
    epilog=example(
        "pmlkit reads data/rrww-lab.trace",
        "pmlkit reads x.trace --method density --every 10 --json",
        "pmlkit reads x.trace --compare",
    )
)
@trace_argument
@option("--method", default="accessed", type=Choice(METHODS), help="How to count.")
@option("--window", type=WINDOW, default="1r", help="T: a time (250ms), or rounds (5r).")
@option("--every", type=click.IntRange(1), help="density: learn from every N-th round's harvest.")
@option("--compare", is_flag=True, help="All methods against the harvest, phase by phase.")
@span
@as_json
def reads(trace: Trace, method: str, every: bool, compare: bool, as_json: bool, **how: Any) -> None:
    """Estimate the working set of TRACE, reads included.

    The reads come from the page tables in its PML log.

    written: PML alone. leaves: 512 pages for each leaf table in the log. present, accessed: the
    entries of their snapshots. density: the part of those in use, learnt from harvests. harvest:
    the accessed flags, which are the truth.

    Each row has an interval, and says what cannot be known.
    """
    from pmlkit import report_reads
    from pmlkit.report import busy
    from pmlkit.trace import Trace

    with busy("counting pages", quiet=as_json):
        opened = Trace.open(trace)
        table = _compared(opened, every) if compare else _estimate(opened, method, every, how)
    if as_json:
        click.echo(json.dumps(table.to_dict("records"), indent=2, default=lambda n: n.item()))
    else:
        report_reads.show(table)


def _estimate(trace: Trace, method: str, every: bool, how: Json) -> pd.DataFrame:
    from pmlkit import reads as estimates
    from pmlkit import reads_density

    if method != "density":
        return estimates.estimate(trace, method, **how)
    rounds = range(0, trace.n_rounds, every) if every else None
    return reads_density.estimate(trace, rounds=rounds, **how)


def _compared(trace: Trace, every: bool) -> pd.DataFrame:
    from pmlkit import reads_table

    methods = [m for m in METHODS if m != "harvest"]
    rounds = range(0, trace.n_rounds, every or 4)
    return reads_table.by_phase(reads_table.compare(trace, methods, rounds=rounds))
