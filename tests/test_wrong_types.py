# SPDX-License-Identifier: Apache-2.0
"""Values of wrong types in Python: an error of pmlkit in one line, or an answer, nothing else.

A notebook shows an error of pmlkit as one line; any other comes with the traceback of its inside.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import pmlkit
from pmlkit import compare, figures, frontier, missratio, reads, recordings
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.figures import draw
from pmlkit.notebook import views

EMPTY = Figure()
WRONG = [
    None, True, False, 0, -1, 1.5, float("nan"), float("inf"), "", " ", "x", b"1s", [], {}, (),
    object(), np.int64(5), np.float64(1e9), pd.Timedelta("1s"), 10**30, -(10**30), ["x"], Path("x"),
]  # fmt: skip
CALLS = {
    "wss": (pmlkit.wss, "window start end kinds region phase between page_tables min_count"),
    "mrc": (missratio.of_trace, "method rate min_pages max_pages kinds between"),
    "diff": (lambda trace, **how: pmlkit.diff(trace, trace, **how), "window start kinds"),
    "draw": (lambda trace, **how: draw(trace, "wss", **how), "window width height venue start"),
    "compare": (lambda trace, **how: compare.plan(**how),
                "window techniques scale seeds start ns_per_insn"),
    "period": (pmlkit.period.advise, "target accuracy stall_ns start ns_per_insn"),
    "frontier": (lambda trace, **how: frontier.plan(**how),
                 "window looks watched techniques seeds ns_per_insn"),
    "points": (lambda trace, **how: frontier.read(**how), "folder"),
    "reads": (lambda trace, **how: reads.estimate("rrww-lab", **how),
              "method window step start end calibration frames phase between"),
    "advise": (lambda trace, **how: pmlkit.advise(trace, **({"check": False} | how)),
               "budget window seeds ns_per_insn cover"),
    "explore": (pmlkit.explore, "window min_count time region technique start end"),
    "save": (lambda trace, **how: figures.save(**({"figure": EMPTY, "stem": "x"} | how)),
             "figure stem data"),
    "over time": (figures.wss_over_time, "window kinds columns start"),
    "heat map": (figures.heat_map, "kinds columns start"),
    "miss ratio": (figures.miss_ratio, "rate kinds columns"),
    "output": (lambda trace, **how: views.output_folder(**how), "out"),
}  # fmt: skip
PATHS = {
    "save": lambda path: figures.save(EMPTY, path),
    "points": frontier.read,
    "output": views.output_folder,
}
TRACES = {
    "open": pmlkit.open,
    "open_trace": recordings.open_trace,
    "wss": pmlkit.wss,
    "mrc": missratio.of_trace,
    "advise": pmlkit.advise,
    "period": pmlkit.period.advise,
    "reads": pmlkit.reads.estimate,
    "sets": pmlkit.reads.sets,
    "truth": pmlkit.reads.truth,
    "draw": lambda trace: draw(trace, "wss"),
}


@pytest.fixture(scope="module")
def trace(make_shared_trace):
    return make_shared_trace(rounds=12, phases=[("a", 0)], regions=[("hot", 0, 9)])


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_value_is_one_line(trace, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a value may be a name to write to
    call, parameters = CALLS[name]
    for parameter in parameters.split():
        for value in WRONG:
            try:
                call(trace, **{parameter: value})
            except PmlkitError as error:
                assert "\n" not in str(error), (parameter, value)


@pytest.mark.parametrize("name", TRACES)
def test_what_is_no_trace_is_refused(name):
    named = str | Path | list | tuple | dict
    for value in [value for value in WRONG if not isinstance(value, named)]:
        with pytest.raises(UsageError, match="is no trace: give a Trace, its path, or its name"):
            TRACES[name](value)


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_path_is_refused_by_its_argument(name):
    for value in [value for value in WRONG if not isinstance(value, str | Path)]:
        with pytest.raises(UsageError, match="`(stem|folder|out)` is .*: give a path"):
            PATHS[name](value)


@pytest.mark.parametrize("given", [{"calibration": 42}, {"frames": {}}, {"frames": "sets"}])
def test_an_estimate_of_reads_names_the_argument_of_a_wrong_type(given):
    """Each was an AttributeError; an empty dict was taken for no frames at all."""
    with pytest.raises(UsageError, match=f"`{next(iter(given))}` is .*: give"):
        reads.estimate("rrww-lab", **given)


NAMED = {
    "start": lambda trace: pmlkit.wss(trace, start=["2s"]),
    "end": lambda trace: missratio.of_trace(trace, end="soon"),
    "step": lambda trace: pmlkit.wss(trace, window="20ms", step=["10ms"]),
    "budget": lambda trace: pmlkit.advise(trace, budget="lots"),
    "cover": lambda trace: pmlkit.advise(trace, cover=[1]),
    "target": lambda trace: pmlkit.period.advise(trace, target="x"),
    "accuracy": lambda trace: pmlkit.period.advise(trace, accuracy={}),
}


@pytest.mark.parametrize("name", NAMED)
def test_of_several_times_or_shares_the_wrong_one_is_named(trace, name):
    with pytest.raises(UsageError, match=rf"^`{name}`: .* is not a (duration|window|share): write"):
        NAMED[name](trace)


@pytest.mark.parametrize("kinds", [1.5, True, b"r", [1], float("nan"), 8, 0, -1])
def test_a_mask_of_kinds_is_a_whole_number(trace, kinds):
    """1.5 was read as 1, the reads."""
    with pytest.raises(UsageError, match="kinds mask .* is not known"):
        pmlkit.wss(trace, window="20ms", kinds=kinds)


def test_a_figure_takes_the_name_of_a_recording():
    assert (
        draw("touch-lab", "wss")
        .data["wss"]
        .equals(draw(pmlkit.open("touch-lab"), "wss").data["wss"])
    )


@pytest.mark.parametrize("share", [0, -0.01, 1.5, float("nan"), float("inf"), 10**30])
def test_a_period_is_not_recommended_for_an_impossible_share(trace, share):
    for name in ("target", "accuracy"):
        with pytest.raises(UsageError, match="share"):
            pmlkit.period.advise(trace, **{name: share})
