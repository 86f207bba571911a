# SPDX-License-Identifier: Apache-2.0
"""Pages by their history, composed logs, saved models, and the command."""

import errno
import json
import os
import pickle
import string
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from forecast_logs import make_log, make_sample

from experiments.extract_log import extract
from pmlkit import cli
from pmlkit.errors import NeedsError, OutputExists, PmlkitError, UsageError
from pmlkit.forecast import compose, log, pages, store
from pmlkit.forecast.analogs import Pooled
from pmlkit.forecast.forecaster import Forecaster
from pmlkit.forecast.models import BoostedQuantiles, LinearQuantiles
from pmlkit.trace.reader import Trace

# Pages


def test_the_history_of_candidates_is_that_of_sets():
    made = make_log(rounds=200)
    table = pages.candidates(made, horizon=3, every=8)
    data = ~made.table
    for origin in (15, 31):
        stop = (origin + 1) * 5
        rows = table[table["origin"] == origin].set_index("gfn")
        recent = data & (made.round < stop) & (made.round >= stop - 80)
        assert set(rows.index) == set(made.gfn[recent])
        soon = set(made.gfn[data & (made.round >= stop) & (made.round < stop + 15)])
        assert len(soon) == table.attrs["used"][origin]
        for gfn in list(rows.index)[::17]:
            mine = made.round[data & (made.gfn == gfn) & (made.round < stop)]
            windows = np.unique(mine[mine >= stop - 80] // 5)
            row = rows.loc[gfn]
            assert row["used"] == (gfn in soon)
            assert row["count4"] == (mine >= stop - 20).sum()
            assert (row["windows"], row["age"]) == (len(windows), origin - windows[-1])
            assert row["known"] == origin - mine[0] // 5
            assert row["gap"] == (windows[-1] - windows[-2] if len(windows) > 1 else 16)


def test_neighbours_are_those_within_eight_frames():
    made = make_log(rounds=85)
    gfn = np.array([100, 101, 108, 109, 300], np.uint64)
    made = replace(made, gfn=gfn, round=np.full(5, 79), table=np.zeros(5, bool), memory_pages=400)
    table = pages.candidates(made, horizon=1, every=1).query("origin == 15").set_index("gfn")
    assert list(table["near1"] * 16) == [2, 3, 3, 2, 0]


def test_a_choice_is_judged_against_all_that_was_used():
    table = pages.candidates(make_log(rounds=200), horizon=3)
    chosen = table["used"].to_numpy()
    found = pages.judge(table, chosen)
    assert found["precision"] == 1 and found["recall"] <= 1
    assert found["size"] == pytest.approx(found["recall"])


def test_the_classifier_beats_chance_on_another_program():
    tables = [pages.candidates(make_log(name, seed=i)) for i, name in enumerate("abc")]
    table = pages.backtest(tables, list("abc"), list("abc"))
    assert set(table["model"]) == {"learned", "best fixed m", "m = 1 in T = 4"}
    assert table["f1"].between(0, 1).all()
    assert len(table) == 9


# Composed logs


@pytest.mark.parametrize("pattern", compose.PATTERNS)
def test_a_composed_log_is_made_of_recorded_rounds_and_says_so(pattern):
    source = make_log("redis-x")
    made = compose.compose(source, pattern, hours=12, hour_ns=2_000_000_000)
    assert made.name == f"composed {pattern} of redis-x" and made.composed
    assert made.program == source.program and made.n_rounds == 12 * 20
    rounds = {tuple(source.gfn[source.round == r]) for r in range(source.n_rounds)}
    assert {tuple(made.gfn[made.round == r]) for r in range(made.n_rounds)} <= rounds | {()}
    again = compose.compose(source, pattern, hours=12, hour_ns=2_000_000_000)
    assert again.digest() == made.digest()
    other = compose.compose(source, pattern, hours=12, hour_ns=2_000_000_000, seed=1)
    assert other.digest() != made.digest()


def test_a_daily_load_comes_again_each_day():
    source = make_log("redis-x", rounds=2000)
    made = compose.compose(source, "daily", hours=96, hour_ns=2_000_000_000)
    loads = np.bincount(made.round, minlength=made.n_rounds).reshape(4, 24, 20).mean(axis=2)
    assert np.corrcoef(loads)[0, 1:].min() > 0.4
    assert loads[:, 9:12].mean() > 1.2 * loads[:, 1:5].mean()


def test_composing_what_is_composed_or_by_no_pattern():
    made = compose.compose(make_log(), "walk", hours=4, hour_ns=2_000_000_000)
    with pytest.raises(UsageError, match="already composed"):
        compose.compose(made, "walk")
    for hours in (0, -1, 8785, 1 << 63, 10**30):
        with pytest.raises(UsageError, match="hours"):
            compose.compose(make_log("redis-x"), "daily", hours=hours)
    with pytest.raises(UsageError, match="no pattern"):
        compose.compose(make_log(), "weekly")


def test_a_composed_trace_reads_as_the_log_that_was_written(tmp_path):
    of = replace(make_log("redis-x"), ns_per_insn=8.0)
    made = compose.compose(of, "daily", hours=4, hour_ns=2_000_000_000)
    with pytest.raises(UsageError, match="name must start with this word"):
        compose.write(made, tmp_path / "x.trace")
    with pytest.raises(UsageError, match="is not composed"):
        compose.write(make_log(), tmp_path / "composed.trace")
    trace = compose.write(made, tmp_path / "composed-x.trace")
    trace.check()
    assert trace.meta.source == "composed" and "no guest ran" in trace.meta.notes[0]
    read = log.read(trace)
    assert read.digest() == made.digest()
    assert read.ns_per_insn == trace.meta.time.ns_per_insn == 8.0  # its parts' machine
    assert (read.composed, read.program, read.day_ns) == (True, "redis", made.day_ns)
    assert list(read.phase) == list(made.phase)


# The log of a trace


def test_a_log_is_that_of_the_trace(make_trace):
    trace = make_trace(rounds=12, phases=[("a", 0), ("b", 6)], guest=True)
    found = log.read(trace)
    entries = trace.pml.to_pandas(["round", "gfn"])
    np.testing.assert_array_equal(found.gfn, entries["gfn"])
    np.testing.assert_array_equal(found.round, entries["round"])
    assert list(found.phase) == ["a"] * 6 + ["b"] * 6
    part = log.read(trace, start=30_000_000, end=70_000_000)
    assert part.n_rounds == 4 and part.round.max() <= 3
    assert list(part.phase) == ["a"] * 3 + ["b"]


def test_a_log_by_itself_is_the_nested_one_with_the_guest(make_trace, tmp_path):
    trace = make_trace(rounds=8, guest=True, provenance={"command": "pmlkit record x"})
    made = extract(trace, tmp_path / "log.trace")
    made.check()
    assert made.meta.kind == "pml" and made.guest.equals(trace.guest)
    assert made.to_pandas().equals(trace.pml.to_pandas())
    assert made.meta.provenance["command"].endswith("experiments.extract_log data/log.trace")
    with pytest.raises(NeedsError, match="nested PML log"):
        extract(made, tmp_path / "again.trace")


# Saved models


@pytest.fixture(scope="module")
def samples():
    return [make_sample(name, seed=i) for i, name in enumerate("ab")]


@pytest.mark.parametrize(
    "forecaster",
    [
        Forecaster(BoostedQuantiles((0.5, 0.9), max_iter=5)),
        Forecaster(LinearQuantiles((0.5, 0.9), features=4), eta=0.2, online=False),
        Pooled(Forecaster(BoostedQuantiles((0.5, 0.9), max_iter=5), 2), eta=0.2),
    ],
    ids=["boosted", "linear", "pooled"],
)
def test_a_saved_model_forecasts_the_same(forecaster, samples, tmp_path):
    fitted = forecaster.fit(samples)
    store.save(fitted, tmp_path / "m.skops", "500ms", {"a": "12", "b": "34"})
    saved = store.load(tmp_path / "m.skops")
    assert (saved.window, saved.data) == ("500ms", {"a": "12", "b": "34"})
    assert set(saved.versions) == {"pmlkit", "scikit-learn"}
    one = make_sample("c", seed=3)
    np.testing.assert_array_equal(saved.forecaster.predict(one), fitted.predict(one))
    np.testing.assert_array_equal(saved.forecaster.scenarios(one), fitted.scenarios(one))
    with pytest.raises(OutputExists):
        store.save(fitted, tmp_path / "m.skops", "500ms", {})


def test_files_of_strangers_are_refused(tmp_path):
    import skops.io  # a second, of which a worker that does not run this test has no use

    path = tmp_path / "m.skops"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(store.ModelRefused, match="cannot be read"):
        store.load(path)
    path.write_bytes(skops.io.dumps({"x": 1}))
    with pytest.raises(store.ModelRefused, match="not a forecaster"):
        store.load(path)
    path.write_bytes(skops.io.dumps({"format": store.FORMAT, "x": string.Formatter()}))
    with pytest.raises(store.ModelRefused, match="string.Formatter"):
        store.load(path)
    with pytest.raises(store.ModelRefused, match="no such file"):
        store.load(tmp_path / "none.skops")


def test_a_model_that_may_not_be_read_is_not_a_wrong_file(tmp_path, monkeypatch):
    (tmp_path / "m.skops").write_bytes(b"a model")

    def denied(path, limit_bytes):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store, "read_regular", denied)
    with pytest.raises(PmlkitError, match="cannot read .*m.skops .Permission denied.: check its"):
        store.load(tmp_path / "m.skops")


# The command


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Bundled recordings of two small programs; returns the folder."""
    for i, name in enumerate(("gcc-jobs", "redis-tides")):
        made = compose.compose(make_log(name, seed=i), "walk", hours=15, hour_ns=2_000_000_000)
        written = compose.write(made, tmp_path / f"composed-{name}.trace")
        written.path.rename(tmp_path / f"{name}.trace")
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    return tmp_path


def call(capsys, *words):
    code = cli.main(["forecast", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_model_that_would_unpack_to_gigabytes_or_is_no_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.npy", bytes(50 << 20))
    with pytest.raises(store.ModelRefused, match="would unpack to 150 MiB, and the limit is 128"):
        store.load(tmp_path / "bomb")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(store.ModelRefused, match="it is a FIFO"):
        store.load(tmp_path / "fifo")
    with pytest.raises(store.ModelRefused, match="it is a device"):
        store.load("/dev/zero")


def test_the_command_forecasts_with_a_saved_model(bundled, capsys):
    model, trace = bundled / "m.skops", bundled / "redis-tides.trace"
    code, out, err = call(capsys, bundled / "gcc-jobs.trace", "--save", model, "--learner",
                          "linear", "--horizon", 2)  # fmt: skip
    assert (code, err) == (0, "") and "trained on gcc-jobs" in out
    code, out, _ = call(capsys, trace, "--model", model, "--json")
    (found,) = json.loads(out)
    assert code == 0 and found["trained_on"] == ["gcc-jobs"]
    assert found["for_s"] == found["from_s"] + 2 * 0.5
    assert found["summary"]["give_mib"] == found["quantiles_mib"]["0.95"]
    assert found["summary"]["past_short"] is None
    quantiles = list(found["quantiles_mib"].values())
    assert quantiles == sorted(quantiles) and found["composed"] is True
    assert found["data"]["gcc-jobs"] == log.read(Trace.open(bundled / "gcc-jobs.trace")).digest()


def test_the_command_recommends_and_says_what_is_written(bundled, capsys):
    code, out, _ = call(capsys, bundled / "redis-tides.trace", "--learner", "linear")
    assert code == 0
    words = " ".join(out.split())  # not folded
    assert "written, by PML's log" in words and "written at" in words
    assert "recommended: " in words and "may have more written" in words
    assert "used" not in words
    found = json.loads(
        call(capsys, bundled / "redis-tides.trace", "--learner", "linear", "--json")[1]
    )
    summary, behind = found[0]["summary"], found[0]["recommended"]
    assert (summary["give_mib"], summary["past_short"]) == (behind["mib"], behind["violations"])
    first = out.partition("\n\n")[0]
    assert " ".join(first.split()) == summary["answer"]  # its lines are folded
    assert "for what is written (reads come on top)" in summary["answer"]


def test_a_log_alone_has_no_other_inputs(bundled, capsys):
    code, _, err = call(capsys, bundled / "redis-tides.trace", "--inputs", "sample")
    assert code != 0 and "sample of accessed flags" in err and "--inputs pml" in err


def test_the_command_composes(bundled, capsys):
    made = make_log("gcc-jobs")
    code, _, err = call(capsys, bundled / "gcc-jobs.trace", "--compose", "daily", "-o",
                        bundled / "composed-y.trace")  # fmt: skip
    assert code == 2 or "already composed" in err
    assert made.composed is False


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "name a TRACE"),
        (["x.trace", "--save", "m", "--backtest"], "use one"),
        (["x.trace", "--model", "m", "--horizon", "3"], "use it without these options"),
        (["x.trace", "--compose", "walk"], "--compose takes one TRACE"),
    ],
)
def test_wrong_use_of_the_command(capsys, words, says):
    code, _, err = call(capsys, *words)
    assert code == 2 and says in err and err.count("\n") == 1
