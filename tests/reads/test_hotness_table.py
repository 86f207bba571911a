# SPDX-License-Identifier: Apache-2.0
"""The window of a ranking is chosen on some guests and judged on the others."""

import pandas as pd
import pytest

from pmlkit import bundled
from pmlkit.errors import NeedsError
from pmlkit.notebook import reads_tables
from pmlkit.reads import calibration, hotness
from pmlkit.trace.reader import Trace


def table(**correlations):
    """Scores of guests, `{guest: {window: correlation}}`; by the share they are half of it."""
    rows = [
        {"guest": guest, "truth": truth, "window": window, "by": by, "correlation": value * part}
        for guest, windows in correlations.items()
        for window, value in windows.items()
        for truth in ("pages", "rounds")
        for by, part in (("place", 1), ("share", 0.5))
    ]
    return pd.DataFrame(rows).assign(precision=0.5, chance=0.1, regions=20)


def test_what_is_judged_was_not_chosen_on():
    scores = table(
        redis={"2r": 0.9, "5r": 0.5}, gcc={"2r": 0.7, "5r": 0.8}, sqlite={"2r": 0.1, "5r": 1.0}
    )
    assert hotness.choose(scores) == "2r"
    found = hotness.judge(scores, "2r")
    assert found["guest"].tolist() == ["sqlite", "sqlite"]
    assert found["truth"].tolist() == ["rounds", "pages"]
    assert found["correlation"].tolist() == [0.1, 0.1]
    assert found["share_correlation"].tolist() == pytest.approx([0.05, 0.05])


def test_without_a_guest_to_choose_on_nothing_is_chosen():
    with pytest.raises(NeedsError, match="choose on"):
        hotness.choose(table(sqlite={"2r": 0.9}))


def test_a_recording_is_scored_as_its_table_says(tmp_path):
    path = bundled("hotcold")
    assert hotness.main([str(tmp_path / "out.csv"), str(path)]) == 0
    made = pd.read_csv(tmp_path / "out.csv")
    kept = calibration.load("hotness-recorded")
    kept = kept[kept["guest"] == "hotcold"].reset_index(drop=True)
    pd.testing.assert_frame_equal(made, kept, atol=1e-3)
    assert Trace.open(path).n_rounds > 200


def test_the_time_of_the_first_log_does_better_than_its_share_on_the_recordings():
    found = reads_tables.hotness_scores()
    often = found[(found["source"] == "recorder") & (found["truth"] == "rounds")]
    assert (often["correlation"] > often["share_correlation"]).all()
    assert (often["precision"] > often["share_precision"]).all()
    assert not set(found["guest"]) & set(hotness.CHOSEN_ON)
