# SPDX-License-Identifier: Apache-2.0
"""What `pmlkit forecast` says of one log: from its last window on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError
from pmlkit.forecast import compose as recordings
from pmlkit.forecast import features as changes
from pmlkit.forecast import store
from pmlkit.forecast.analogs import make
from pmlkit.forecast.log import read
from pmlkit.forecast.peaks import PeakForecaster
from pmlkit.recordings import open_trace

if TYPE_CHECKING:
    from pmlkit.forecast.log import Log
    from pmlkit.types import Json, PathLike


__all__ = ["forecast", "lines", "settings_of"]

PAGES_MIB = 256


def settings_of(path: PathLike) -> Json:
    """Return window, horizon and target of a saved model, as arguments of `forecast`."""
    saved = store.load(path)
    made = saved.forecaster
    return {"window": saved.window, "horizon": made.horizon, "target": made.target}


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
        One of `pooled.LEARNERS`.
    saved : path-like, optional
        A model of `store.save`; otherwise one is trained on the bundled recordings of others.
    allocation_mib : float, optional
        Say how probable it is that this is exceeded within the horizon.

    Returns
    -------
    dict
        ``log``, ``composed``, ``window_s``, ``from_s`` (the end of the last window), ``for_s``,
        ``used_mib`` (of the last window), ``quantiles_mib`` (by quantile), ``trained_on``,
        ``data`` (digests of that), ``changes_s`` (change points so far) and, where it was asked
        for, ``allocation_mib`` and ``exceeds`` (a probability).

    Raises
    ------
    PmlkitError
        If the log is too short, or there is nothing to train on.
    """
    one = recordings.sample(recordings.long_enough(log, window, horizon), window)
    others = [] if saved and allocation_mib is None else _others(log)
    samples = [recordings.sample(other, window) for other in others]
    if saved:
        loaded = store.load(saved)
        model, data = loaded.forecaster, loaded.data
    else:
        model = make(learner, horizon, target).fit(samples)
        data = {other.name: other.digest() for other in others}
    ends = one.table["t_ns"].to_numpy() / 1e9
    points = changes.points(np.log1p(one.table["pages"]))
    quantiles = model.predict(one)[-1] / PAGES_MIB
    found = {
        "log": log.name,
        "composed": log.composed,
        "window_s": one.window_s,
        "from_s": float(ends[-1]),
        "for_s": float(ends[-1] + horizon * one.window_s),
        "target": target,
        "used_mib": float(one.table["pages"].iloc[-1] / PAGES_MIB),
        "quantiles_mib": {
            f"{tau:g}": float(q) for tau, q in zip(model.taus_, quantiles, strict=True)
        },
        "trained_on": list(data),
        "data": data,
        "changes_s": [float(ends[point] - one.window_s) for point in points],
    }
    if allocation_mib is not None:
        allocation = np.full(len(one.table), allocation_mib * PAGES_MIB, float)
        peak = PeakForecaster(horizon).fit(samples).predict(one, allocation)[-1]
        found |= {"allocation_mib": allocation_mib, "exceeds": float(peak)}
    return found


def _others(log: Log) -> list[Log]:
    """Read the bundled recordings of other programs."""
    found = [read(open_trace(path)) for path in recordings.load_traces()]
    others = [other for other in found if other.program != log.program]
    if not others:
        raise PmlkitError(
            f"there is no recording of another program than {log.program} to train on",
            "restore data/, or give a model of `pmlkit forecast --save` by --model",
        )
    return others


def lines(found: Json) -> list[str]:
    """Say it as people read it: a list of lines."""
    what = "the largest working set until" if found["target"] == "peak" else "the working set at"
    named = f"{Path(found['log']).name}{' (composed)' if found['composed'] else ''}"
    text = [
        f"{named}: {found['used_mib']:.2f} MiB logged in the {found['window_s']:g} s before "
        f"{found['from_s']:.1f} s",
        f"{what} {found['for_s']:.1f} s, by a model of {', '.join(found['trained_on'])}:",
    ]
    text += [f"  {100 * float(q):5.1f} %  {mib:9.2f} MiB" for q, mib in
             found["quantiles_mib"].items()]  # fmt: skip
    if "exceeds" in found:
        share = 100 * found["exceeds"]
        text.append(f"more than {found['allocation_mib']} MiB until then: {share:.1f} % probable")
    last = f", the last at {found['changes_s'][-1]:.1f} s" if found["changes_s"] else ""
    return [*text, f"change points so far: {len(found['changes_s'])}{last}"]
