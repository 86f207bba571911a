# SPDX-License-Identifier: Apache-2.0
"""Set the knob of a rule or model in advance: as published, on others, or by its own past.

A knob makes a decider more or less cautious: a margin, or a quantile. A knob that is set by later
outcomes compares results that no hypervisor could have had. A hypervisor can set it in three ways:

``as is``
    As the rule is published, or the quantile that a model forecasts: 1 - the allowed violations.
``others``
    The least cautious knob that satisfies the allowed violations on recorded programs other than
    this one, together.
``past``
    The same, but the past windows of this log also count, if the inputs showed their outcome. The
    weight of the others is that of `WEIGHT` windows.

`follow` sets more than a knob: it selects the decider.
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
    """The allocations of a decider for a log, with a knob that was set in advance.

    Attributes
    ----------
    outcome : Outcome
        The outcome for the log; its `allocations` are for all knobs.
    knob : str
        One of `KNOBS`, or ``""`` if none applies.
    asked : float
        Allowed violations.
    allocations : ndarray of float, shape (n,)
        Pages.
    model : str
        The outcome's name, or another one.
    """

    outcome: Outcome
    knob: str
    asked: float
    allocations: Floats
    model: str

    @property
    def name(self) -> str:
        """The decider and the way in which its knob was set."""
        return f"{self.model}, {self.knob}" if self.knob else self.model

    def row(self) -> Json:
        """Return the costs of the allocations, judged by what was used."""
        o = self.outcome
        return {
            "decider": self.name,
            "model": self.model,
            "knob": self.knob,
            "asked": self.asked,
            "log": o.sample,
            "program": o.program,
            "windows": len(o.y),
            **metrics.runs(o.y > self.allocations),
            **metrics.idle_and_short(o.y, self.allocations, self.asked),
        }


def rates(outcomes: Sequence[Outcome]) -> Floats:
    """Return the share of violations at each knob: the mean over programs, shape (knobs,)."""
    shares = pd.DataFrame([(o.y[:, None] > o.allocations).mean(axis=0) for o in outcomes])
    return shares.groupby([o.program for o in outcomes]).mean().mean().to_numpy()


def trained(rates: Floats, asked: float) -> int:
    """Return the smallest knob that satisfies the allowed violations; the last if none does."""
    keeps = np.asarray(rates) <= asked
    return int(keeps.argmax()) if keeps.any() else len(keeps) - 1


def as_is(o: Outcome, asked: float) -> int | None:
    """Return the knob of the published decider; None if it has no knob of its own."""
    if o.taus is not None:  # knobs of `backtest.allocations_by_quantile`
        return int((baselines.MARGINS < 1).sum() + np.argmin(np.abs(TAUS - (1 - asked))))
    if o.model.startswith("percentile"):
        return int(np.argmin(np.abs(baselines.QUANTILES - (1 - asked))))
    if o.model.startswith("VPA"):
        return int(np.argmin(np.abs(baselines.MARGINS - 1)))
    return None


def by_past(o: Outcome, rates: Floats, asked: float, weight: float = WEIGHT) -> Ints:
    """Return the knob at each window, from the information available at the decision.

    Parameters
    ----------
    o : Outcome
    rates : array of float, shape (knobs,)
        Share of violations on other programs.
    asked : float
    weight : float
        The weight of the others, in windows.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    missed, known = _known(o, _seen(o)[:, None] > o.allocations)
    blended = (weight * np.asarray(rates) + missed) / (weight + known[:, None])
    keeps = blended <= asked
    return np.where(keeps.any(axis=1), keeps.argmax(axis=1), o.allocations.shape[1] - 1)


def _seen(o: Outcome) -> Floats:
    return np.full(len(o.y), np.nan) if o.seen is None else o.seen


def _known(o: Outcome, values: Floats | Bools) -> tuple[Floats, Ints]:
    """Sum values over the windows whose outcome was seen at each; and count these windows.

    The outcome of window t is known from window t + horizon on.
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
    """Return a decider's allocations for a log, for each available way to set its knob."""
    knobs = {"as is": as_is(o, asked), "others": trained(rates, asked)}
    chosen: dict[str, int | Ints] = {way: knob for way, knob in knobs.items() if knob is not None}
    if np.isfinite(_seen(o)).any():
        chosen["past"] = by_past(o, rates, asked)
    rows = np.arange(len(o.y))
    return [
        Decision(o, way, asked, o.allocations[rows, knob], o.model) for way, knob in chosen.items()
    ]


def follow(
    decisions: Sequence[Decision], costs: Sequence[float], name: str, weight: float = WEIGHT
) -> tuple[Decision, Ints]:
    """At each window, follow the decider whose cost so far, on others and on this log, is lowest.

    Parameters
    ----------
    decisions : sequence of Decision
        Decisions for one log, at one rate of violations.
    costs : sequence of float
        ``cost`` of each on other programs, with the weight of `weight` windows.
    name : str
        Name of the result.

    Returns
    -------
    Decision
    leaders : ndarray of int, shape (n,)
        Index of the decision that is followed.
    """
    o, asked = decisions[0].outcome, decisions[0].asked
    allocations = np.column_stack([decision.allocations for decision in decisions])
    seen = np.nan_to_num(_seen(o))[:, None]
    losses = np.maximum(allocations - seen, 0) + (1 - asked) / asked * np.maximum(
        seen - allocations, 0
    )
    lost, known = _known(o, losses)
    used, _ = _known(o, seen)
    mean_use = np.maximum(used / np.maximum(known[:, None], 1), 1)
    blended = (weight * np.asarray(costs) + lost / mean_use) / (weight + known[:, None])
    leaders = blended.argmin(axis=1)
    return Decision(o, "", asked, allocations[np.arange(len(o.y)), leaders], name), leaders
