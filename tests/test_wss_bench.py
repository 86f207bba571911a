# SPDX-License-Identifier: Apache-2.0
"""What the analysis of WSS-Bench says of points whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from experiments import wss_bench
from pmlkit import frontier

SECOND = 1_000_000_000


def point(trace, technique, mae, overhead, looks=4, watched=None):
    return {
        "trace": trace, "technique": technique, "window_ns": SECOND, "looks": looks,
        "watched": watched, "published": False, "seed": 0, "mae": mae, "bias": 0.0, "says": 1.0,
        "overhead": overhead, "insn": 1.0, "simulated": False, "missing": "", "notes": "",
    }  # fmt: skip


def table(rows):
    return pd.DataFrame(rows).astype({"looks": "Int64", "watched": "Int64"})


def test_techniques_that_see_all_are_held_at_equal_looks():
    errors = {"pml-page-tables": 0.05, "idle-pages": 0.0504, "prl": 0.05}
    rows = [point("a", name, error, 0.01) for name, error in errors.items()]
    rows += [point("a", name, 0.9, 0.01, looks=1) for name in errors]
    spread = wss_bench.equal_looks(table(rows)).loc["a"]
    assert spread.max() - spread.min() == pytest.approx(0.0004)


def samples(gain):
    """Four recordings; with PML the sample errs less by `gain`, at its one affordable setting."""
    rows = []
    for n, trace in enumerate("abcd"):
        error = 0.1 + 0.02 * n
        rows.append(point(trace, "flag-sample", error, 0.0005, watched=64))
        rows.append(point(trace, "flag-sample", error / 2, 0.02, watched=4096))  # too dear
        rows.append(point(trace, "flag-sample-pml", error - gain, 0.0009, watched=64))
    return table(rows)


@pytest.mark.parametrize(("gain", "adds_nothing"), [(0.03, False), (0.0, True), (-0.03, True)])
def test_what_pml_adds_is_a_difference_at_equal_cost(gain, adds_nothing):
    found = wss_bench.sample_with_pml(samples(gain)).set_index("budget").loc[0.001]
    # The gain is the same in each recording, so all resamples agree.
    assert found[["difference", "low", "high"]].tolist() == pytest.approx([-gain] * 3)
    assert (found["high"] >= -1e-12) == adds_nothing


def test_a_factor_is_the_same_in_both_directions_and_small_errors_do_not_count():
    rows = [(0.2, 0.1), (0.05, 0.1), (0.1, 0.1), (1.0, 0.0005)]
    predicted = pd.DataFrame(rows, columns=["predicted", "measured"])
    assert wss_bench.factors(predicted).tolist() == pytest.approx([np.log10(2), np.log10(2), 0])


def test_each_statement_can_hold_and_be_refuted():
    def held(gain, blind, far, measured):
        rows = samples(gain).to_dict("records")
        for trace in "abcd":
            rows += [point(trace, name, 0.05, 0.02) for name in wss_bench.SEE_ALL]
            rows.append(point(trace, "pml", blind, 0.02))
        points = table(rows)
        predicted = pd.DataFrame({"predicted": [far * 0.1], "measured": [0.1]})
        advised = pd.DataFrame(
            [{"budget": b, "measured": measured, "overhead": b, "best": 0.1}
             for b in wss_bench.BUDGETS for _ in range(12)]
        )  # fmt: skip
        cheap = frontier.at_cost(points)
        found = wss_bench.statements(wss_bench.means(points), cheap, predicted, advised)
        return found.groupby("statement")["holds"].all().to_dict()

    assert held(0, 0.5, 1, 0.1) == dict.fromkeys(range(1, 7), True)
    refuted = held(0.03, 0.1, 2, 0.2)
    assert refuted == {1: True, 2: True, 3: False, 4: False, 5: False, 6: False}


def test_what_no_processor_has_wins_nothing():
    assert not wss_bench.exists("prl") and not wss_bench.exists("pml-page-tables")
    assert not wss_bench.looks_on("self-ballooning")  # it changes the guest's memory
    assert wss_bench.looks_on("flag-sample") and wss_bench.looks_on("idle-pages")
