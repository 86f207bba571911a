# SPDX-License-Identifier: Apache-2.0
"""Forecasting the working set: fluctuations, peaks, and what a decision costs.

A `log.Log` (of a trace, or composed) becomes a causal table of features; models forecast from it
quantiles of the working set some windows ahead; a back-test on programs that they have not seen
says what deciding by them costs, beside simple rules.

log         a PML log in memory
extract     a recording's log by itself, without the accesses
compose     long logs out of recorded phases: daily, bursty, random walk
features    what is known at the end of each window
changes     change points and phases
design      scale-free rows for models, and targets
models      quantile regressors: boosted trees, linear
conformal   calibration: split, and online
forecaster  the parts joined: fit on some programs, forecast others
analogs     what a log did after moments like this one: its own past
pooled      both in one: other programs, and the log's own past
decide      from quantiles to an allocation: what costs least
baselines   simple rules: last value, maxima, means, seasonal, the Kubernetes recommender
peaks       will an allocation be exceeded?
pages       which pages belong to the working set
metrics     losses, violations, shortfall and slack, a paired test
backtest    leave one program out, rolling origin
judge       a back-test's losses, costs at equal violations, and whether they are chance
limits      how much can be forecast at all, by how far ahead
recordings  which there are, and what is composed of them
study       the whole of it, as the command and the notebook show it
ahead       what `pmlkit forecast` says of one log
store       models as files (skops), with the digest of their data
figures     forecasts, trade-off, calibration, limits
"""
