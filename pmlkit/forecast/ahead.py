# SPDX-License-Identifier: Apache-2.0
"""Forecast one log from the end of its last window: `pmlkit forecast TRACE`.

The forecast is for what the log measures: what is used, if its trace has the accesses or a sample
of them; otherwise only what is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import progress
from pmlkit.errors import PmlkitError, argument
from pmlkit.forecast import store, trial
from pmlkit.forecast.analogs import make
from pmlkit.forecast.compose import load_traces, long_enough, sample
from pmlkit.forecast.features import change_points
from pmlkit.forecast.log import read, window_ns
from pmlkit.forecast.peaks import exceeds
from pmlkit.recordings import name_of, open_trace
from pmlkit.trace.schema import MIB_PAGES
from pmlkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmlkit.forecast.analogs import Pooled
    from pmlkit.forecast.forecaster import Forecaster, Sample
    from pmlkit.forecast.log import Log
    from pmlkit.types import Json, PathLike

__all__ = ["answer", "forecast", "lines", "settings_of"]


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
    rate: float = 0.05,
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
        A model from `store.save`; default: one is trained on the bundled recordings of other
        programs.
    allocation_mib : float, optional
        Also report how often this was exceeded within the horizon, in the log's own past.
    rate : float
        Allowed share of windows with too little memory.

    Returns
    -------
    dict
        ``log``, ``composed``, ``inputs``, ``measures`` (what is forecast), ``lost`` (a note on lost
        entries, or empty), ``window_s``.
        ``from_s``: the end of the last window. ``for_s``, ``target``. ``seen_mib``: in the last
        window, according to the inputs. ``quantiles_mib``: by quantile. ``trained_on``, ``data``:
        digests of the training data. ``changes_s``: change points so far. ``recommended``
        (`trial.recommend`): without a saved model, for the target ``at``. With an allocation:
        ``allocation_mib``, ``exceeds`` (a share of the log's own windows) and ``exceeds_windows``
        (their number). ``summary``: see `answer`.

    Raises
    ------
    PmlkitError
        If the log is too short, or there is no training data.
    """
    present = sample(long_enough(log, window, horizon), window)
    samples, data = ([], {}) if saved else training_of(log, window)
    if saved:
        loaded = store.load(saved)
        model, data, measures = loaded.forecaster, loaded.data, loaded.measures
    else:
        model, measures = make(learner, horizon, target).fit(samples), log.measures
    end_s = float(present.table["t_ns"].iloc[-1] / 1e9)
    result: Json = {
        "log": log.name,
        "composed": log.composed,
        "inputs": log.inputs,
        "measures": measures,
        "lost": log.lost,
        "window_s": present.window_s,
        "from_s": end_s,
        "for_s": end_s + horizon * present.window_s,
        "target": target,
        "seen_mib": float(present.table["pages"].iloc[-1] / MIB_PAGES),
        "quantiles_mib": _last_quantiles(model, present),
        "trained_on": list(data),
        "data": data,
        "changes_s": _changes(present),
    }
    if not saved and target == "at":
        result["recommended"] = trial.recommend(present, samples, learner, model, rate)
    if allocation_mib is not None:
        result |= {"allocation_mib": allocation_mib, **_exceeded(present, allocation_mib, horizon)}
    return {**result, "summary": answer(result, rate)}


def answer(result: Json, rate: float = 0.05) -> Json:
    """Answer how much memory to give, and state the evidence.

    Parameters
    ----------
    result : dict
        As returned by `forecast`.
    rate : float
        Share of windows that may have too little.

    Returns
    -------
    dict
        ``answer`` (a sentence), ``give_mib``, ``by`` (what decides), ``at_s``, ``asked`` (`rate`),
        ``past_windows`` and the share of them with too little, ``past_short`` (None if unknown).
    """
    recommended = result.get("recommended")
    if recommended is None:
        tau, mib = _quantile_for(result["quantiles_mib"], 1 - rate)
        source, windows, short = f"the {tau:g} quantile of the forecast", 0, None
    else:
        mib, windows = recommended["mib"], recommended["windows"]
        source = f"the rule '{recommended['decider']}'"
        short = recommended["violations"] if windows else None
    name = name_of(result["log"])
    when = "until" if result["target"] == "peak" else "at"
    asked = format_share(rate)
    past = f"{format_share(short or 0)} of its {windows:,} past windows had too little"
    evidence = (
        f"{past} (asked: {asked})" if windows else f"its past cannot confirm the requested {asked}"
    )
    written = " for what is written (reads come on top)"
    scope = "" if result["measures"] == "used" else written
    text = (
        f"Give {name} {mib:.2f} MiB {when} {result['for_s']:.1f} s{scope}, in windows of "
        f"T = {result['window_s']:g} s. This is from {source}: {evidence}."
    )
    if result["lost"]:
        text += f" Note: {result['lost']}."
    return {
        "answer": text, "give_mib": mib, "by": source, "at_s": result["for_s"], "asked": rate,
        "past_windows": windows, "past_short": short,
    }  # fmt: skip


def _quantile_for(quantiles: Mapping[str, float], share: float) -> tuple[float, float]:
    """Return the lowest quantile that is not below a share, else the highest, with its size."""
    known = sorted((float(tau), mib) for tau, mib in quantiles.items())
    return next((pair for pair in known if pair[0] >= share - 1e-9), known[-1])


def _last_quantiles(model: Forecaster | Pooled, present: Sample) -> dict[str, float]:
    """Return the quantiles in MiB that a model forecasts from the end of a log."""
    mib = model.predict(present)[-1] / MIB_PAGES
    return {f"{tau:g}": float(q) for tau, q in zip(model.taus_, mib, strict=True)}


def _changes(present: Sample) -> list[float]:
    """Return the times at which the segments of a log begin, s."""
    starts_s = present.table["t_ns"].to_numpy() / 1e9 - present.window_s
    return [float(starts_s[change]) for change in change_points(np.log1p(present.table["pages"]))]


def training_of(log: Log, window: str | int) -> tuple[list[Sample], dict[str, str]]:
    """Return samples of other programs with the same quantity, and their digests by name.

    Raises
    ------
    PmlkitError
        If there are none.
    """
    if log.measures == "written":
        others = _others(log)
        data = {other.name: other.digest() for other in others}
        return [sample(other, window) for other in others], data
    tables = trial.bundled()
    window_s = window_ns(log, window) / 1e9
    fit = [s for s in tables if s.inputs == log.inputs and s.program != log.program]
    if not [s for s in fit if s.window_s == window_s]:
        lengths = ", ".join(f"{s:g} s" for s in sorted({s.window_s for s in fit})) or "none"
        raise PmlkitError(
            f"the bundled data does not show what other programs use in windows of {window_s:g} s",
            f"set {argument('window')} ({lengths}), or give a model of `pmlkit forecast "
            f"--save` by {argument('model')}",
        )
    return fit, {s.name: trial.digest(s) for s in fit}


def _others(log: Log) -> list[Log]:
    """Read the bundled recordings of other programs."""
    recordings = [
        read(open_trace(path)) for path in progress.over(list(load_traces()), "traces", str)
    ]
    others = [other for other in recordings if other.program != log.program]
    if not others:
        raise PmlkitError(
            f"there is no recording of another program than {log.program} to train on",
            f"restore data/, or give a model of `pmlkit forecast --save` by {argument('model')}",
        )
    return others


SEEN = {
    "pml": "written, by PML's log,",
    "pml+sample": "used, by PML's log and a sample of accessed flags,",
    "sample": "used, by a sample of accessed flags,",
}


def _exceeded(present: Sample, allocation_mib: float, horizon: int) -> Json:
    """Return how often the next h windows used more than an allocation, in the log's own past.

    The classifier of `peaks` has no part in it: its alarms were tried at one allocation only, p90
    of the past, and its probability at any other one was never held against an outcome.
    """
    allocation = np.full(len(present.table), allocation_mib * MIB_PAGES, float)
    over = exceeds(present.table, allocation, horizon)
    over = over[np.isfinite(over)]
    return {"exceeds": float(over.mean()), "exceeds_windows": len(over)}


def lines(result: Json) -> list[str]:
    """Return the details of the answer of `forecast`, as lines of text."""
    name = f"{Path(result['log']).name}{' (composed)' if result['composed'] else ''}"
    what = SEEN[result["inputs"]]
    when = "at most, until" if result["target"] == "peak" else "at"
    text = [
        f"{name}: {result['seen_mib']:.2f} MiB {what} in the {result['window_s']:g} s before "
        f"{result['from_s']:.1f} s",
        f"{result['measures']} {when} {result['for_s']:.1f} s, by a model of "
        f"{', '.join(result['trained_on'])}:",
    ]
    for tau, mib in result["quantiles_mib"].items():
        text.append(f"  {format_share(float(tau)):>6}  {mib:9.2f} MiB")
    if "exceeds" in result:
        text.append(
            f"more than {result['allocation_mib']} MiB within the same time: after "
            f"{format_share(result['exceeds'])} of the {result['exceeds_windows']} windows so far"
        )
    if "recommended" in result:
        text += _recommended(result["recommended"], result["measures"])
    changes = result["changes_s"]
    last = f", the last at {changes[-1]:.1f} s" if changes else ""
    return [*text, f"change points so far: {len(changes)}{last}"]


def _recommended(recommended: Json, measures: str) -> list[str]:
    """Return the recommendation as lines: the decider, and its costs so far."""
    asked = f"{format_share(recommended['asked'])} of the windows may have more {measures}"
    text = [f"recommended: {recommended['mib']:.2f} MiB, by {recommended['decider']} ({asked})"]
    if not recommended["windows"]:
        return [*text, "  decided on recorded programs: PML alone does not show reads"]
    text.append(f"  in {recommended['windows']} windows of its past: {_cost(recommended)}")
    model = recommended["model"]
    if model["decider"] != recommended["decider"]:
        text.append(f"  {model['decider']}: {model['mib']:.2f} MiB; {_cost(model)}")
    return text


def _cost(recommended: Json) -> str:
    runs = f" (the longest run {recommended['longest']})" if recommended["violations"] else ""
    return (
        f"too little in {format_share(recommended['violations'])}{runs}, idle "
        f"{format_share(recommended['idle'])} of the use"
    )
