# SPDX-License-Identifier: Apache-2.0
"""`pmlkit advise`: how to look at a VM within a budget, and how big it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import FloatRange, IntRange

from pmlkit.cli.options import DURATION, as_json, echo, example, option, trace_argument
from pmlkit.cli.show import show

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.law.advise import Advice


_EXAMPLES = example(
    "pmlkit advise redis --budget 0.5%",
    "pmlkit advise data/sqlite.trace --budget 0.1% --window 1s --no-check --json",
)


@click.command(epilog=_EXAMPLES)
@trace_argument
@option("--budget", default="0.5%", metavar="SHARE", help="What looking may cost of the VM's time, "
        "in per cent.")  # fmt: skip
@option("--window", type=DURATION, help="T.  [default: the shortest from which on the working set "
        "grows by a tenth or less if T doubles]")  # fmt: skip
@option("--check/--no-check", default=True, help="Run the technique on TRACE, and print its error "
        "beside the predicted one.")  # fmt: skip
@option("--seeds", default=5, type=IntRange(1), help="Draws for that, if it draws pages.")
@option("--ns-per-insn", default=None, type=FloatRange(0, min_open=True), help="How long an "
        "instruction takes on the machine of a TRACE that does not say it.")  # fmt: skip
@as_json
def advise(trace: str, budget: str, as_json: bool, **how: Any) -> None:
    """Say how to measure TRACE's VM, and how big it has to be.

    Which technique, how many looks per T, how many pages watched: out of all that the law of errors
    predicts, those with the least error within --budget. The predictions are from the working set's
    own curves; only the choice is run, to check them.
    """
    from pmlkit.cli import console
    from pmlkit.law import advise as law_advise
    from pmlkit.units import parse_share

    share = parse_share(budget)  # before the trace is read
    with console.busy("predicting", quiet=as_json):
        advice = law_advise.advise(trace, share, **how)
    show(as_json, advice.as_dict, _print, advice)


def _print(advice: Advice) -> None:
    from pmlkit.cli import console
    from pmlkit.law.advise import shown

    echo(advice.answer)
    for line in advice.lines:
        echo(f"- {line}")
    console.sheet(shown(advice), "No other technique beats these in error and cost (* the choice)")
