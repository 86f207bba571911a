# SPDX-License-Identifier: Apache-2.0
"""`pmlkit forecast`: train, forecast, back-test, and compose logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import Choice, FloatRange, IntRange

from pmlkit.cli.options import (
    DURATION,
    MEMORY,
    PATH,
    WINDOW,
    as_json,
    echo,
    example,
    option,
    output,
    overwrite,
)
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.forecast.log import Log
    from pmlkit.types import Json


EXAMPLES = example(
    "pmlkit forecast data/redis-tides.trace",
    "pmlkit forecast data/redis-tides.trace --allocation 8M --horizon 8 --json",
    "pmlkit forecast data/gcc-jobs.trace data/numpy-jobs.trace --save jobs.skops",
    "pmlkit forecast x.trace --model jobs.skops",
    "pmlkit forecast --backtest -o results/backtest",
    "pmlkit forecast data/redis-tides.trace --compose daily -o composed-day.trace",
)


@click.command(epilog=EXAMPLES)
@click.argument("traces", nargs=-1, type=PATH, metavar="[TRACE]...")
@output("PATH", "Folder for the tables and figures, or the trace that --compose writes.")
@option("--window", type=WINDOW, help="T: a time (500ms), or rounds (5r); 500ms if not given.")
@option("--horizon", type=IntRange(1), help="How many windows ahead; 4 if not given.")
@option("--target", type=Choice(["at", "peak"]), help="W of the window ahead, or the largest until "
        "then; at if not given.")  # fmt: skip
@option("--learner", default="pooled", type=Choice(["pooled", "boosted", "linear"]),
        help="What learns; pooled: boosted trees of others, and the own past.")  # fmt: skip
@option("--allocation", type=MEMORY, help="How probable is a peak beyond it? 64, 1G.")
@option("--model", type=PATH, help="Forecast with the model in this file.")
@option("--save", type=PATH, help="Train on all TRACEs and write the model to this file.")
@option("--backtest", is_flag=True, help="Leave one program out; without a TRACE the bundled ones.")
@option("--rate", default=0.05, type=FloatRange(0.001, 0.5), help="Violations that are allowed.")
@option("--compose", "pattern", type=Choice(["daily", "bursty", "walk"]), help="Write a log that "
        "is composed of TRACE's phases.")  # fmt: skip
@option("--hours", default=72, type=IntRange(1), help="Of the composed log.")
@option("--start", type=DURATION, help="Leave out what is earlier.")
@option("--end", type=DURATION, help="Leave out what is later: forecast from there.")
@overwrite
@as_json
def forecast(traces: tuple[str, ...], as_json: bool, **how: Any) -> None:
    """Forecast the working set of TRACE past its end.

    Prints quantiles of the working set that PML logs, how probable it is that it exceeds an
    allocation, and the change points so far. The models are trained on the bundled recordings of
    other programs, unless --model names a file.
    """
    asked = [name for name in ("save", "backtest", "pattern") if how[name]]
    if len(asked) > 1:
        raise UsageError("--save, --backtest and --compose are three things: ask for one")
    if not traces and not how["backtest"]:
        raise UsageError("name a TRACE, or ask for --backtest")
    if how["model"] and (asked or any(how[name] for name in ("window", "horizon", "target"))):
        raise UsageError("--model brings its window, horizon and target: give it alone")
    act = {"save": _train, "backtest": _backtest, "pattern": _compose}.get(
        asked[0] if asked else "", _ahead
    )
    value, lines = act(traces, as_json, **how)
    show(as_json, value, echo, "\n".join(lines))


def _settings(how: Json) -> Json:
    return {
        "window": how["window"] or "500ms",
        "horizon": how["horizon"] or 4,
        "target": how["target"] or "at",
    }


def _logs(traces: Iterable[str], how: Json) -> list[Log]:
    from pmlkit.forecast import log
    from pmlkit.trace.reader import Trace

    return [log.read(Trace.open(t), start=how["start"], end=how["end"]) for t in traces]


def _forecaster(
    logs: Sequence[Log], settings: Json, learner: str | None
) -> tuple[Any, list[Sample]]:
    """Train on logs; return the forecaster and the samples."""
    from pmlkit.forecast.analogs import make
    from pmlkit.forecast.compose import sample

    samples = [sample(log, settings["window"]) for log in logs]
    return make(learner, settings["horizon"], settings["target"]).fit(samples), samples  # type: ignore[arg-type]


def _train(traces: Sequence[str], quiet: bool, **how: Any) -> tuple[Json, list[str]]:
    from pmlkit.cli import console
    from pmlkit.forecast import store

    settings = _settings(how)
    with console.busy("training", quiet=quiet):
        logs = _logs(traces, how)
        model, _ = _forecaster(logs, settings, how["learner"])
        data = {log.name: log.digest() for log in logs}
        store.save(model, how["save"], settings["window"], data, how["overwrite"])
    return {"model": how["save"], "data": data}, [f"{how['save']}: trained on {', '.join(data)}"]


def _ahead(traces: Sequence[str], quiet: bool, **how: Any) -> tuple[list[Json], list[str]]:
    """Forecast each trace from its end."""
    from pmlkit.cli import console
    from pmlkit.forecast import ahead

    settings = ahead.settings_of(how["model"]) if how["model"] else _settings(how)
    with console.busy("training and forecasting", quiet=quiet):
        found = [
            ahead.forecast(log, learner=how["learner"], saved=how["model"],
                           allocation_mib=how["allocation"], **settings)
            for log in _logs(traces, how)
        ]  # fmt: skip
    return found, [line for one in found for line in ahead.lines(one)]


def _backtest(traces: Sequence[str], quiet: bool, **how: Any) -> tuple[Json, list[str]]:
    from pmlkit import figures
    from pmlkit.cli import console
    from pmlkit.figures import forecast as drawn
    from pmlkit.forecast import study

    with console.steps("back-testing", study.steps(len(traces)), quiet=quiet) as tell:
        made = study.collect(traces, **_settings(how), progress=tell)
        tables = study.summary(made, how["rate"])
        if how["output"]:
            folder = Path(how["output"])
            for name, table in tables.items():
                figures.table(table, folder / name, f"forecasts: {name}")
            figures.save(drawn.trade_off(made.curves, 2), folder / "trade-off")
            figures.save(drawn.calibration(made.coverage()), folder / "calibration")
            figures.save(drawn.limits(made.limits), folder / "limits")
    lines = [f"{name}\n{table.to_string(index=False)}\n" for name, table in tables.items()]
    return {name: json.loads(t.to_json(orient="records")) for name, t in tables.items()}, lines


def _compose(traces: Sequence[str], quiet: bool, **how: Any) -> tuple[Json, list[str]]:
    from pmlkit.cli import console
    from pmlkit.forecast import compose

    if len(traces) != 1 or not how["output"]:
        raise UsageError("--compose takes one TRACE, and -o composed-NAME.trace")
    with console.busy("composing", quiet=quiet):
        (log,) = _logs(traces, how)
        made = compose.write(
            compose.compose(log, how["pattern"], how["hours"]), how["output"], how["overwrite"]
        )
    facts = {"trace": str(made.path), "rounds": made.n_rounds, "entries": made.meta.entries}
    return facts, [f"{made.path}: {made.n_rounds} rounds, {made.meta.entries:,} entries, composed"]
