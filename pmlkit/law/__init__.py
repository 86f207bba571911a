# SPDX-License-Identifier: Apache-2.0
"""The law of a technique's error: staleness, sampling and blindness, from the trace's own curves.

A technique looks once every ``tau = T / looks`` and reports the pages that the last `looks` looks
found. A look at time u gives ``V(u, T)``, the working set of the pages that the technique can see.
Until the next look this answer stays: at time t its age is ``a = t - u``, from 0 up to ``tau``. Its
error is

    V(t - a) - W(t) + e  =  [V(t - a) - V(t)]  +  [V(t) - W(t)]  +  e
                              staleness            blindness       sampling

with W(t) = W(t, T) of all accesses. Each part is a mean absolute error, as a share of mean W:

staleness
    The mean over ages of the drift ``D(a) = mean |V(t - a) - V(t)|``, the trace's own turnover
    curve. The times of the looks are unknown, so every age below `tau` is equally likely: ``S =
    1/tau * integral of D(a) da from 0 to tau``. Where D is nearly straight, ``D(a) = d a``, this is
    ``d T / (2 looks)``: twice as many looks halve it.
sampling
    From M frames, n are drawn; p = V / M of all frames are in use. The estimate is M / n times a
    hypergeometric count. Its relative standard error is ``sqrt((1 - p) / (p n))``, times
    ``sqrt((M - n) / (M - 1))`` because no frame is drawn twice. The mean absolute deviation is
    ``sqrt(2 / pi)`` of that; for small counts it is De Moivre's closed form.
blindness
    ``V - W``: a log of writes misses pages that are only read; a technique that counts a page twice
    reports too many. `Blindness` contains both, as the exact difference of the sets.

Combination: a bias adds to the error, while noise independent of it does not. The expected error is
the mean of ``E |x + e|`` over times and ages. Here x is the remainder after staleness and
blindness, and e is normal. `noise.mean_abs` gives the mean of a folded normal. `noise.combined`
computes the same from the three numbers alone: independent parts in quadrature, then folded around
the bias. No parameter is fitted.

The interval of a prediction covers the unknown times of looks and the random draws of frames. It
does not cover another recording.

Modules
-------
noise       means of absolute errors: of a folded normal, of a sample's count
curves      W of each channel of a recording at each time, its drift, and its mean
parts       what each technique sees, how often it looks, how many frames it watches, and the
            events of a look, as counted by the curves
looks       what a technique sees, how it looks, and the base of rules for what it reports
rules       the rules of techniques that do not report the pages of T: plateaus, queues, scanners
regions     the same of DAMON and Telescope
seen        what a technique would report if it looked at each instant, and the scatter of draws
predict     a technique's error and cost, predicted
size        how big the VM must be: percentiles of W, how sure, what changes them
advise      the best technique within a budget, and the memory that the VM needs
advice      the answer of `advise`: words, and a card
"""

from pmlkit.law.curves import Curves
from pmlkit.law.parts import OUTSIDE, RULED, STATED, Parts, parts_of
from pmlkit.law.predict import Prediction, predict

__all__ = ["OUTSIDE", "RULED", "STATED", "Curves", "Parts", "Prediction", "parts_of", "predict"]
