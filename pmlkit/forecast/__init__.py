# SPDX-License-Identifier: Apache-2.0
"""Forecasting the working set: quantiles, peaks, pages, and the cost of decisions.

A `log.Log` (of a trace, or composed) becomes a causal table of features. From it, models forecast
quantiles of the working set some windows ahead. A trial on unseen programs measures what decisions
by these forecasts cost, beside simple rules: of what is used, where the trace has the accesses.

log         what a hypervisor saw, in memory, in equal steps of time; and what was used
features    what is known at the end of each window; change points
metrics     losses, violations and their runs, shortfall and slack; the allocation of least
            expected cost
models      quantile regressors: boosted trees, linear
forecaster  scale-free features, a model and conformal calibration: fit on some programs, forecast
            others
analogs     quantiles of a log's own past, and the mixture with a forecaster
baselines   simple rules: last value, maxima, means, seasonal, percentiles, the Kubernetes VPA
backtest    leave one program out, rolling origin; costs at equal violations, with hindsight
knobs       how careful a rule or model is, set beforehand
trial       all deciders on unseen programs with knobs set beforehand; which one is recommended
verdict     of a trial: means with intervals, who is best, tests over programs
significance
            exact tests and intervals over few programs
peaks       will an allocation be exceeded?
pages       which pages belong to the working set
limits      how much can be forecast at all, by how far ahead
compose     long logs of recorded phases: daily, bursty, random walk
store       models as files (skops), with the digest of their data
study       all of it, as the command and the notebook show it
ahead       the forecast of one log, for `pmlkit forecast`
"""
