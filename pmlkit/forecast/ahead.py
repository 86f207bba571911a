# SPDX-License-Identifier: Apache-2.0
"""Forecast one log from the end of its last window: `pmlkit forecast TRACE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError
from pmlkit.forecast import store
from pmlkit.forecast.analogs import make
from pmlkit.forecast.compose import load_traces, long_enough, sample
from pmlkit.forecast.features import change_points
from pmlkit.forecast.log import read
from pmlkit.forecast.metrics import MIB_PAGES
from pmlkit.forecast.peaks import PeakForecaster
from pmlkit.recordings import open_trace

if TYPE_CHECKING:
    from pmlkit.forecast.analogs import Pooled
    from pmlkit.forecast.forecaster import Forecaster, Sample
    from pmlkit.forecast.log import Log
    from pmlkit.types import Json, PathLike

__all__ = ["forecast", "lines", "settings_of"]


def settings_of(path: PathLike) -> Json:
    """Return window, horizon and target of a saved model, as arguments of `forecast`."""
    saved = store.load(path)
    model = saved.forecaster
    return {"window": saved.window, "horizon": model.horizon, "target": model.target}


def forecast(
    log: Log,
    window: str | int = "500ms",
    horizon: int = 4,
    target: str = "at",
    learner: str = "pooled",
    saved: PathLike | None = None,
    allocation_mib: float | None = None,
) -> Json:
    """Forecast from a log's last window.

    Parameters
    ----------
    log : Log
    window, horizon, target
        As in `study.Study`.
    learner : str
        One of `analogs.LEARNERS`.
    saved : path-like, optional
        A model of `store.save`; default: one is trained on the bundled recordings of other
        programs.
    allocation_mib : float, optional
        Also estimate how probable it is that this is exceeded within the horizon.

    Returns
    -------
    dict
        ``log``, ``composed``, ``window_s``, ``from_s`` (the end of the last window), ``for_s``,
        ``target``, ``used_mib`` (in the last window), ``quantiles_mib`` (by quantile),
        ``trained_on``, ``data`` (digests of the logs of the training), ``changes_s`` (change points
        so far) and, with an allocation, ``allocation_mib`` and ``exceeds`` (a probability).

    Raises
    ------
    PmlkitError
        If the log is too short, or there is nothing to train on.
    """
    present = sample(long_enough(log, window, horizon), window)
    others = [] if saved and allocation_mib is None else _others(log)
    samples = [sample(other, window) for other in others]
    if saved:
        loaded = store.load(saved)
        model, data = loaded.forecaster, loaded.data
    else:
        model = make(learner, horizon, target).fit(samples)
        data = {other.name: other.digest() for other in others}
    end_s = float(present.table["t_ns"].iloc[-1] / 1e9)
    result: Json = {
        "log": log.name,
        "composed": log.composed,
        "window_s": present.window_s,
        "from_s": end_s,
        "for_s": end_s + horizon * present.window_s,
        "target": target,
        "used_mib": float(present.table["pages"].iloc[-1] / MIB_PAGES),
        "quantiles_mib": _last_quantiles(model, present),
        "trained_on": list(data),
        "data": data,
        "changes_s": _changes(present),
    }
    if allocation_mib is not None:
        allocation = np.full(len(present.table), allocation_mib * MIB_PAGES, float)
        peak = PeakForecaster(horizon).fit(samples).predict(present, allocation)[-1]
        result |= {"allocation_mib": allocation_mib, "exceeds": float(peak)}
    return result


def _last_quantiles(model: Forecaster | Pooled, present: Sample) -> dict[str, float]:
    """Return the quantiles in MiB that a model forecasts from the end of a log."""
    mib = model.predict(present)[-1] / MIB_PAGES
    return {f"{tau:g}": float(q) for tau, q in zip(model.taus_, mib, strict=True)}


def _changes(present: Sample) -> list[float]:
    """Return when the segments of a log begin, s."""
    starts_s = present.table["t_ns"].to_numpy() / 1e9 - present.window_s
    return [float(starts_s[change]) for change in change_points(np.log1p(present.table["pages"]))]


def _others(log: Log) -> list[Log]:
    """Read the bundled recordings of other programs."""
    recordings = [read(open_trace(path)) for path in load_traces()]
    others = [other for other in recordings if other.program != log.program]
    if not others:
        raise PmlkitError(
            f"there is no recording of another program than {log.program} to train on",
            "restore data/, or give a model of `pmlkit forecast --save` by --model",
        )
    return others


def lines(result: Json) -> list[str]:
    """Return the result of `forecast` as lines of text."""
    target = "the largest working set until" if result["target"] == "peak" else "the working set at"
    name = f"{Path(result['log']).name}{' (composed)' if result['composed'] else ''}"
    text = [
        f"{name}: {result['used_mib']:.2f} MiB logged in the {result['window_s']:g} s before "
        f"{result['from_s']:.1f} s",
        f"{target} {result['for_s']:.1f} s, by a model of {', '.join(result['trained_on'])}:",
    ]
    for tau, mib in result["quantiles_mib"].items():
        text.append(f"  {100 * float(tau):5.1f} %  {mib:9.2f} MiB")
    if "exceeds" in result:
        percent = 100 * result["exceeds"]
        text.append(
            f"more than {result['allocation_mib']} MiB until then: {percent:.1f} % probable"
        )
    changes = result["changes_s"]
    last = f", the last at {changes[-1]:.1f} s" if changes else ""
    return [*text, f"change points so far: {len(changes)}{last}"]
