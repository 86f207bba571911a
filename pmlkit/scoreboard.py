# SPDX-License-Identifier: Apache-2.0
"""The score of one technique over many recordings, as tables and a page that can be compared.

A technique is somebody's class (`pmlkit.techniques.protocol.Technique`), named ``module:Class``. It
is run at every setting of its two knobs, `looks` and `watched`, and at its default. Its error is
the mean absolute error over the mean W(t, T), its cost the share of instructions. At a budget, one
setting stands for all programs: the one of least mean error whose mean cost is within the budget.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import techniques
from pmlkit.errors import ClocksDiffer, PmlkitError, UsageError
from pmlkit.files import whole
from pmlkit.forecast import significance
from pmlkit.recordings import open_trace
from pmlkit.techniques import scores
from pmlkit.techniques.protocol import Technique
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Json, PathLike

__all__ = ["BUDGETS", "LOOKS", "WATCHED", "WINDOWS", "Score", "best", "compare", "load", "score"]

WINDOWS = ("100ms", "1s", "5s")
LOOKS = (1, 2, 4, 10)
WATCHED = (64, 256, 1024, 4096, 16384)
BUDGETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
SEEDS = 3  # of a technique that draws random numbers
_KEYS = ["window", "setting"]
_ROWS, _SETTINGS, _FACTS, _PAGE = "scores.csv", "settings.csv", "score.json", "README.md"


@dataclass(frozen=True)
class Score:
    """What a technique does at each setting, on each recording.

    Attributes
    ----------
    technique : str
        Its title.
    rows : DataFrame
        ``program``, ``window`` (T), ``setting`` (``looks=4 watched=256``, or ``default``), ``mae``
        (share of the mean W), ``bias``, ``overhead`` (share of the instructions; NaN where the
        recording's clock does not say).
    chosen : DataFrame, optional
        The settings that stand for the technique, chosen on other programs beforehand: `best` of
        their score. Default: chosen on these programs.
    """

    technique: str
    rows: pd.DataFrame
    chosen: pd.DataFrame | None = None

    @property
    def programs(self) -> list[str]:
        return list(dict.fromkeys(self.rows["program"]))

    @property
    def settings(self) -> pd.DataFrame:
        """The setting for each T and budget, as of `best`."""
        return best(self) if self.chosen is None else self.chosen

    @property
    def chosen_on(self) -> str:
        """Where the settings were chosen, in words."""
        return "these same programs" if self.chosen is None else "other programs, beforehand"


def load(name: str) -> type[Technique]:
    """Import a technique's class by ``module:Class``; modules of the working directory count.

    Raises
    ------
    UsageError
        If there is no such module or class, or the class is no technique.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"{name!r} names no class", "write it as module:Class")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name} cannot be imported: {error}", "see where Python looks") from error
    if not (isinstance(found, type) and issubclass(found, Technique)):
        raise UsageError(f"{name} is no technique", "derive it from pmlkit.techniques.Technique")
    return found


def settings(technique: type[Technique]) -> dict[str, Technique]:
    """Return the technique at its default and at every setting of the knobs that it has."""
    made = {"default": technique()}
    values = {"looks": LOOKS, "watched": WATCHED}
    knobs = technique.knobs()
    for point in product(*(values[knob] for knob in knobs)):
        given = dict(zip(knobs, point, strict=True))
        name = " ".join(f"{knob}={value}" for knob, value in given.items())
        if name:
            made[name] = technique(**given)
    return made


def score(
    technique: type[Technique],
    traces: Sequence[PathLike],
    windows: Sequence[str] = WINDOWS,
    progress: Callable[[str, str], object] | None = None,
) -> Score:
    """Run a technique at all its settings on recordings.

    Parameters
    ----------
    progress : callable, optional
        Called with (program, T) as each is done.

    Raises
    ------
    NeedsError
        If a recording lacks what the technique looks at.
    ResolutionError
        If a T is shorter than a recording's rounds.
    """
    rows = []
    for path in traces:
        recorded = techniques.Recorded.of(open_trace(path))
        for window in windows:
            rows += list(_rows(technique, recorded, window))
            if progress:
                progress(recorded.name, window)
    return Score(technique.title, pd.DataFrame(rows))


def _rows(
    technique: type[Technique], recorded: Recorded, window: str
) -> Iterator[dict[str, object]]:
    truth = scores.truth(recorded, parse_duration_ns(window))
    for name, one in settings(technique).items():
        runs = [
            techniques.run(one, recorded, window, seed=seed)
            for seed in range(SEEDS if technique.random else 1)
        ]
        found = pd.DataFrame([scores.accuracy(run.estimates, truth) for run in runs])
        try:
            overhead = float(np.mean([run.overhead for run in runs]))
        except ClocksDiffer:
            overhead = float("nan")
        labels = {"program": recorded.name, "window": window, "setting": name}
        yield {**labels, **found[["mae", "bias"]].mean().to_dict(), "overhead": overhead}


def best(score: Score, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Choose a setting for each T and budget: of least mean error, of a mean cost within it.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``setting``. A budget that no setting meets has no row.
    """
    means = score.rows.groupby(_KEYS, sort=False)[["mae", "overhead"]].mean().reset_index()
    chosen = []
    for window, budget in product(means["window"].unique(), budgets):
        within = means[(means["window"] == window) & (means["overhead"] <= budget)]
        if within["mae"].notna().any():
            setting = within.loc[within["mae"].idxmin(), "setting"]
            chosen.append({"window": window, "budget": budget, "setting": setting})
    return pd.DataFrame(chosen, columns=["window", "budget", "setting"])


def standing(score: Score) -> pd.DataFrame:
    """Return what a score's settings do: means over programs with 95 % intervals.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``setting``, ``programs``, ``mae``, ``mae_low``, ``mae_high`` (of a
        bootstrap over programs), ``worst`` (the largest), ``bias``, ``overhead``.
    """
    rows = []
    for choice in score.settings.itertuples():
        part = _of(score, choice.window, choice.setting)
        mae = part["mae"].to_numpy(float)
        low, high = significance.bootstrap(mae)
        labels = {"window": choice.window, "budget": choice.budget, "setting": choice.setting}
        errors = {"mae": float(np.mean(mae)), "mae_low": low, "mae_high": high, "worst": max(mae)}
        means = {name: float(part[name].mean()) for name in ("bias", "overhead")}
        rows.append({**labels, "programs": len(part), **errors, **means})
    return pd.DataFrame(rows)


def compare(ours: Score, theirs: Score) -> pd.DataFrame:
    """Compare two techniques at equal budgets, program by program, each at its settings.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``programs``, ``difference`` (mean of our error less theirs),
        ``low``, ``high`` (95 %, bootstrap over programs), ``p`` (exact test by flipping signs).
    """
    rows = []
    both = ours.settings.merge(theirs.settings, on=["window", "budget"], suffixes=("", "_theirs"))
    for choice in both.itertuples():
        a = _of(ours, choice.window, choice.setting).set_index("program")["mae"]
        b = _of(theirs, choice.window, choice.setting_theirs).set_index("program")["mae"]
        difference = (a - b).dropna().to_numpy()
        low, high = significance.bootstrap(difference)
        rows.append(
            {
                "window": choice.window,
                "budget": choice.budget,
                "programs": len(difference),
                "difference": float(np.mean(difference)) if len(difference) else float("nan"),
                "low": low,
                "high": high,
                "p": significance.permutation(difference),
            }
        )
    return pd.DataFrame(rows)


def _of(score: Score, window: object, setting: object) -> pd.DataFrame:
    return score.rows[(score.rows["window"] == window) & (score.rows["setting"] == setting)]


# ------------------------------------------------------------------------------
# Folders of results.


def save(score: Score, folder: PathLike) -> Path:
    """Write a score to a folder: two tables, ``score.json``, and a page, which is returned."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in ((_ROWS, score.rows), (_SETTINGS, score.settings)):
        with whole(folder / name, overwrite=True) as partial:
            table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
    facts = {"technique": score.technique, "chosen_on": score.chosen_on}
    with whole(folder / _FACTS, overwrite=True) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n")
    with whole(folder / _PAGE, overwrite=True) as partial:
        partial.write_text(page(score))
    return folder / _PAGE


def read(folder: PathLike) -> Score:
    """Read a score that `save` wrote; its settings are those that were written.

    Raises
    ------
    PmlkitError
        If the folder holds none.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / _FACTS).read_text())
        tables = (pd.read_csv(folder / name) for name in (_ROWS, _SETTINGS))
        return Score(facts["technique"], *tables)
    except (OSError, ValueError, KeyError) as error:
        hint = "`pmlkit corpus score` writes one"
        raise PmlkitError(f"{folder} holds no score", hint) from error


def page(score: Score) -> str:
    """Return the page of a score, Markdown."""
    head = f"""\
# {score.technique} on {len(score.programs)} programs

Error: mean absolute error over the mean W(t, T), with its 95 % interval of a bootstrap over
programs. Cost: share of the guest's instructions. For each T and budget of cost one setting stands
for all programs; it was chosen on {score.chosen_on}.

| T | budget % | setting | error % | 95 % | worst % | bias % | cost % |
|---|---|---|---|---|---|---|---|
"""
    lines = [_line(row) for row in standing(score).to_dict("records")]
    names = ", ".join(score.programs)
    return head + "".join(lines) + f"\nPrograms: {names}. Every setting is in `{_ROWS}`.\n"


def _line(row: Json) -> str:
    percent = {
        name: f"{100 * value:.3g}" for name, value in row.items() if isinstance(value, float)
    }
    cells = [
        row["window"],
        percent["budget"],
        row["setting"],
        percent["mae"],
        f"{percent['mae_low']} to {percent['mae_high']}",
        *(percent[name] for name in ("worst", "bias", "overhead")),
    ]
    return f"| {' | '.join(cells)} |\n"
