# SPDX-License-Identifier: Apache-2.0
"""`pmlkit forecast`: train, forecast, back-test, and compose logs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import (
    as_json,
    example,
    only_answer,
    option,
    output,
    overwrite,
    span_of_paths,
)
from pmlkit.cli.parameters import MEMORY, PATH, TRACE, WINDOW, Ratio
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from pmlkit.forecast.log import Log
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

    Render: TypeAlias = Callable[[], object]

EXAMPLES = example(
    "pmlkit forecast redis-tides",
    "pmlkit forecast redis-tides --allocation 8M --horizon 8 --json",
    "pmlkit forecast sqlite --inputs sample",
    "pmlkit forecast gcc-jobs numpy-jobs --save jobs.skops",
    "pmlkit forecast x.trace --model jobs.skops",
    "pmlkit forecast --backtest -o results/backtest",
    "pmlkit forecast redis-tides --compose daily -o composed-day.trace",
)


@click.command(epilog=EXAMPLES)
@click.argument("traces", nargs=-1, type=TRACE, metavar="[TRACE]...")
@output("PATH", "Folder for the tables and figures, or the trace for --compose.")
@option("--inputs", type=Choice(["pml", "pml+sample", "sample"]),
        help="Input of the forecast, which is PML's log, a sample of accessed flags (one frame in "
             "16), or both. [default: all inputs of TRACE]")  # fmt: skip
@option("--window", type=WINDOW, help="T, as a time (500ms) or in rounds (5r). [default: 500ms]")
@option("--horizon", type=IntRange(1), help="Number of windows ahead. [default: 4]")
@option("--target", type=Choice(["at", "peak"]),
        help="W of that window (at), or the largest W up to it (peak). [default: at]")  # fmt: skip
@option("--learner", default="pooled", type=Choice(["pooled", "boosted", "linear"]),
        help=("The model. pooled: boosted trees fitted to other programs, mixed with the log's own "
             "past."))  # fmt: skip
@option(
    "--allocation",
    type=MEMORY,
    help="Also print how often this allocation was exceeded so far, such as 64 or 1G.",
)
@option("--model", type=PATH, help="Forecast with the model in this file.")
@option("--save", type=PATH, help="Train on all traces and write the model to this file.")
@option(
    "--backtest",
    is_flag=True,
    help="Leave out one program at a time; without TRACE, use the bundled recordings.",
)
@option("--rate", default=0.05, type=Ratio(0.001, 0.5),
        help="Allowed share of windows with too little memory.")  # fmt: skip
@option("--compose", "pattern", type=Choice(["daily", "bursty", "walk"]),
        help="Write a log that is composed of TRACE's phases.")  # fmt: skip
@option("--hours", default=72, type=IntRange(1), help="Length of the composed log, hours.")
@span_of_paths
@overwrite
@only_answer
@as_json
def forecast(traces: tuple[str, ...], only_answer: bool, as_json: bool, **options: Any) -> None:
    """Forecast how much memory TRACE will need after its end.

    The answer comes from the rule or model with the lowest cost so far. It states how often this
    rule or model gave too little memory. The output continues with the quantiles of the forecast,
    how often an allocation was exceeded, and the change points so far. If TRACE is only a
    PML log, the forecast covers written pages only. The models are trained on bundled data of other
    programs, unless --model names a file.
    """
    from pmlkit.cli import console

    actions = {"save": _train, "backtest": _backtest, "pattern": _compose}
    asked = [name for name in actions if options[name]]
    if len(asked) > 1:
        raise UsageError("--save, --backtest and --compose exclude each other: use one")
    if not traces and not options["backtest"]:
        raise UsageError("name a TRACE, or use --backtest")
    if options["model"] and (asked or any(options[n] for n in ("window", "horizon", "target"))):
        raise UsageError(
            "--model sets its window, horizon and target: use it without these options"
        )
    if asked:
        value, render = actions[asked[0]](traces, as_json, options)
        return show(as_json, value, render)
    results, lines = _ahead(traces, as_json, options)
    answers = [result["summary"]["answer"] for result in results]
    if only_answer:
        return show(as_json, [{"summary": r["summary"]} for r in results], console.answer, answers)
    show(as_json, results, console.answer, answers, lambda: console.answer(lines))


def _settings(options: Json) -> Json:
    return {
        "window": options["window"] or "500ms",
        "horizon": options["horizon"] or 4,
        "target": options["target"] or "at",
    }


def _logs(traces: Sequence[str], options: Json) -> list[Log]:
    from pmlkit.forecast import log
    from pmlkit.trace.reader import Trace

    span = {"start": options["start"], "end": options["end"]}
    opened = [Trace.open(path) for path in traces]
    return [log.read(t, inputs=_inputs(t, options), **span) for t in opened]


def _inputs(trace: Trace, options: Json) -> str:
    """Return the requested input; that of a saved model; or all inputs of the trace."""
    from pmlkit.forecast import log, store

    saved = store.load(options["model"]).inputs if options["model"] else None
    if saved and options["inputs"] not in (None, saved):
        raise UsageError(f"the model uses the input {saved}: leave --inputs out")
    return options["inputs"] or saved or log.best_inputs(trace)


def _train(traces: Sequence[str], quiet: bool, options: Json) -> tuple[Json, Render]:
    """Train on the traces, and write the model."""
    from pmlkit.cli import console
    from pmlkit.forecast import store
    from pmlkit.forecast.analogs import make
    from pmlkit.forecast.compose import sample

    settings = _settings(options)
    path, window = options["save"], settings["window"]
    with console.busy("training", quiet=quiet):
        logs = _logs(traces, options)
        model = make(options["learner"], settings["horizon"], settings["target"])
        model.fit([sample(log, window) for log in logs])
        data = {log.name: log.digest() for log in logs}
        inputs, measures = (_same(logs, name) for name in ("inputs", "measures"))
        store.save(model, path, window, data, options["overwrite"], inputs, measures)
    line = f"{path}: trained on {', '.join(data)}"
    return {"model": path, "data": data}, partial(console.answer, [line])


def _same(logs: Sequence[Log], name: str) -> str:
    """Return the logs' common value of an attribute; UsageError if the values differ."""
    values = {getattr(log, name) for log in logs}
    if len(values) > 1:
        raise UsageError(f"the traces differ in {name} ({', '.join(sorted(values))}): use --inputs")
    return str(values.pop())


def _ahead(traces: Sequence[str], quiet: bool, options: Json) -> tuple[list[Json], list[str]]:
    """Forecast each trace from its end."""
    from pmlkit.cli import console
    from pmlkit.forecast import ahead

    model = options["model"]
    settings = ahead.settings_of(model) if model else _settings(options)
    settings |= {"learner": options["learner"], "allocation_mib": options["allocation"],
                 "rate": options["rate"]}  # fmt: skip
    with console.busy("training and forecasting", quiet=quiet):
        logs = _logs(traces, options)
        results = [ahead.forecast(log, saved=model, **settings) for log in logs]
    return results, [line for result in results for line in ahead.lines(result)]


def _backtest(traces: Sequence[str], quiet: bool, options: Json) -> tuple[Json, Render]:
    """Back-test on the traces; write tables and figures to the output folder, if one is given."""
    from pmlkit.cli import console
    from pmlkit.figures import forecast as forecast_figures
    from pmlkit.figures import style, tables
    from pmlkit.files import write_files
    from pmlkit.forecast import study

    with console.busy("back-testing", study.steps(len(traces)), of_parts=True, quiet=quiet):
        settings = _settings(options) | {"inputs": options["inputs"] or "pml"}
        results = study.collect(traces, **settings)
        sheets = study.summary(results, options["rate"])
        if options["output"]:
            files = style.files_of(forecast_figures.calibration(results.coverage()), "calibration")
            files |= style.files_of(forecast_figures.limits(results.limits), "limits")
            for name, sheet in sheets.items():
                files |= tables.files_of(sheet, name, f"forecasts: {name}")
            write_files(Path(options["output"]), files)
    rows = {name: json.loads(t.to_json(orient="records")) for name, t in sheets.items()}
    return rows, partial(
        console.answer, [], *(partial(console.sheet, t, n) for n, t in sheets.items())
    )


def _compose(traces: Sequence[str], quiet: bool, options: Json) -> tuple[Json, Render]:
    """Write a log that is composed of the trace's phases."""
    from pmlkit.cli import console
    from pmlkit.forecast import compose

    if len(traces) != 1 or not options["output"]:
        raise UsageError("--compose takes one TRACE, and -o composed-NAME.trace")
    with console.busy("composing", quiet=quiet):
        (log,) = _logs(traces, options)
        composed = compose.compose(log, options["pattern"], options["hours"])
        trace = compose.write(composed, options["output"], options["overwrite"])
    facts = {"trace": str(trace.path), "rounds": trace.n_rounds, "entries": trace.meta.entries}
    line = f"{trace.path}: {trace.n_rounds} rounds, {trace.meta.entries:,} entries, composed"
    return facts, partial(console.answer, [line])
