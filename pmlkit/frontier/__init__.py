# SPDX-License-Identifier: Apache-2.0
"""Frontiers: the error of each technique at each cost, over all settings of its two knobs.

`sweep` varies ``looks`` (per window T) and ``watched`` (frames or regions) of every technique that
has them, for several T and recordings. It returns one row for each setting, recording and seed.
Nothing is scaled in a sweep. The technique as published has its own row, with its intervals as in
`pmlkit compare`. A technique without knobs, such as a control loop, has no other row.

For one T, a technique's curve consists of means over recordings with equal weights. At a cost c it
is the least mean error of the settings whose mean cost is at most c: the lower left staircase of
the points. Each point is one setting, not a mixture of two. The error is the mean absolute error as
a share of the mean W(t, T). The cost is a share of instructions (`Run.overhead`).

The setting of a point is chosen on the same recordings that score it, which makes the error too
low. There are three remedies. `at_settings` takes settings that other recordings chose. The
bootstrap over recordings (`RESAMPLES` with replacement, percentile intervals) chooses the setting
again in each resample, so the interval includes the choice.
``held_out`` is the error on each recording of the setting that was chosen on the others.

Modules
-------
sweeping    every technique at every setting: the plan, the sweep, and its files
grids       a technique's settings on the same recordings; resamples, and the least within a bound
chosen      settings that some recordings choose within a budget, and their errors on others
tables      errors at equal cost, costs at equal error, differences, curves, published settings
closest     the answer: the technique with the least error within each budget
"""

from pmlkit.errors import names_its_function
from pmlkit.frontier.chosen import BUDGETS, at_settings, choose, mean_error
from pmlkit.frontier.closest import Closest, closest, error_text
from pmlkit.frontier.grids import RESAMPLES
from pmlkit.frontier.sweeping import (
    LEAST_WINDOWS,
    Plan,
    of_window,
    plan,
    points,
    priced,
    read,
    sweep,
)
from pmlkit.frontier.tables import (
    STEPS_PER_DECADE,
    TARGETS,
    at_cost,
    at_error,
    caption,
    curves,
    differences,
    left_out,
    published,
)

__all__ = [
    "BUDGETS",
    "LEAST_WINDOWS",
    "RESAMPLES",
    "STEPS_PER_DECADE",
    "TARGETS",
    "Closest",
    "Plan",
    "at_cost",
    "at_error",
    "at_settings",
    "caption",
    "choose",
    "closest",
    "curves",
    "differences",
    "error_text",
    "left_out",
    "mean_error",
    "of_window",
    "plan",
    "points",
    "priced",
    "published",
    "read",
    "sweep",
]

names_its_function("pmlkit.frontier", "pmlkit.frontier.sweep")
