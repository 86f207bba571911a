# SPDX-License-Identifier: Apache-2.0
"""Values of wrong types in Python: an error of pmlkit in one line, or an answer, nothing else.

A notebook shows an error of pmlkit as one line; any other comes with the traceback of its inside.
"""

import numpy as np
import pandas as pd
import pytest

import pmlkit
from pmlkit import compare, frontier, missratio, recordings
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.figures import draw

WRONG = [
    None, True, False, 0, -1, 1.5, float("nan"), float("inf"), "", " ", "x", b"1s", [], {}, (),
    object(), np.int64(5), np.float64(1e9), pd.Timedelta("1s"), 10**30, -(10**30),
]  # fmt: skip
CALLS = {
    "wss": (pmlkit.wss, "window start end kinds region phase between page_tables min_count"),
    "mrc": (missratio.of_trace, "method rate min_pages max_pages kinds between"),
    "diff": (lambda trace, **how: pmlkit.diff(trace, trace, **how), "window start kinds"),
    "draw": (lambda trace, **how: draw(trace, "wss", **how), "window width height venue start"),
    "compare": (lambda trace, **how: compare.plan(**how),
                "window techniques scale seeds start ns_per_insn"),
    "period": (pmlkit.period.advise, "target accuracy stall_ns start ns_per_insn"),
    "frontier": (lambda trace, **how: frontier.plan(**how), "seeds ns_per_insn"),
}  # fmt: skip
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
def test_a_wrong_value_is_one_line(trace, name):
    call, parameters = CALLS[name]
    for parameter in parameters.split():
        for value in WRONG:
            try:
                call(trace, **{parameter: value})
            except PmlkitError as error:
                assert "\n" not in str(error), (parameter, value)


@pytest.mark.parametrize("name", TRACES)
def test_what_is_no_trace_is_refused(name):
    for value in [value for value in WRONG if not isinstance(value, str | list | tuple | dict)]:
        with pytest.raises(UsageError, match="is no trace: give a Trace, its path, or its name"):
            TRACES[name](value)


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
