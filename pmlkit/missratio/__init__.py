# SPDX-License-Identifier: Apache-2.0
"""Miss-ratio curves: exact LRU, SHARDS (a sample of the pages), AET (re-use times).

Each estimator has its own module, even if it is short.

Modules
-------
curves     one function per method for a trace; curves over time
curve      `MissRatioCurve`: sizes, miss ratios, errors between curves
distances  exact LRU stack distances of a stream
inversions exact LRU stack distances of short traces
sampled    SHARDS, fixed rate and fixed size
eviction   AET
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.missratio.curves import (
        METHODS,
        MissRatioCurve,
        aet,
        exact,
        of_trace,
        over_time,
        shards,
        stack_distances,
    )

__all__ = [
    "METHODS",
    "MissRatioCurve",
    "aet",
    "exact",
    "of_trace",
    "over_time",
    "shards",
    "stack_distances",
]

__getattr__ = lazy("pmlkit.missratio", dict.fromkeys(__all__, "missratio.curves"))
