# SPDX-License-Identifier: Apache-2.0
"""Set the knob of a rule or model beforehand: as it is published, on others, or by its own past.

A decider is more or less careful by a knob: a margin, or a quantile. Whoever sets it by what came
later compares what nobody could have had. Three ways to set it are open to a hypervisor:

``as is``
    As the rule is published, or the quantile that a model forecasts: 1 - the violations asked for.
``others``
    The least careful knob that keeps to the violations asked for on recorded programs other than
    this one, together.
``past``
    The same, but the windows of this log that are over count, too, as far as the inputs showed what
    came in them. The others weigh as much as `WEIGHT` windows.

`follow` sets more than a knob: which decider is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.forecast import baselines, metrics
from pmlkit.forecast.backtest import TAUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.backtest import Outcome
    from pmlkit.types import Bools, Floats, Ints, Json

__all__ = [
    "Decision",
    "KNOBS",
    "WEIGHT",
    "as_is",
    "by_past",
    "decide",
    "follow",
    "rates",
    "trained",
]

KNOBS = ("as is", "others", "past")
WEIGHT = 64  # windows: a quarter of a log of two minutes


@dataclass(frozen=True)
class Decision:
    """What a decider allocated for a log, with a knob that was set beforehand.

    Attributes
    ----------
    outcome : Outcome
        Of the log; its `given` has all knobs.
    knob : str
        One of `KNOBS`, or ``""`` where that says nothing.
    asked : float
        Violations asked for.
    given : ndarray of float, shape (n,)
        Pages.
    model : str
        That of the outcome, or another name.
    """

    outcome: Outcome
    knob: str
    asked: float
    given: Floats
    model: str

    @property
    def name(self) -> str:
        """The decider and how its knob was set."""
        return f"{self.model}, {self.knob}" if self.knob else self.model

    def row(self) -> Json:
        """Return what the allocations cost, judged by what was used."""
        o = self.outcome
        return {
            "decider": self.name,
            "model": self.model,
            "knob": self.knob,
            "asked": self.asked,
            "log": o.sample,
            "program": o.program,
            "windows": len(o.y),
            **metrics.runs(o.y > self.given),
            **metrics.idle_and_short(o.y, self.given, self.asked),
        }


def rates(outcomes: Sequence[Outcome]) -> Floats:
    """Return the share of violations at each knob: the mean over programs, shape (knobs,)."""
    shares = pd.DataFrame([(o.y[:, None] > o.given).mean(axis=0) for o in outcomes])
    return shares.groupby([o.program for o in outcomes]).mean().mean().to_numpy()


def trained(rates: Floats, asked: float) -> int:
    """Return the least knob that keeps to the violations asked for; the last if none does."""
    keeps = np.asarray(rates) <= asked
    return int(keeps.argmax()) if keeps.any() else len(keeps) - 1


def as_is(o: Outcome, asked: float) -> int | None:
    """Return the knob that a decider is published with; None: it has none of its own."""
    if o.taus is not None:  # knobs of `backtest.allocations_by_quantile`
        return int((baselines.MARGINS < 1).sum() + np.argmin(np.abs(TAUS - (1 - asked))))
    if o.model.startswith("percentile"):
        return int(np.argmin(np.abs(baselines.QUANTILES - (1 - asked))))
    if o.model.startswith("VPA"):
        return int(np.argmin(np.abs(baselines.MARGINS - 1)))
    return None


def by_past(o: Outcome, rates: Floats, asked: float, weight: float = WEIGHT) -> Ints:
    """Return the knob at each window, from what was known when it was decided.

    Parameters
    ----------
    o : Outcome
    rates : array of float, shape (knobs,)
        Share of violations on other programs.
    asked : float
    weight : float
        Windows that the others count as.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    missed, known = _known(o, _seen(o)[:, None] > o.given)
    blended = (weight * np.asarray(rates) + missed) / (weight + known[:, None])
    keeps = blended <= asked
    return np.where(keeps.any(axis=1), keeps.argmax(axis=1), o.given.shape[1] - 1)


def _seen(o: Outcome) -> Floats:
    return np.full(len(o.y), np.nan) if o.seen is None else o.seen


def _known(o: Outcome, values: Floats | Bools) -> tuple[Floats, Ints]:
    """Sum values over the windows whose outcome was seen at each; and count these windows.

    Window t's outcome is known from window t + horizon on.
    """
    seen = np.isfinite(_seen(o))
    sums = np.cumsum(np.where(seen[:, None], values, 0), axis=0, dtype=float)
    counts = np.cumsum(seen)
    late = min(o.horizon, len(sums))
    before = np.zeros((late, sums.shape[1]))
    return np.concatenate([before, sums[: len(sums) - late]]), np.concatenate(
        [np.zeros(late, int), counts[: len(counts) - late]]
    )


def decide(o: Outcome, rates: Floats, asked: float) -> list[Decision]:
    """Return a decider's allocations for a log, by each way to set its knob that it has."""
    found = {"as is": as_is(o, asked), "others": trained(rates, asked)}
    chosen: dict[str, int | Ints] = {way: knob for way, knob in found.items() if knob is not None}
    if np.isfinite(_seen(o)).any():
        chosen["past"] = by_past(o, rates, asked)
    rows = np.arange(len(o.y))
    return [Decision(o, way, asked, o.given[rows, knob], o.model) for way, knob in chosen.items()]


def follow(
    decisions: Sequence[Decision], costs: Sequence[float], name: str, weight: float = WEIGHT
) -> tuple[Decision, Ints]:
    """Follow, at each window, the decider that has cost least so far, on others and on this log.

    Parameters
    ----------
    decisions : sequence of Decision
        Of one log, at one rate of violations.
    costs : sequence of float
        ``cost`` of each on other programs, which weighs as much as `weight` windows.
    name : str
        Of the result.

    Returns
    -------
    Decision
    leaders : ndarray of int, shape (n,)
        Which decision is followed.
    """
    o, asked = decisions[0].outcome, decisions[0].asked
    given = np.column_stack([decision.given for decision in decisions])
    seen = np.nan_to_num(_seen(o))[:, None]
    losses = np.maximum(given - seen, 0) + (1 - asked) / asked * np.maximum(seen - given, 0)
    lost, known = _known(o, losses)
    used, _ = _known(o, seen)
    mean_use = np.maximum(used / np.maximum(known[:, None], 1), 1)
    blended = (weight * np.asarray(costs) + lost / mean_use) / (weight + known[:, None])
    leaders = blended.argmin(axis=1)
    return Decision(o, "", asked, given[np.arange(len(o.y)), leaders], name), leaders
