# SPDX-License-Identifier: Apache-2.0
"""The score of a technique over recordings: known answers, choices, and folders of results."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from factories import make_trace

from pmlkit import frontier, scoreboard, techniques
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.forecast import analogs, trial
from pmlkit.forecast.models import LinearQuantiles
from pmlkit.techniques.protocol import Need, Technique
from pmlkit.trace.kinds import Kind


@dataclass(frozen=True)
class Share(Technique):
    """Reports `watched` percent of 100 pages, and pays `looks` looks of 100 flags for it."""

    name: ClassVar[str] = "share"
    title: ClassVar[str] = "A known share"
    source: ClassVar[str] = "a test"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ACCESSED})
    looks: int = 1
    watched: int = 64

    def observe(self, view):
        for _ in view.every(view.window_ns):
            view.charge(flags_read=100 * self.looks)
            view.report(min(self.watched, 128))


class Blind(Technique):
    """Observes nothing: it lacks the method."""


class Always(LinearQuantiles):
    """A regressor that is not fitted: what comes is what is."""

    def fit(self, X, y):
        self.quantiles_ = np.array([0.5, 0.95])
        return self

    def predict_quantiles(self, X):
        return np.zeros((len(X), 2))


NAME = f"{__name__}:Share"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Two recordings of 20 rounds in which the same 100 and 128 pages are written all the time."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, pages in (("hundred", 100), ("more", 128)):
        events = [[(gfn, Kind.WRITE) for gfn in range(pages)] for _ in range(20)]
        make_trace(folder / f"{name}.trace", 20, events=events, pages=pages)
    paths = [folder / "hundred.trace", folder / "more.trace"]
    return scoreboard.score(NAME, paths, frontier.Plan(("20ms",), (1, 4), (50, 256)))


def test_the_error_and_the_cost_are_the_known_ones(scored):
    assert scored.programs == ["hundred", "more"]
    assert len(scored.rows) == 2 * (1 + 2 * 3)  # the default; looks by watched, all of it included
    few = scored.rows[scored.rows["setting"] == "looks=1 watched=50"]
    assert sorted(few["mae"]) == pytest.approx([0.5, 78 / 128])
    all_of_them = scored.rows[scored.rows["setting"] == "looks=4 watched=256"]
    assert sorted(all_of_them["mae"]) == pytest.approx([0, 0.28])
    assert sorted(all_of_them["bias"]) == pytest.approx([0, 0.28])
    ratio = all_of_them["overhead"].to_numpy() / few["overhead"].to_numpy()
    assert ratio == pytest.approx(4)


def test_real_and_simulated_page_tables_have_no_common_score():
    plan = frontier.plan("1s", looks="1", seeds=1)
    with pytest.raises(UsageError, match="simulated page tables on hotcold, and real ones on the"):
        scoreboard.score("pml-page-tables", ["hotcold", "rrww-lab"], plan)
    assert scoreboard.score("pml-page-tables", ["rrww-lab"], plan).programs == ["rrww-lab"]


def test_a_setting_is_chosen_within_its_budget(scored):
    cost = scored.rows.set_index("setting")["overhead"].groupby(level=0).mean()
    one, four = cost["looks=1 watched=50"], cost["looks=4 watched=50"]
    chosen = scoreboard.best(scored, [one / 2, one * 1.01, four * 1.01])
    assert len(chosen) == 2  # nothing is as cheap as the first
    assert list(chosen["setting"]) == ["looks=1 watched=256"] * 2
    table = scoreboard.standing(replace(scored, chosen=chosen))
    assert list(table["mae"]) == pytest.approx([0.14, 0.14])
    assert list(table["worst"]) == pytest.approx([0.28, 0.28])
    assert (table["programs"] == 2).all()


def test_settings_of_other_programs_are_kept(scored):
    chosen = pd.DataFrame({"window": ["20 ms"], "budget": [1.0], "setting": ["looks=4 watched=50"]})
    held_out = replace(scored, chosen=chosen)
    (only,) = scoreboard.standing(held_out).to_dict("records")
    assert only["setting"] == "looks=4 watched=50"
    assert "other programs, beforehand" in scoreboard.page(held_out)
    assert "these same programs" in scoreboard.page(scored)
    assert held_out.lines[0] == (
        "T = 20 ms: no setting of A known share is cheap enough and has an estimate of every "
        "program."
    )


def test_the_answer_is_the_error_within_each_budget(scored):
    answer, source = scored.lines
    assert answer == (
        "T = 20 ms: A known share has a mean error of 14 % of W (95 %: 0 % to 28 %) at a cost of "
        "0.1 % of the instructions. At 1 %, it is 14 % of W (95 %: 0 % to 28 %)."
    )
    assert source == "Means over 2 programs. The settings were chosen on these same programs."
    assert answer in scoreboard.page(scored)
    assert scored.as_dict()["answer"] == f"{answer} {source}"


def test_a_score_is_read_as_it_was_written(scored, tmp_path):
    page = scoreboard.save(scored, tmp_path / "mine")
    again = scoreboard.read(tmp_path / "mine")
    pd.testing.assert_frame_equal(again.rows, scored.rows, rtol=1e-5)
    pd.testing.assert_frame_equal(again.settings, scored.settings)
    assert page.read_text() == scoreboard.page(scored)
    assert "| 20 ms | 10 | looks=1 watched=256 | 14 |" in page.read_text()
    with pytest.raises(PmlkitError, match="contains no score"):
        scoreboard.read(tmp_path)


def test_a_setting_stands_for_a_technique_only_if_it_estimates_every_program(scored):
    missing = (scored.rows["setting"] == "looks=1 watched=256") & (scored.rows["program"] == "more")
    partly = replace(scored, rows=scored.rows.assign(mae=scored.rows["mae"].mask(missing)))
    assert "looks=1 watched=256" not in set(scoreboard.best(partly)["setting"])
    assert scoreboard.standing(replace(partly, chosen=scored.settings)).empty
    elsewhere = scored.settings.assign(window="1 s")  # a T that was not run
    assert scoreboard.standing(replace(scored, chosen=elsewhere)).empty


def test_one_program_has_no_interval(scored):
    rows = scored.rows[scored.rows["program"] == "more"]
    assert "error of 0 % of W at" in replace(scored, rows=rows).lines[0]


def test_two_scores_are_compared_program_by_program():
    def made(errors):
        rows = [(f"p{i}", "1s", "default", error, 0.0, 0.001) for i, error in enumerate(errors)]
        names = ["program", "window", "setting", "mae", "bias", "overhead"]
        return scoreboard.Score("made", pd.DataFrame(rows, columns=names))

    theirs = np.linspace(0.1, 0.2, 8)
    table = scoreboard.compare(made(theirs - 0.05), made(theirs))
    assert set(table["budget"]) == {b for b in scoreboard.BUDGETS if b >= 0.001}
    assert table["difference"].to_numpy() == pytest.approx(-0.05)
    assert table["high"].to_numpy() == pytest.approx(-0.05)
    assert table["p"].to_numpy() == pytest.approx(2 / 2**8)  # all 8 have the same sign
    assert scoreboard.compare(made(theirs), made(theirs))["p"].to_numpy() == pytest.approx(1)


@pytest.mark.filterwarnings("error")
def test_scores_without_a_common_program_have_no_difference():
    def made(program):
        rows = pd.DataFrame({"program": [program], "window": "1s", "setting": "default"})
        return scoreboard.Score("made", rows.assign(mae=0.1, bias=0.0, overhead=0.001))

    table = scoreboard.compare(made("a"), made("b"))
    assert (table["programs"] == 0).all() and len(table)
    assert table[["difference", "low", "high"]].isna().all(axis=None)


def test_a_class_is_loaded_by_its_name():
    assert techniques.make(NAME, watched=7) == Share(watched=7)
    for name, why in (
        (f"{__name__}:", "is not the name of a class"),
        ("nowhere:Share", "cannot be imported"),
        (f"{__name__}:Nothing", "cannot be imported"),
        (f"{__name__}:Kind", "is not a technique"),
        (f"{__name__}:Blind", "lacks observe"),
    ):
        with pytest.raises(UsageError, match=why):
            techniques.make(name)


def test_a_foreign_forecaster_is_judged_beside_the_rules(tmp_path):
    paths = [tmp_path / f"p{seed}.trace" for seed in range(3)]
    for seed, path in enumerate(paths):
        domain = {"name": path.stem, "memory_bytes": 16 << 20, "vcpus": 1}
        make_trace(path, 100, seed=seed, domain=domain)
    plan = trial.Plan("20ms", (1,), ("pml",), (0.05,), rules=("last value",))
    table = scoreboard.score_forecaster(f"{__name__}:Always", paths, paths, plan)
    assert set(table["program"]) == {"p0", "p1", "p2"}
    assert {f"{__name__}:Always", "last value"} <= set(table["model"])
    page = scoreboard.save_forecasts(table, "mine:Always", tmp_path / "scores").read_text()
    assert "# mine:Always on 3 programs" in page and "| last value" in page
    answer, case = scoreboard.forecast_lines(table, "mine:Always")
    assert answer.startswith("mine:Always is better than the best simple rule in 1 of 1 cases")
    assert "`last value, others`" in case and case.endswith("less on 3 of 3 programs.")
    assert answer in page and case in page
    with pytest.raises(UsageError, match="is not a forecaster"):
        analogs.make(NAME)
