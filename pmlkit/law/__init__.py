# SPDX-License-Identifier: Apache-2.0
"""The law of a technique's error: staleness, sampling, blindness, each of the trace's own curves.

A technique looks each ``tau = T / looks`` and reports what the last `looks` looks have found. At a
look at time u it has ``V(u, T)``, the working set of what it can see. Until the next look its
answer stands: at time t it is as old as ``a = t - u``, from 0 up to ``tau``. So its error is

    V(t - a) - W(t) + e  =  [V(t - a) - V(t)]  +  [V(t) - W(t)]  +  e
                              staleness            blindness       sampling

with W(t) = W(t, T) of all accesses. Every part is a mean absolute error, as a share of mean W:

staleness
    The mean over ages of the drift ``D(a) = mean |V(t - a) - V(t)|``, which is the trace's own
    turnover curve. Where the looks fall is not known, so every age below `tau` is as likely:
    ``S = 1/tau * integral of D(a) da from 0 to tau``. Where D is nearly straight, ``D(a) = d a``,
    that is ``d T / (2 looks)``: twice the looks halve it.
sampling
    Of M frames n are drawn, and p = V / M of all are in use. The estimate is M / n times a
    hypergeometric count. Its relative standard error is ``sqrt((1 - p) / (p n))``, times
    ``sqrt((M - n) / (M - 1))`` as no frame is drawn twice. The mean absolute
    deviation is ``sqrt(2 / pi)`` of that, or for small counts De Moivre's closed form.
blindness
    ``V - W``: a log of writes misses the pages only read; what counts a page twice has too many.
    `Blindness` has both as the exact difference of the sets.

Together: a bias adds, and noise that is independent of it does not. The expected error is the mean
over times and ages of ``E |x + e|``: x is what staleness and blindness leave then, e is normal:
`noise.mean_abs`, the mean of a folded normal. `noise.combined` makes the same of the three numbers
alone: independent parts in quadrature, then folded around the bias. No parameter is fitted.

The interval of a prediction is over what the law does not know: where the looks fall, and which
frames are drawn. It is not about another recording.

Modules
-------
noise       means of absolute errors: of a folded normal, of a sample's count
curves      W of each channel of a recording at each time, its drift, and its mean
parts       what each technique sees, how often it looks, how many frames it watches, and the
            events of a look, as counted by the curves
seen        what a technique would report if it looked at each instant, and how draws scatter
predict     a technique's error and cost, predicted
advise      which technique within a budget, and how big the VM must be
"""

from pmlkit.law.curves import Curves
from pmlkit.law.parts import OUTSIDE, STATED, Parts, parts_of
from pmlkit.law.predict import Prediction, predict

__all__ = ["OUTSIDE", "STATED", "Curves", "Parts", "Prediction", "parts_of", "predict"]
