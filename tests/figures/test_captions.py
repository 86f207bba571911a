# SPDX-License-Identifier: Apache-2.0
"""What captions say is drawn, means or medians and their bars, is what the code draws."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml
from tree import ROOT

from pmlkit import compare, figures
from pmlkit.figures import compare as figures_compare
from pmlkit.figures import time
from pmlkit.notebook import reads_tables
from pmlkit.units import Window

ERRORS = {"a": (0.1, 0.5, 0.3), "b": (0.2, 0.2, 0.8)}  # of three recordings
OVERHEADS = {"a": (0.01, 0.03, 0.02), "b": (0.05, 0.04, 0.06)}


def comparison():
    rows = [
        {"trace": f"t{place}", "technique": name, "title": name, "active": False, "mae_ci": 0.01,
         "mae": ERRORS[name][place], "overhead": OVERHEADS[name][place], "ns_per_insn": 8.0,
         "simulated": False}
        for name in ERRORS
        for place in range(3)
    ]  # fmt: skip
    empty = pd.DataFrame()
    return compare.Comparison(compare.plan("1s"), pd.DataFrame(rows), empty, empty, empty, empty)


@pytest.fixture(scope="module")
def drawn():
    return {
        "fig-techniques-pareto": figures_compare.error_against_overhead(comparison()),
        "fig-reads-errors": figures.reads_errors(reads_tables.errors()),
        "fig-harvest-costs": figures.harvest_costs(*reads_tables.costs()),
        "fig-host-sees": figures.host_sees(reads_tables.host_sees()),
    }


@pytest.mark.parametrize(
    ("effective_ms", "label", "caption"),
    [
        ([50, 50, 48, 52], "50 ms", "50 ms"),
        (
            [50, 50, 50, 40],
            "50 ms",
            "50 ms (in 1 of 4 windows, the effective T differs by more than 10 %)",
        ),
        ([40, 40, 50, 40], *["50 ms (median effective 40 ms)"] * 2),
    ],
)
def test_an_effective_t_is_named_only_where_it_is_another(effective_ms, label, caption):
    """A label read "T = 50 ms (median effective 50 ms)", for a few windows that were shorter."""
    short = [(5, False)]  # a window that is cut short does not count
    rows = [(ms, True) for ms in effective_ms] + short
    wss = pd.DataFrame(rows, columns=["effective_ns", "full"])
    wss["effective_ns"] *= 1_000_000
    window = Window(ns=50_000_000)
    assert (time._name(window, wss), time._full_name(window, wss)) == (label, caption)
    assert time._full_name(Window(rounds=5), wss) == "5 rounds"


def captions():
    runs = yaml.safe_load((ROOT / "experiments" / "paper.yaml").read_text())["runs"]
    return {name: said["caption"] for run in runs for name, said in run["gather"].items()}


def statistics(text):
    """Return which of means and medians a caption speaks of; a mean error is a kind of error."""
    words = re.findall(r"\b(mean|median)s?\b", re.sub(r"[Mm]ean (?:absolute )?error", "", text))
    return set(words)


@pytest.mark.parametrize(
    "name", ["fig-techniques-pareto", "fig-reads-errors", "fig-harvest-costs", "fig-host-sees"]
)
def test_the_papers_caption_has_the_statistic_of_the_figures_own(drawn, name):
    own, papers = drawn[name].caption, captions()[name]
    assert statistics(papers) == statistics(own)
    for word in ("bootstrap", "least to the most", "cut off"):
        assert (word in papers) == (word in own), word


def test_the_points_of_techniques_are_medians_and_their_bars_intervals(drawn):
    points = drawn["fig-techniques-pareto"].data["points"].set_index("technique")
    for name in ERRORS:
        assert points.loc[name, "mae"] == np.median(ERRORS[name])
        assert points.loc[name, "overhead"] == np.median(OVERHEADS[name])
        assert points.loc[name, ["mae_low", "mae_high"]].tolist() == [
            min(ERRORS[name]), max(ERRORS[name])
        ]  # fmt: skip
    (line, *_) = drawn["fig-techniques-pareto"].get_axes()[0].lines
    assert sorted(line.get_ydata()) == pytest.approx([20, 30])
    assert "median of 3 recordings" in drawn["fig-techniques-pareto"].caption


def test_of_one_recording_the_bars_are_over_seeds():
    figure = figures_compare.error_against_overhead(comparison(), "t1")
    points = figure.data["points"].set_index("technique")
    assert points.loc["a", ["mae_low", "mae_high"]].tolist() == pytest.approx([0.49, 0.51])
    assert "over seeds" in figure.caption and "median" not in figure.caption


def test_the_points_of_reads_are_means_and_those_at_the_edge_are_said(drawn):
    table = reads_tables.errors()
    rows = table[table["method"] == "accessed"]
    (line,) = (
        line for line in drawn["fig-reads-errors"].get_axes()[0].lines
        if line.get_label() == "accessed entries"
    )  # fmt: skip
    assert line.get_xdata() == pytest.approx(rows["mape"].to_numpy())
    assert ((rows["from"] <= rows["mape"]) & (rows["mape"] <= rows["to"])).all()
    assert "below 0.1 percent are drawn at 0.1" in drawn["fig-reads-errors"].caption
    assert "below 0.1 percent are drawn at 0.1" in captions()["fig-reads-errors"]


def test_the_marks_of_harvests_are_medians_within_their_bars(drawn):
    measured = drawn["fig-harvest-costs"].data["measured"]
    for name in ("scan", "guided", "pruned", "sampled"):
        assert (measured[f"{name}_least"] <= measured[name]).all()
        assert (measured[name] <= measured[f"{name}_most"]).all()
    guests = pd.read_csv(ROOT / "data" / "harvests" / "guests.csv").set_index("guest")
    assert measured["pruned"].iloc[0] == guests.loc["memory-64", "pruned"]


def test_a_fit_is_called_one():
    assert "no reproduction" in captions()["tab-reproduced"]


def test_the_caption_over_time_names_its_region_also_if_nothing_is_used(make_trace):
    trace = make_trace(rounds=40, pages=50, regions=[("used", 0, 50), ("unused", 100, 50)])
    for region in ("used", "unused"):
        caption = figures.miss_ratio_over_time(trace, "50ms", region=region).caption
        assert f"for the pages of the region {region}" in caption
        assert ("no page is used" in caption) == (region == "unused")
