# SPDX-License-Identifier: Apache-2.0
"""The tables that the documentation computes of what pmlkit says."""

import importlib.util

import numpy as np
import pandas as pd
from tree import ROOT

import pmlkit
from pmlkit import techniques
from pmlkit.forecast import verdict

_SPEC = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)


def test_what_the_tables_are_of_is_there():
    assert set(tables.RECORDINGS) <= set(pmlkit.bundled())
    assert set(tables.TECHNIQUES) <= set(techniques.TECHNIQUES)


def test_the_comparison_is_of_medians_in_percent():
    rows = [
        (name, mae, 0.0012, down)
        for name in tables.TECHNIQUES
        for mae, down in ((0.1, np.nan), (0.3, 2.0), (0.2, 1.0 if name == "pml" else np.nan))
    ]
    scores = pd.DataFrame(rows, columns=["technique", "mae", "overhead", "down"])
    scores["title"] = [techniques.TECHNIQUES[name].title for name in scores["technique"]]
    scores.loc[scores["technique"] == "vmware", "down"] = np.nan
    made = tables.techniques(scores).set_index("technique")
    shares = ["3", "20 (10 to 30)", "0.12 (0.12 to 0.12)"]
    assert made.loc["PML, m = 1 per round"].tolist() == ["writes", "1", *shares, "1.5"]
    pages = "100 pages a period"
    assert made.loc["VMware sampling"].tolist() == [pages, "its own", *shares, "never"]


def test_what_is_saved_is_what_is_left_of_the_best_rules_slack():
    row = {"ahead_s": 0.5, "own past": 0.8, "hindsight": 1.02, "told the phase": 0.5}
    assert tables.limits(pd.DataFrame([row])).values.tolist() == [["0.5 s", "20", "-2", "50"]]


def test_a_trial_is_shown_in_absolute_terms_with_its_intervals():
    means = pd.DataFrame(
        [("pml", 4, 0.05, decider, 0.04, 0.3, 2.4, 0.8, 0.5, 1.25)
         for decider in ("a, others", "m, as is", "b, past", "recommended")],
        columns=["inputs", "horizon", "asked", "decider", "violations", "again", "longest", "idle",
                 "idle_low", "idle_high"],
    )  # fmt: skip
    chosen = pd.DataFrame(
        [{"inputs": "pml", "horizon": 4, "rule": "a, others", "model": "m, as is"}]
    )
    tests = pd.DataFrame(
        [("pml", 4, "m, as is", "a, others", "pml", 0.9, 0.7, 1.1, 7, 12, 0.03, 0.000488)],
        columns=["inputs", "horizon", "ours", "theirs", "against", "ratio", "low", "high", "lower",
                 "programs", "p_permutation", "least_p"],
    )  # fmt: skip
    said = pd.DataFrame([(1, "it gains", 0.03123, 0.05, True)],
                        columns=["number", "statement", "value", "bound", "holds"])  # fmt: skip
    found = verdict.Verdict("held-out", chosen, pd.DataFrame(), means, tests, said)
    made = tables.forecasts(found)
    assert made["means"]["decider"].tolist() == [
        "best rule: a, others", "best model: m, as is", "recommended"
    ]  # fmt: skip
    assert made["means"].iloc[0].tolist()[3:] == ["4.0", "30.0", "2", "80 (50 to 125)"]
    assert made["tests"].iloc[0].tolist()[4:] == [
        "0.90 (0.70 to 1.10)",
        "7 of 12",
        "0.03",
        "0.0005",
    ]
    assert made["statements"].iloc[0].tolist()[2:] == ["0.0312", 0.05, "yes"]


def test_what_a_host_sees_has_the_range_of_its_rounds():
    names = ["name", "kernel", "seen", "least", "most", "written", "read", "tables"]
    rows = [
        ("truth", None, 4364, None, None, 1792, 2560, 12),
        ("rate", "6.1", 2048, 512, 3584, None, None, None),
        ("log", "6.1", 1806, 1806, 1806, 1792, 0, 12),
        ("DAMON", "6.1", *[None] * 6),
    ]
    ways = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[2:], "Int64"))
    assert tables.host_sees(ways).values.tolist() == [
        ["truth", "", "4,364", "1,792", "2,560", "12"],
        ["rate", "6.1", "2,048 (512 to 3,584)", "", "", ""],
        ["log", "6.1", "1,806", "1,792", "0", "12"],
        ["DAMON", "6.1", "the kernel does not have it", "", "", ""],
    ]
