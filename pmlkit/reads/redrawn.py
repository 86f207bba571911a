# SPDX-License-Identifier: Apache-2.0
"""Pages of a window, estimated from a sample with a new draw in each round.

In each round the sample includes a frame with probability p = 1 / `one_in`, independent of earlier
draws. In a window of R rounds, let N_k be the number of frames that were touched in exactly k
rounds. The working set of the window is U = N_1 + ... + N_R. A frame of N_k is found in j rounds,
where j is binomial with k and p. The observed numbers are F_j, the frames that were found in
exactly j rounds.

**One round.** U = N_1, and F_1 / p is unbiased. The errors of rounds are independent: the error of
a mean over R rounds falls as the square root of R. (A fixed draw has the same frames in all rounds
and nearly the same error, which no mean reduces.)

**Several rounds.** A fixed draw counts distinct frames of its sample. Here that is not possible: a
frame that was found once may have been touched once or in every round. Two sums are unbiased
estimates of quantities that bound U. The frames found in any round, D = sum F_j, have the mean sum
N_k (1 - (1-p)^k). It is at most U (1 - (1-p)^R), the value if each frame were touched in all
rounds. The sum of all finds, S = sum j F_j, has the mean p sum k N_k. It is at least p U, the value
if no frame were touched twice. Hence

    E D / (1 - (1-p)^R)  <=  U  <=  E S / p,

and the interval lies between the lower limit of the first (Poisson, Garwood's exact limit) and the
upper limit of the second. Both count independent rare events, for which Poisson's limits are wide
enough.

There is an unbiased estimate of U itself, sum F_j (1 - (-(1-p)/p)^j). Its weights grow like
`one_in` to the power of j, so it is of little use even for two rounds. The estimate here maximises
the likelihood of F_1, F_2, ... over all N_k >= 0, by expectation maximisation. It is biased. For 20
rounds in which half of the frames are used always and half once, it is a third too low (a test
shows this). The interval does not depend on it. To sample W(T), choose rounds of length T, or a
fixed draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from pmlkit.types import Floats, Ints


__all__ = ["limits", "union"]

_STEPS = 300  # steps of the maximisation
_TIMES = 24  # values of k for windows of more rounds


def limits(count: Ints | float, confidence: float) -> tuple[Floats, Floats]:
    """Return Garwood's limits of the mean of a Poisson count; 0 is the lower one of 0."""
    tail, count = (1 - confidence) / 2, np.asarray(count)
    low = np.where(count > 0, stats.gamma.ppf(tail, np.maximum(count, 1)), 0.0)
    return low, np.asarray(stats.gamma.ppf(1 - tail, count + 1))


def union(times: Ints, n_rounds: int, one_in: int, confidence: float) -> tuple[float, float, float]:
    """Estimate how many frames were touched in a window.

    Parameters
    ----------
    times : ndarray of int64, shape (frames found,)
        For each frame found, the number of rounds of the window in which it was found: 1 or more.
    n_rounds : int
    one_in : int
    confidence : float

    Returns
    -------
    (float, float, float)
        Estimate, low and high, frames.
    """
    p, found = 1 / one_in, int(times.sum())
    least = float(limits(len(times), confidence)[0]) / (1 - (1 - p) ** n_rounds)
    low = max(least, float(len(times)))  # at least the frames that were found
    high = max(float(limits(found, confidence)[1]) / p, low)
    pages = found / p if n_rounds == 1 else _most_likely(times, n_rounds, p)
    return min(max(pages, low), high), low, high


def _most_likely(times: Ints, n_rounds: int, p: float) -> float:
    if not len(times):
        return 0.0
    counts = np.bincount(times)[1:].astype(float)
    touched = np.unique(np.geomspace(1, n_rounds, min(n_rounds, _TIMES)).round())
    found = np.arange(1, len(counts) + 1)
    # Frames by number of finds.
    chance: Floats = np.asarray(stats.binom.pmf(found[:, None], touched, p))
    seen = 1 - (1 - p) ** touched
    sizes = counts.sum() / seen / len(touched)
    for _ in range(_STEPS):
        expected = np.maximum(chance @ sizes, 1e-300)
        sizes = sizes * (chance.T @ (counts / expected)) / seen
    return float(sizes.sum())
