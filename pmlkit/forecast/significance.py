# SPDX-License-Identifier: Apache-2.0
"""The evidence of a few programs: exact tests on pairs, and intervals by resampling programs.

Results vary over programs, and there are few of them; windows of one program are not independent.
All functions take one number per program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from pmlkit.resampling import bootstrap

if TYPE_CHECKING:
    from pmlkit.types import Floats, Json

__all__ = ["holm", "paired_ratio", "permutation", "sign"]

MOST_EXACT = 16  # pairs whose signs are all enumerated: 65,536 ways
DRAWS = 20_000


def sign(differences: Floats) -> float:
    """Return the two-sided p of the sign test (Arbuthnot); ties are omitted.

    With n pairs it is 2 / 2**n or more.
    """
    differences = np.asarray(differences, float)
    below, above = int((differences < 0).sum()), int((differences > 0).sum())
    n = below + above
    return float(min(2 * binom.cdf(min(below, above), n, 0.5), 1.0)) if n else 1.0


def permutation(differences: Floats) -> float:
    """Return the two-sided p of Fisher's test of the mean, by flipping the signs of differences.

    Under the hypothesis, each difference is equally likely to have the other sign (Fisher 1935,
    "The Design of Experiments"). For up to 16 pairs, all 2**n sign patterns are computed, so p is
    exact, and 2 / 2**n or more. For more pairs, 20,000 patterns are drawn.
    """
    differences = np.asarray(differences, float)
    n = len(differences)
    if n == 0:
        return 1.0
    if n <= MOST_EXACT:
        flips = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
    else:
        flips = np.random.default_rng(0).choice([-1, 1], (DRAWS, n))
        flips[0] = 1  # the observed signs are one of the ways
    means = np.abs(flips @ differences)
    return float(np.mean(means >= abs(differences.sum()) * (1 - 1e-12)))


def paired_ratio(ours: Floats, theirs: Floats) -> Json:
    """Compare two costs, program by program.

    Parameters
    ----------
    ours, theirs : array of float, shape (programs,)
        Above 0; pairs with another value are omitted.

    Returns
    -------
    dict
        ``programs``. ``lower``: number of programs on which ours is lower. ``ratio``: geometric
        mean of ours over theirs, with ``low`` and ``high`` of `bootstrap`. ``p_sign`` and
        ``p_permutation`` (of the logarithms). ``least_p``: the smallest p that so many programs can
        give.
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0) & (theirs > 0)
    logs = np.log(ours[known] / theirs[known])
    low, high = np.exp(bootstrap(logs))
    return {
        "programs": len(logs),
        "lower": int((logs < 0).sum()),
        "ratio": float(np.exp(logs.mean())) if len(logs) else np.nan,
        "low": float(low),
        "high": float(high),
        "p_sign": sign(logs),
        "p_permutation": permutation(logs),
        "least_p": float(min(2.0 ** (1 - len(logs)), 1.0)),
    }


def holm(p: Floats) -> Floats:
    """Return the p values of several tests, corrected for multiple testing (Holm 1979)."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    result = np.empty(len(p))
    result[order] = np.minimum(raised, 1.0)
    return result
