# SPDX-License-Identifier: Apache-2.0
"""`pmlkit advise`: how to look at a VM within a budget, and how big it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import FloatRange, IntRange

from pmlkit.cli.options import DURATION, as_json, example, only_answer, option, trace_argument
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.law.advice import Advice


_EXAMPLES = example(
    "pmlkit advise redis",
    "pmlkit advise redis --cover 95% --window 2s --summary",
    "pmlkit advise data/sqlite.trace --budget 0.1% --window 1s --no-check --json",
)


@click.command(epilog=_EXAMPLES)
@trace_argument
@option("--budget", default="0.5%", metavar="SHARE", help="What looking may cost of the VM's time, "
        "in per cent.")  # fmt: skip
@option("--window", type=DURATION, help="T.  [default: the shortest from which on the working set "
        "grows by a tenth or less if T doubles]")  # fmt: skip
@option("--cover", default="99%", metavar="SHARE", help="Of the time: W has to fit for so much of "
        "it.")  # fmt: skip
@option("--check/--no-check", default=True, help="Run the technique on TRACE, and print its error "
        "beside the predicted one.")  # fmt: skip
@option("--seeds", default=5, type=IntRange(1), help="Draws for that, if it draws pages.")
@option("--ns-per-insn", default=None, type=FloatRange(0, min_open=True), help="How long an "
        "instruction takes on the machine of a TRACE that does not say it.")  # fmt: skip
@only_answer
@as_json
def advise(trace: str, budget: str, only_answer: bool, as_json: bool, **how: Any) -> None:
    """Answer how big TRACE's VM must be, and how to measure it.

    The size holds W, the working set in T, for a share of the time. The answer states how sure
    that is, and what would change it: another target, another T, a phase. Then follows the
    technique with the least error within --budget, of all that the law of errors predicts. Only
    that one is run, to check the prediction.
    """
    from pmlkit.cli import console
    from pmlkit.law import advise as law_advise
    from pmlkit.units import parse_share

    share = parse_share(budget)  # before the trace is read
    with console.busy("predicting", quiet=as_json):
        advice = law_advise.advise(trace, share, **how)
    lines = [advice.answer, *advice.about_size]
    if only_answer:
        return show(as_json, {"summary": advice.summary}, console.answer, lines)
    show(as_json, advice.as_dict, console.answer, lines, lambda: _print(advice))


def _print(advice: Advice) -> None:
    from pmlkit.cli import console
    from pmlkit.law.advice import shown

    console.answer([advice.measure, *(f"- {line}" for line in advice.lines[1:])])
    if not advice.front.empty:
        title = "No other technique beats these in error and cost (* the choice)"
        console.answer([], lambda: console.sheet(shown(advice), title))
