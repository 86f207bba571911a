# SPDX-License-Identifier: Apache-2.0
"""What a forecast may look at: by sets, and what it must not know."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from factories import make_trace
from forecast_logs import make_used, make_used_sample

import pmlkit
from pmlkit import workingset
from pmlkit.errors import NeedsError, UsageError
from pmlkit.forecast import features, log, peaks, study
from pmlkit.forecast.forecaster import design_matrix, targets
from pmlkit.reads.sampled import sampled

K = 5  # rounds of a window


def sets(gfn, rounds, window):
    return set(gfn[(rounds // K) == window].tolist())


@pytest.mark.parametrize("inputs", log.INPUTS)
def test_working_sets_are_those_of_sets(inputs):
    one = make_used(inputs=inputs, rounds=60, one_in=4)
    table = features.table(one, "500ms")
    frames = {g for g in one.used.gfn.tolist() if sampled(np.array([g], np.uint64), 4)[0]}
    for window in range(12):
        used = sets(one.used.gfn, one.used.round, window)
        logged = sets(one.gfn, one.round, window)
        data = sets(one.gfn[~one.table], one.round[~one.table], window)
        seen = {
            "pml": len(data),
            "sample": 4 * len(used & frames),
            "pml+sample": len(logged) + 4 * len((used & frames) - logged),
        }
        assert table["used"][window] == len(used)
        assert table["pages"][window] == seen[inputs]
        if inputs == "pml+sample":
            assert table["log_pages"][window] == len(data)


def test_all_frames_as_a_sample_see_what_is_used():
    table = features.table(make_used(inputs="sample", one_in=1), "500ms")
    assert (table["pages"] == table["used"]).all()


def features_of(one):
    return features.table(one, "500ms").drop(columns="used", errors="ignore")


def test_a_sample_alone_knows_nothing_of_the_log():
    one = make_used(inputs="sample", rounds=100)
    other = replace(one, gfn=one.gfn[::-1].copy(), exits=one.exits + 7, pause_ns=one.pause_ns + 9)
    assert features_of(one).equals(features_of(other))


@pytest.mark.parametrize("inputs", log.INPUTS)
def test_the_truth_is_no_feature(inputs):
    one = make_used(inputs=inputs, rounds=100)
    blind = replace(one, used=None)
    assert features_of(one).equals(features_of(blind))
    assert "used" not in design_matrix(features.table(one, "500ms"))


def test_what_is_forecast_has_its_name():
    assert make_used(inputs="pml").measures == "used"
    assert replace(make_used(inputs="pml"), used=None).measures == "written"
    assert replace(make_used(inputs="sample"), used=None).measures == "used (sampled)"


def test_pml_alone_never_sees_what_came():
    blind, seeing = make_used_sample(inputs="pml"), make_used_sample(inputs="pml+sample")
    assert not blind.feedback and np.isnan(blind.seen(2)).all()
    seen = targets(seeing.table.drop(columns="used"), 2)
    np.testing.assert_array_equal(seeing.seen(2), seen)


def test_a_recording_is_read_as_each_of_the_inputs():
    trace = pmlkit.open(pmlkit.bundled("hotcold"))
    step_ns = log.step_of(trace, "500ms", features.PARTS)
    assert step_ns == 100_000_000
    logs = {i: log.read(trace, inputs=i, step_ns=step_ns) for i in log.INPUTS}
    tables = {i: features.table(one, "500ms") for i, one in logs.items()}
    truth = workingset.estimate(trace, "500ms")["pages"][: len(tables["pml"])]
    for table in tables.values():
        np.testing.assert_array_equal(table["used"], truth)
    assert (tables["pml"]["pages"] < truth).all()
    errors = (tables["pml+sample"]["pages"] - truth).abs() / truth
    assert errors.mean() < 0.1


def test_a_log_alone_has_no_sample(tmp_path):
    make_trace(tmp_path / "x.trace", kind="pml")
    trace = pmlkit.open(tmp_path / "x.trace")
    assert log.best_inputs(trace) == "pml"
    with pytest.raises(NeedsError, match="sample of accessed flags"):
        log.read(trace, inputs="sample")
    with pytest.raises(UsageError, match="not known"):
        log.read(trace, inputs="everything")


@pytest.fixture(scope="module")
def studied():
    logs = [make_used(f"{name}-x", seed=i, rounds=300) for i, name in enumerate("ab")]
    return study.Study(tuple(logs))


def test_pages_that_are_only_read_are_in_no_log(studied):
    """The logs use as many pages again as they write: nothing that looks at the log finds them."""
    found = studied.pages
    assert (found["recall"] <= 0.55).all() and (found["recall"] > 0.2).all()


def test_a_peak_is_one_of_what_is_used():
    table = pd.DataFrame({"pages": [10] * 60, "used": [10] * 40 + [100] + [10] * 19})
    found = peaks.alarms(table, np.full(60, 50.0), np.zeros(60), 0.5, horizon=4, window_s=0.5)
    assert (found["peaks"], found["recall"]) == (1, 0)


def test_a_study_says_what_its_inputs_and_target_are(studied):
    about = study.about(studied)
    assert set(about["inputs"]) == {"pml+sample"} and set(about["measures"]) == {"used"}
    used = [sample.table["used"].max() / 256 for sample in studied.samples]
    np.testing.assert_allclose(about["max_mib"], used)


def test_of_pml_alone_no_peaks_of_what_is_used_are_judged():
    logs = [make_used(f"{name}-x", "pml", seed=i, rounds=300) for i, name in enumerate("ab")]
    assert study.Study(tuple(logs)).peaks.empty
