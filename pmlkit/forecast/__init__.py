# SPDX-License-Identifier: Apache-2.0
"""Forecasting the working set: quantiles, peaks, pages, and the cost of decisions.

A `log.Log` (from a trace, or composed) is converted to a causal table of features. From this table,
models forecast quantiles of the working set some windows ahead. A trial on unseen programs measures
the cost of decisions that use these forecasts, and compares it with simple rules. If the trace has
the accesses, the cost is for what is used.

log         the observations of a hypervisor in equal steps of time; and what was used
features    the known values at the end of each window; change points
metrics     losses, violations and their runs, shortfall and slack; the cheapest allocation
            expected cost
models      quantile regressors: boosted trees, linear
forecaster  scale-free features, a model and conformal calibration: fit on some programs, forecast
            others
analogs     quantiles of a log's own past, and the mixture with a forecaster
baselines   simple rules: last value, maxima, means, seasonal, percentiles, the Kubernetes VPA
backtest    leave one program out, rolling origin; costs at equal violations, with hindsight
knobs       the caution of a rule or model, set in advance
trial       all deciders on unseen programs with knobs set in advance; the recommended one
verdict     results of a trial: means with intervals, the best decider, tests over programs
significance
            exact tests and intervals over few programs
peaks       the probability that an allocation is exceeded
pages       the pages that belong to the working set
limits      the part that can be forecast at all, by the time ahead
compose     long logs of recorded phases: daily, bursty, random walk
store       models as files (skops), with the digest of their data
study       the whole study, as shown by the command and the notebook
ahead       the forecast of one log, for `pmlkit forecast`
"""

from pmlkit.errors import names_its_function

names_its_function("pmlkit.forecast", "pmlkit.forecast.ahead.forecast")
