# SPDX-License-Identifier: Apache-2.0
"""`pmlkit advise`: how to measure a VM within a budget, and how much memory it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import IntRange

from pmlkit.cli.options import as_json, example, only_answer, option, span, trace_argument
from pmlkit.cli.parameters import ABOVE_0, DURATION, SHARE
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.law.advice import Advice


_EXAMPLES = example(
    "pmlkit advise redis",
    "pmlkit advise redis --cover 95% --window 2s --summary",
    "pmlkit advise redis --phase get --window 500ms",
    "pmlkit advise sqlite --budget 0.1% --window 1s --no-check --json",
)


@click.command(epilog=_EXAMPLES)
@trace_argument
@option("--budget", default="0.5%", type=SHARE, metavar="SHARE",
        help="Limit for the cost of looking, in percent of the VM's time.")  # fmt: skip
@option("--window", type=DURATION,
        help="T. [default: the shortest T for which doubling it adds at most a tenth to the "
             "working set]")  # fmt: skip
@option("--cover", default="99%", type=SHARE, metavar="SHARE", help="Share of the time for which W "
        "must fit.")  # fmt: skip
@option("--check/--no-check", default=True,
        help="Run the technique on TRACE, and compare its error with the prediction.")  # fmt: skip
@option(
    "--seeds",
    default=5,
    type=IntRange(1),
    help="Number of random draws for this run, if the technique draws pages.",
)
@option("--ns-per-insn", default=None, type=ABOVE_0,
        help="Length of an instruction, if the clock of TRACE does not contain it.")  # fmt: skip
@span
@only_answer
@as_json
def advise(trace: str, only_answer: bool, as_json: bool, **how: Any) -> None:
    """Answer how big TRACE's VM must be, and how to measure it.

    W, the working set in T, fits in this size for a share of the time. The answer states how
    certain that is, and what would change it: another target, another T, a phase. It then names
    the technique with the least error within --budget, among those that the law of errors
    predicts. Only that one is run, to check the prediction.
    """
    from pmlkit.cli import console
    from pmlkit.law import advise as law_advise

    with console.busy("predicting", quiet=as_json):
        advice = law_advise.advise(trace, **how)
    lines = [advice.answer, *advice.about_size]
    if only_answer:
        return show(as_json, {"summary": advice.summary}, console.answer, lines)
    show(as_json, advice.as_dict, console.answer, lines, lambda: _print(advice))


def _print(advice: Advice) -> None:
    from pmlkit.cli import console
    from pmlkit.law.advice import shown

    console.answer([advice.measure, *(f"- {line}" for line in advice.lines[1:])])
    if not advice.front.empty:
        title = "No other technique beats these in both error and cost (* the choice)"
        console.answer([], lambda: console.sheet(shown(advice), title))
