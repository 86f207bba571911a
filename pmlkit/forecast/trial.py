# SPDX-License-Identifier: Apache-2.0
"""The trial of forecasts, on programs that were used neither for fits nor for knobs.

`Plan` contains all that is fixed in advance. `judge` fits the models and sets every knob on the
training programs, and judges all deciders on others; `pmlkit.forecast.verdict` compares them.
`recommend` does the same for one log that continues.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress, recordings
from pmlkit.forecast import compose, features, metrics
from pmlkit.forecast.analogs import Pooled, make
from pmlkit.forecast.backtest import allocations_by_quantile, judged_outcome, rule_outcomes
from pmlkit.forecast.baselines import BASELINES
from pmlkit.forecast.forecaster import Sample
from pmlkit.forecast.knobs import Decision, decide, follow, rates
from pmlkit.forecast.log import INPUTS, read, step_of
from pmlkit.recordings import open_trace
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pmlkit.forecast.backtest import Outcome
    from pmlkit.forecast.forecaster import Forecaster
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Json, PathLike

    _Group = tuple[str, int, list[Sample], list[Sample]]

__all__ = [
    "FOLDER",
    "Plan",
    "RECOMMENDED",
    "TABLES",
    "bundled",
    "decisions",
    "digest",
    "judge",
    "read_tables",
    "recommend",
    "samples_of",
    "write_tables",
]

RECOMMENDED = "recommended"


@dataclass(frozen=True)
class Plan:
    """The settings that a trial fixes in advance.

    Attributes
    ----------
    window : str
        T.
    horizons : tuple of int
        Windows between a decision and the end of the window that it applies to.
    inputs : tuple of str
        One of `log.INPUTS`.
    asked : tuple of float
        Allowed rates of violations.
    main : float
        The rate for choices and tests.
    learners, rules : tuple of str
    primary : str
        The inputs of the primary tests, one for each horizon.
    folds : int
        Training programs are also judged, in this number of groups: each by the others.
    """

    window: str = "500ms"
    horizons: tuple[int, ...] = (1, 4)
    inputs: tuple[str, ...] = INPUTS
    asked: tuple[float, ...] = (0.02, 0.05, 0.1)
    main: float = 0.05
    learners: tuple[str, ...] = ("boosted", "pooled")
    rules: tuple[str, ...] = tuple(BASELINES)
    primary: str = "pml+sample"
    folds: int = 4


def samples_of(traces: Iterable[Trace | PathLike], plan: Plan | None = None) -> list[Sample]:
    """Compute the table of features of each trace and each of the plan's inputs."""
    plan, samples = plan or Plan(), []
    for path in progress.over(traces, "reading", str):
        trace = open_trace(path)
        step_ns = step_of(trace, plan.window, features.PARTS)
        for inputs in plan.inputs:
            log = read(trace, inputs=inputs, step_ns=step_ns)
            samples.append(
                compose.sample(
                    compose.long_enough(log, plan.window, max(plan.horizons)), plan.window
                )
            )
    return samples


def judge(
    samples: Sequence[Sample],
    training: Sequence[Sample],
    plan: Plan | None = None,
) -> pd.DataFrame:
    """Judge all deciders on samples; all fits and settings come from the training samples.

    A judged program is never used for training. If training samples are judged, `Plan.folds` groups
    of programs are formed, and each group is judged with the fits and settings of the others.

    Returns
    -------
    DataFrame
        One row per ``inputs``, ``horizon``, ``decider``, rate ``asked`` and ``log``; the rest as in
        `knobs.Decision.row`.
    """
    plan = plan or Plan()
    groups = [group for inputs in plan.inputs for group in _groups(samples, training, plan, inputs)]
    tables = []
    for inputs, horizon, others, held in progress.over(groups, "deciders", _shown):
        results = decisions(held, others, plan, horizon)
        table = pd.DataFrame([decision.row() for decision in results])
        table.insert(0, "inputs", inputs)
        table.insert(1, "horizon", horizon)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _groups(
    samples: Sequence[Sample], training: Sequence[Sample], plan: Plan, inputs: str
) -> list[_Group]:
    """Return the groups of samples that are judged together, for one kind of inputs."""
    of_inputs = [s for s in samples if s.inputs == inputs]
    known = [s for s in training if s.inputs == inputs]
    pairs = _by_training(known, of_inputs, plan.folds)
    return [(inputs, horizon, *pair) for pair in pairs for horizon in plan.horizons]


def _shown(group: _Group) -> str:
    inputs, horizon, _, held = group
    names = ", ".join(dict.fromkeys(sample.program for sample in held))
    return f"{inputs}, {horizon} windows ahead: {names}"


def _by_training(
    training: Sequence[Sample], samples: Sequence[Sample], folds: int
) -> list[tuple[list[Sample], list[Sample]]]:
    """Group samples by their training samples: those of other programs."""
    trained = sorted({s.program for s in training})
    judged = {s.program for s in samples}
    groups: list[list[str]] = [trained[fold::folds] for fold in range(min(folds, len(trained)))]
    groups.append(sorted(judged - set(trained)))
    held = [[s for s in samples if s.program in group] for group in groups]
    others = [[s for s in training if s.program not in group] for group in groups]
    return [pair for pair in zip(others, held, strict=True) if pair[1]]


def decisions(
    samples: Sequence[Sample],
    training: Sequence[Sample],
    plan: Plan,
    horizon: int,
    ahead: bool = False,
    fitted: Mapping[str, Forecaster | Pooled] | None = None,
) -> list[Decision]:
    """Return the allocations of every decider for samples with one kind of inputs.

    With `ahead`, include the last windows, whose use is unknown. Models in `fitted` are already
    fitted to the training samples.
    """
    before, outcomes = _outcomes(samples, training, plan, horizon, ahead, fitted or {})
    share = {model: rates(group) for model, group in before.items()}
    result: list[Decision] = []
    for asked in plan.asked:
        costs = _costs([d for model, group in before.items() for o in group
                        for d in decide(o, share[model], asked)])  # fmt: skip
        for of_log in outcomes:
            own = [d for o in of_log for d in decide(o, share[o.model], asked)]
            result += [
                *own,
                follow(own, [costs[d.name] for d in own], RECOMMENDED)[0],
            ]
    return result


def _costs(results: Sequence[Decision]) -> dict[str, float]:
    """Return each decider's mean cost: over logs of a program, then over programs."""
    table = pd.DataFrame([(d.name, d.outcome.program, d.row()["cost"]) for d in results])
    by_program = table.groupby([0, 1])[2].mean()
    return {str(name): float(cost) for name, cost in by_program.groupby(level=0).mean().items()}


def _outcomes(
    samples: Sequence[Sample],
    training: Sequence[Sample],
    plan: Plan,
    horizon: int,
    ahead: bool,
    fitted: Mapping[str, Forecaster | Pooled],
) -> tuple[dict[str, list[Outcome]], list[list[Outcome]]]:
    """Return the outcomes on the training samples by model, and those of each sample.

    A model's forecasts of a training sample are by a model that had not seen its program, unless
    there is only one.
    """
    known, rules = list(training), list(plan.rules)
    before = {rule: rule_outcomes(known, [rule], horizon, "at") for rule in rules}
    outcomes = [rule_outcomes([sample], rules, horizon, "at", ahead) for sample in samples]
    base: Forecaster | None = None
    for name in plan.learners:
        model = fitted.get(name) or _make(name, horizon, base).fit(known)
        base = base or (model if name == "boosted" else None)  # type: ignore[assignment]
        unseen: Sequence[Floats | None] = model.unseen_ or [None] * len(known)
        pairs = zip(known, unseen, strict=True)
        before[name] = [_outcome(name, sample, model, raw) for sample, raw in pairs]
        for sample, own in zip(samples, outcomes, strict=True):
            own.append(_outcome(name, sample, model, ahead=ahead))
    return before, outcomes


def _make(name: str, horizon: int, base: Forecaster | None) -> Forecaster | Pooled:
    return Pooled(base) if name == "pooled" and base is not None else make(name, horizon)


def _outcome(
    name: str,
    sample: Sample,
    model: Forecaster | Pooled,
    raw: Floats | None = None,
    ahead: bool = False,
) -> Outcome:
    quantiles, taus = model.predict(sample, raw=raw), model.taus_
    allocations = allocations_by_quantile(taus, quantiles)
    settings = (model.horizon, model.target, allocations, taus, quantiles)
    return judged_outcome(name, sample, *settings, ahead=ahead)


# ------------------------------------------------------------------------------
# The recommendation for a log, from its last window.


def recommend(
    sample: Sample,
    training: Sequence[Sample],
    learner: str,
    fitted: Forecaster | Pooled,
    asked: float = 0.05,
) -> Json:
    """Recommend a decider for the next windows, by the costs of all deciders so far.

    They are judged on the log's own past, as far as its inputs show the outcome, and on the
    training programs (`knobs.follow`). A model that loses to a rule is not recommended.

    Parameters
    ----------
    sample : Sample
    training : sequence of Sample
        Samples of other programs with the same inputs.
    learner : str
        The model that is compared with the rules.
    fitted : Forecaster or Pooled
        The same model, fitted to the training samples.
    asked : float
        Allowed violations.

    Returns
    -------
    dict
        ``decider``, its ``mib``, ``asked``. ``by``: ``the log's own past``, or
        ``recorded programs``. ``windows``: windows of the past whose outcome is visible, and in
        them, according to the inputs, ``violations``, ``run``, ``longest``, ``again`` and ``idle``.
        ``model``: the same of the model's cheapest decider.
    """
    plan = Plan(learners=(learner,), asked=(asked,))
    candidates = decisions([sample], training, plan, fitted.horizon, True, {learner: fitted})
    leader = candidates.pop()
    chosen = _same(leader, candidates)
    models = [d for d in candidates if d.model == learner]
    model = min(models, key=lambda d: _so_far(d)["cost"]) if sample.feedback else models[0]
    seen = np.isfinite(np.asarray(leader.outcome.seen)).any()
    by = "the log's own past" if seen else "recorded programs"
    return {"asked": asked, "by": by, **_described(chosen), "model": _described(model)}


def _same(leader: Decision, candidates: Sequence[Decision]) -> Decision:
    """Return the decision that the leader follows in the last window."""
    return next(d for d in candidates if d.allocations[-1] == leader.allocations[-1])


def _described(decision: Decision) -> Json:
    costs = _so_far(decision)
    costs = {name: costs[name] for name in (*SO_FAR, "windows")}
    return {"decider": decision.name, "mib": float(decision.allocations[-1] / MIB_PAGES), **costs}


SO_FAR = ("violations", "run", "longest", "again", "idle")


def _so_far(decision: Decision) -> Json:
    """Return a decision's costs in past windows, as far as the inputs show them."""
    seen = np.asarray(decision.outcome.seen)
    known = np.isfinite(seen)
    y = seen[known] if known.any() else np.full(1, np.nan)
    allocations = decision.allocations[known] if known.any() else np.full(1, np.nan)
    costs = metrics.runs(y > allocations) | metrics.idle_and_short(y, allocations, decision.asked)
    return {name: value if known.any() else np.nan for name, value in costs.items()} | {
        "windows": int(known.sum())
    }


# ------------------------------------------------------------------------------
# Tables of features as a file: the training data of models and knobs, without the traces.

LABELS = ("name", "program", "inputs", "measures", "window_s")
UNKEPT = ("phase", "phase_age", "hour_sin", "hour_cos")  # marks of the workload: not inputs


def write_tables(samples: Sequence[Sample], path: PathLike) -> None:
    """Write the tables of samples as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for number, sample in enumerate(samples):
        kept = sample.table.drop(columns=list(UNKEPT), errors="ignore").astype(np.int64)
        parts.append(kept.assign(sample=number))
    labels = [{name: getattr(sample, name) for name in LABELS} for sample in samples]
    table = pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
    table = table.replace_schema_metadata({"samples": json.dumps(labels)})
    pq.write_table(table, Path(path), compression="zstd", compression_level=19)


def digest(sample: Sample) -> str:
    """Return a hexadecimal digest of a sample's table, which identifies the data."""
    kept = sample.table.drop(columns=list(UNKEPT), errors="ignore").astype(np.int64)
    return hashlib.blake2b(kept.to_numpy().tobytes(), digest_size=16).hexdigest()


FOLDER = "forecast-use"  # a folder in `recordings.folder`
TABLES = "tables.parquet"


def bundled() -> list[Sample]:
    """Read the samples of the programs for development; an empty list if they do not exist."""
    path = recordings.folder() / FOLDER / TABLES
    return read_tables(path) if path.exists() else []


def read_tables(path: PathLike) -> list[Sample]:
    """Read samples that `write_tables` wrote."""
    import pyarrow.parquet as pq

    table = pq.read_table(Path(path))
    labels: list[Mapping[str, str]] = json.loads(table.schema.metadata[b"samples"])
    samples = []
    for number, part in table.to_pandas().groupby("sample"):
        kept = part.drop(columns="sample").dropna(axis=1, how="all").reset_index(drop=True)
        missing = dict.fromkeys(("hour_sin", "hour_cos"), np.nan)
        samples.append(Sample(table=kept.assign(**missing), **labels[int(number)]))  # type: ignore[arg-type]
    return samples
