# SPDX-License-Identifier: Apache-2.0
"""The batch of techniques on traces, its tables and its figures."""

import json

import numpy as np
import pandas as pd
import pytest
from factories import write_irregular
from full_disk import fill_at

import pmlkit
from pmlkit import cli, compare, frontier, interop, recordings, workingset
from pmlkit.compare import SIMULATED
from pmlkit.errors import NeedsError, OutputError, ResolutionError, UsageError
from pmlkit.figures import compare as figures_compare
from pmlkit.figures import compare as figures_overview
from pmlkit.figures import compare_tables
from pmlkit.techniques import TECHNIQUES, published
from pmlkit.trace.kinds import Kind
from pmlkit.trace.schema import MEMORY_GUESSED

FAST = "pml,prl,vmware"
READ, WRITE = Kind.READ, Kind.WRITE


def events(pages):
    """Rounds in each of which so many pages are read, and the first half of them written."""
    return [[(p, READ) for p in range(n)] + [(p, WRITE) for p in range(n // 2)] for n in pages]


@pytest.fixture(scope="module")
def stepping(make_shared_trace):
    """100 pages, then 400: rounds of 10 ms, a window T of 50 ms."""
    return make_shared_trace(
        "stepping.trace",
        events=events([100] * 40 + [400] * 40 + [100] * 40),
        phases=[("few", 0), ("many", 40), ("few2", 80)],
        guest=True,
    )


@pytest.fixture(scope="module")
def comparison(stepping):
    plan = compare.plan("50ms", FAST + ",zballoond,geiger", seeds=3)
    return compare.compare([stepping.path], plan)


def row(comparison, technique):
    return comparison.scores.set_index("technique").loc[technique]


def test_scores_are_those_of_what_is_known(comparison):
    pml, prl = row(comparison, "pml"), row(comparison, "prl")
    # PML sees the written half. Both say it per T, and are late by up to T after a step.
    assert pml["p95"] == pytest.approx(0.5, abs=0.01) or pml["p95"] > 0.5
    assert prl["mape"] < 0.3 * pml["mape"]
    assert (prl["up"], prl["down"]) == (1.0, 1.0)
    assert pml["lost_steps"] == 1
    assert row(comparison, "vmware")["seeds"] == 3 and row(comparison, "vmware")["mape_ci"] > 0
    assert pml["mape_ci"] == 0
    assert row(comparison, "zballoond")["active"] and row(comparison, "zballoond")["intrusive"]


def test_what_a_technique_lacks_is_in_its_row(comparison):
    assert row(comparison, "geiger")["missing"] == "disk requests"
    table = compare_tables.shown(comparison, "stepping").set_index("technique")
    assert table.loc["Geiger", "note"] == "the trace has no disk requests"
    assert np.isnan(table.loc["Geiger", "MAPE %"])


def test_the_parts_fit_together(comparison):
    assert comparison.traces == ["stepping"]
    assert set(comparison.estimates["technique"]) == {"pml", "prl", "vmware", "zballoond"}
    assert comparison.truth["pages"].max() == 400
    events = comparison.events[comparison.events["technique"] == "pml"].set_index("event")
    assert events.loc["rounds", "count"] == 24
    steps = comparison.steps[comparison.steps["technique"] == "prl"]
    assert steps["up"].tolist() == [True, False] and steps["after"].tolist() == [400, 100]


def test_several_jobs_give_the_same(stepping, make_trace):
    other = make_trace("other.trace", rounds=30, guest=True).path
    plan = compare.plan("50ms", FAST, seeds=2)
    one = compare.compare([stepping.path, other], plan)
    two = compare.compare([stepping.path, other], plan, jobs=2)
    for name in ("scores", "estimates", "truth", "steps", "events"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))


def test_a_trace_that_cannot_be_compared_ends_the_batch(stepping, make_trace):
    log = make_trace("log.trace", kind="pml").path
    with pytest.raises(NeedsError, match="record of all accesses"):
        compare.compare([stepping.path, log], compare.plan("50ms", FAST))


@pytest.mark.parametrize(
    "plan, says",
    [
        ({"techniques": "pml,nonsense"}, "no technique 'nonsense'"),
        ({"window": "1x"}, "not a duration"),
        ({"seeds": 0}, "1 or more"),
        ({"scale": "quick"}, "neither auto nor a number"),
        ({"scale": 0}, "above 0"),
        ({"scale": "inf"}, "above 0"),
        ({"scale": "1e300"}, "above 0, and at most 1,000,000"),
        ({"scale": "nan"}, "above 0"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan, says):
    with pytest.raises(UsageError, match=says):
        compare.plan(**plan)


@pytest.mark.parametrize("plan", [compare.plan, frontier.plan])
def test_a_technique_that_is_named_twice_runs_once(plan):
    assert plan("50ms", techniques="prl, pml,prl").names == ("prl", "pml")
    assert len(plan("50ms").names) == len(TECHNIQUES)


def test_two_traces_of_one_name_are_refused(stepping):
    with pytest.raises(UsageError, match="each name only once"):
        compare.compare([stepping.path, stepping.path])


def test_the_front_is_what_no_other_beats():
    table = pd.DataFrame(
        {"overhead": [1, 2, 3, 4, 2], "mape": [9, 5, 6, 1, np.nan]}, index=list("abcde")
    )
    assert list(compare.pareto(table).index) == ["a", "b", "d"]


def test_the_caption_says_what_was_scaled(comparison):
    assert "T = 50 ms" in comparison.caption and "multiplied by 0.00167" in comparison.caption
    assert "T = 50 ms on machines of 1,000 M instructions a second;" in comparison.caption
    speeds = pd.DataFrame({"ns_per_insn": [10.0, 8.0, 10.0, np.nan], "trace": "x", "losses": ""})
    plain = compare.Comparison(compare.plan("30s"), speeds, *[None] * 4)
    assert "sources as published. They differ in their number of looks and in cost" in plain.caption
    assert "on machines of 125 or 100 M instructions a second or hosts" in plain.caption


def test_a_hosts_trace_has_no_overhead_unless_it_is_told(make_trace, capsys):
    """Prices are in instructions: how many a host executes in a second, its trace does not say."""
    path = make_trace("host.trace", rounds=30, clock={"kind": "host", "ns_per_insn": None}).path
    untold = compare.compare([path], compare.plan("50ms", "pml"))
    assert np.isnan(row(untold, "pml")["overhead"]) and row(untold, "pml")["mape"] >= 0
    assert "no overhead: a cost in instructions" in row(untold, "pml")["notes"]
    assert "give `ns_per_insn`" in row(untold, "pml")["notes"]
    insn = untold.events["insn"].sum()
    told = compare.compare([path], compare.plan("50ms", "pml", ns_per_insn=0.5))
    length_ns = pmlkit.open(path).duration_ns
    assert row(told, "pml")["overhead"] == pytest.approx(insn * 0.5 / length_ns)
    command = ["compare", str(path), "--window", "50ms", "--techniques", "pml", "--json"]
    assert cli.main([*command, "--ns-per-insn", "0.5"]) == 0
    report = json.loads(capsys.readouterr().out)["scores"][0]
    assert report["overhead"] == row(told, "pml")["overhead"]
    # What a trace says of its own clock stays.
    with pytest.raises(UsageError, match="a number above 0"):
        compare.plan(ns_per_insn=0)


# What is written


def test_tables_and_figures_are_written(comparison, tmp_path):
    written = {path.name for path in compare_tables.save(comparison, tmp_path)}
    assert {"scores.parquet", "tables.html", "table-stepping.tex", "costs.csv"} <= written
    for stem in ("time-stepping", "pareto-stepping", "steps-stepping"):
        assert {f"{stem}.pdf", f"{stem}.svg", f"{stem}.png"} <= written
    tex = (tmp_path / "table-stepping.tex").read_text()
    assert "VMware sampling" in tex and r"\toprule" in tex and "multiplied by" in tex
    page = (tmp_path / "tables.html").read_text()
    assert page.count("<tr>") == 6 and "no disk requests" in page
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 5


def test_a_full_disk_leaves_no_file(comparison, tmp_path, monkeypatch):
    fill_at(monkeypatch, "steps-stepping.png")
    with pytest.raises(OutputError, match=r"steps-stepping\.png .no space left"):
        compare_tables.save(comparison, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_html_is_escaped():
    page = compare_tables.html({"a<b": pd.DataFrame({"x&y": ["<script>"]})}, "c<d")
    assert "<script>" not in page and "a&lt;b" in page and "x&amp;y" in page


def test_an_overview_has_a_column_per_trace_and_their_mean(stepping, make_trace):
    other = make_trace("other.trace", rounds=30, guest=True).path
    comparison = compare.compare([stepping.path, other], compare.plan("50ms", FAST, seeds=1))
    wide = compare_tables.overview(comparison)
    assert list(wide.columns) == ["technique", "stepping", "other", "mean", "median", "from", "to"]
    assert wide["mean"][0] == pytest.approx((wide["stepping"][0] + wide["other"][0]) / 2)
    assert figures_compare.error_against_overhead(comparison).caption.startswith(
        "median of 2 record"
    )


def test_real_and_simulated_page_tables_have_no_common_mean(stepping):
    """The lab's recordings have page tables; others have a substitute for them."""
    plan = compare.plan("1s", "pml-page-tables,idle-pages", seeds=1)
    comparison = compare.compare([stepping.path, pmlkit.bundled("rrww-lab")], plan)
    wide = compare_tables.overview(comparison).set_index("technique")
    real, simulated = (wide.loc[f"PML with page tables{end}"] for end in ("", SIMULATED))
    assert np.isnan(real["stepping"]) and real["mean"] == real["rrww-lab"]
    assert np.isnan(simulated["rrww-lab"]) and simulated["mean"] == simulated["stepping"]
    points = figures_compare.error_against_overhead(comparison).data["points"]
    assert set(points["technique"]) == {
        "idle-pages",
        "pml-page-tables",
        "pml-page-tables (simulated tables)",
    }
    assert comparison.best.technique == "idle-pages"  # the only one with an error for both
    kinds = comparison.scores.set_index(["technique", "trace"])["simulated"].to_dict()
    assert kinds.pop(("pml-page-tables", "stepping")) and not any(kinds.values())
    for trace, end in (("stepping", SIMULATED), ("rrww-lab", "")):
        axes = figures_compare.over_time(comparison, trace).get_axes()[0]
        assert axes.get_title().replace("\n", " ") == f"PML with page tables{end}"


def test_an_overview_too_wide_for_a_terminal_keeps_its_means():
    ends = ["mean", "median", "from", "to"]
    wide = pd.DataFrame(columns=["technique", *map(str, range(20)), *ends])
    assert list(compare_tables.narrow(wide).columns) == ["technique", *ends]
    few = wide[["technique", "1", "mean", "median"]]
    assert compare_tables.narrow(few) is few


def test_the_picture_of_a_batch_sorts_by_median_and_says_who_is_silent(comparison, stepping):
    figure = figures_overview.errors(comparison)
    axes = figure.get_axes()[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-1] == "Geiger" and len(names) == 5
    assert [label.get_text() for label in axes.get_xticklabels()] == ["median", "stepping"]
    mae = comparison.scores.set_index("title")["mae"].sort_values()
    assert names[:4] == mae.index[:4].tolist()


def test_figures_of_silence(make_trace):
    """No phases, no steps; a technique that never says anything."""
    path = make_trace("quiet.trace", rounds=12, guest=True).path
    comparison = compare.compare([path], compare.plan("50ms", "prl-plateau"))
    for name, figure in figures_compare.all_of(comparison):
        assert figure.get_axes(), name


def test_panels_show_every_technique_that_says_something(comparison):
    figure = figures_compare.over_time(comparison, "stepping")
    titles = [axes.get_title().replace("\n", " ") for axes in figure.get_axes() if axes.axison]
    assert titles == [TECHNIQUES[n].title for n in ("pml", "prl", "vmware", "zballoond")]
    assert "T = 50ms" in figure.caption


# The command


@pytest.fixture
def run(capsys):
    def call(*words):
        code = cli.main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


def test_the_command_prints_a_table_and_json(run, stepping):
    options = ("--techniques", FAST, "--window", "50ms", "--seeds", "2")
    code, out, err = run("compare", stepping.path, *options)
    assert (code, err) == (0, "")
    assert "VMware sampling" in out and "multiplied by" in out
    code, out, err = run("compare", stepping.path, *options, "--json")
    report = json.loads(out)
    assert [r["technique"] for r in report["scores"]] == ["pml", "prl", "vmware"]
    assert report["scores"][0]["overhead"] > 0


def test_the_command_lists_the_techniques(run):
    code, out, _ = run("compare", "--list", "--json")
    techniques = json.loads(out)
    assert code == 0 and list(techniques) == list(TECHNIQUES)
    assert (
        techniques["vmware"]["needs"] == ["traps"]
        and techniques["vmware"]["parameters"]["watched"] == 100
    )
    assert techniques["badis"]["parameters"] == {"watched": 100, "looks": None}
    assert "MISSING" not in out


def test_the_command_takes_an_experiment(run, stepping, tmp_path, monkeypatch):
    pytest.importorskip("pmlkit.batch.schema")
    file = tmp_path / "two.yaml"
    file.write_text(
        f"title: two windows\ntraces: [{stepping.path}]\nruns:\n  - notebook: 04_compare\n"
        "    parameters: {techniques: 'pml,prl', seeds: 1}\n    grid: {window: [50ms, 100ms]}\n"
    )
    monkeypatch.setattr(compare_tables, "save", compare_tables.save_tables)  # figures take long
    code, out, err = run("compare", file, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"T-50ms", "T-100ms"}
    assert "T = 100 ms" in out


def test_two_experiments_have_the_windows_of_both(run, stepping, tmp_path):
    pytest.importorskip("pmlkit.batch.schema")
    files = [tmp_path / f"{window}.yaml" for window in ("50ms", "100ms")]
    for file in files:
        file.write_text(
            f"title: one window\ntraces: [{stepping.path}]\nruns:\n  - notebook: 04_compare\n"
            f"    parameters: {{techniques: pml, seeds: 1, window: {file.stem}}}\n"
        )
    code, out, err = run("compare", *files, "--summary")
    assert (code, err) == (0, "") and "T = 50 ms" in out and "T = 100 ms" in out


def test_two_experiments_that_differ_at_one_window_are_refused(run, stepping, tmp_path):
    pytest.importorskip("pmlkit.batch.schema")
    files = [tmp_path / f"{seeds}.yaml" for seeds in (1, 2)]
    for file in files:
        file.write_text(
            f"title: one window\ntraces: [{stepping.path}]\nruns:\n  - notebook: 04_compare\n"
            f"    parameters: {{techniques: pml, seeds: {file.stem}, window: 50ms}}\n"
        )
    code, out, err = run("compare", *files, "--summary")
    assert (code, out) == (2, "") and "two comparisons with T = 50ms differ" in err


def test_a_trace_that_has_to_be_made_first_is_named_with_its_command(run, tmp_path):
    pytest.importorskip("pmlkit.batch.schema")
    file = tmp_path / "missing.yaml"
    file.write_text(
        "title: t\ntraces: [{trace: nowhere.trace, made_by: pmlkit record idle -o nowhere.trace}]\n"
        "runs: [{notebook: 04_compare}]\n"
    )
    code, _, err = run("compare", file)
    assert code == 1 and "use --record, or make it with `pmlkit record idle" in err


@pytest.mark.parametrize(
    "words, says",
    [((), "name a TRACE"), (("x.trace", "--techniques", "a"), "no technique 'a'")],
)
def test_wrong_use(run, words, says):
    code, _, err = run("compare", *words)
    assert code == 2 and says in err


@pytest.mark.parametrize("name", ["compare", "reproduce-prl"])
def test_the_experiments_name_workloads_that_there_are(name):
    from pathlib import Path

    from pmlkit.batch.schema import load
    from pmlkit.sources.guest.workload import list_workloads

    experiment = load(recordings.ROOT / "experiments" / f"{name}.yaml")
    known = {workload.name for workload in list_workloads()}
    for trace, made_by, _ in experiment.runs[0].traces:
        stem = Path(trace).name.removesuffix(".trace")
        assert stem in known or trace in pmlkit.bundled()
        assert not made_by or made_by.startswith(f"pmlkit record {stem} ")


def test_the_batch_has_every_workload_that_can_be_recorded():
    from pathlib import Path

    from tree import tracked

    from pmlkit.batch.schema import load

    experiment = load(recordings.ROOT / "experiments" / "compare.yaml")
    named = {Path(trace).name.removesuffix(".trace") for trace, _, _ in experiment.runs[0].traces}
    assert {p.parent.name for p in tracked("experiments/workloads/*/workload.yaml")} <= named


# The published experiment


def sweep(letters, pages=128, rounds=10):
    """`letters` as phases of a buffer that is read or written, a tenth of it each round."""
    made, part = [], pages // rounds
    for letter in letters:
        for r in range(rounds):
            kind = WRITE if letter == "w" else READ
            made.append([(p, kind) for p in range(r * part, (r + 1) * part)])
    return made


def test_the_published_experiment_counts_distinct_pages_since_its_start(make_trace):
    trace = make_trace(
        "rrww.trace",
        events=[[]] * 3 + sweep("rrww") + [[]],
        phases=[("start", 0), ("read1", 3), ("read2", 13), ("write1", 23), ("write2", 33),
                ("done", 43)],
        domain={"name": "rrww", "memory_bytes": 16 << 20, "vcpus": 1},
    )  # fmt: skip
    table = published.reproduce([trace.path], seeds=3).set_index(["technique", "where"])["ours"]
    assert table["PML", "read phases"] == "0"
    whole = 120 / 256  # MB
    assert table["PML", "second write phase"] == f"{whole:.3g}"
    first = [float(mb) for mb in table["PML", "first write phase"].split(", ")]
    assert first == sorted(first) and first[-1] == pytest.approx(whole, abs=0.01)
    assert table["PRL", "all phases"] == f"{whole:.3g}"


def test_another_workload_is_not_the_published_one(make_trace):
    with pytest.raises(UsageError, match="the published experiment has rrww, rwrw, wwrr"):
        published.reproduce([make_trace(rounds=3).path])


# A part of the recording


def test_a_part_is_scored_as_the_whole_runs_estimates_are_there(stepping):
    """By hand: windows T within [300 ms, 1 s), each against the latest estimate of the whole."""
    whole = compare.compare([stepping.path], compare.plan("50ms", FAST, seeds=1))
    part = compare.compare([stepping.path], compare.plan("50ms", FAST, "auto", 1, "300ms", "1s"))
    ends = np.arange(350, 1001, 10) * 10**6
    truth = whole.truth.set_index("t_ns")["pages"]
    assert part.truth["t_ns"].tolist() == ends.tolist()
    assert part.truth["pages"].tolist() == truth[ends].tolist()
    for name in FAST.split(","):
        estimates = whole.estimates[whole.estimates["technique"] == name].set_index("t_ns")["pages"]
        errors = np.array([estimates.loc[:t].iloc[-1] - truth[t] for t in ends])
        mine = row(part, name)
        assert mine["mape"] == pytest.approx(np.mean(np.abs(errors) / truth[ends]))
        assert mine["bias"] == pytest.approx(errors.mean() / truth[ends].mean())
        times = part.estimates.loc[part.estimates["technique"] == name, "t_ns"]
        assert times.iloc[1:].between(3e8 + 1, 1e9).all() and times.iloc[0] <= 3e8
    assert row(whole, "prl")["mape"] != row(part, "prl")["mape"]
    assert "300 ms to 1 s" in part.caption and "300 ms" not in whole.caption


def test_steps_and_events_of_a_part_are_those_within_it(stepping):
    plan = compare.plan("50ms", "pml", start="300ms", end="800ms")
    part = compare.compare([stepping.path], plan)
    assert part.steps[["t_ns", "up"]].values.tolist() == [[4 * 10**8, True]]
    counts = part.events.set_index("event")["count"]
    assert counts["rounds"] == 10  # one per T
    assert row(part, "pml")["overhead"] == pytest.approx(part.events["insn"].sum() / 5e8)


def test_parts_that_meet_have_the_events_of_the_whole(stepping):
    def counts(*span):
        plan = compare.plan("50ms", FAST, "auto", 1, *span)
        events = compare.compare([stepping.path], plan).events
        return events.set_index(["technique", "event"])["count"]

    early, late = counts(None, "620ms"), counts("620ms", None)
    assert early.add(late, fill_value=0).to_dict() == counts().to_dict()


def test_the_whole_as_a_part_is_the_whole(stepping):
    whole, part = (
        compare.compare([stepping.path], compare.plan("50ms", FAST, seeds=2, start=start))
        for start in (None, 0)
    )
    for name in ("scores", "estimates", "truth", "steps", "events"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(part, name))


@pytest.mark.parametrize(
    "span, says",
    [
        (("500ms", "400ms"), "ends before it starts"),
        (("500ms", "540ms"), "stepping lasts 1.2 s: .* a window T of 50 ms"),
        (("5s", None), "stepping lasts 1.2 s"),
        (("soon", None), "'soon' is not a duration"),
    ],
)
def test_a_part_without_a_window_is_refused(stepping, span, says):
    with pytest.raises(UsageError, match=says) as error:
        compare.compare([stepping.path], compare.plan("50ms", "pml", "auto", 1, *span))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("window", ["15ms", "4ms"])
def test_a_window_between_two_lengths_is_refused(stepping, window):
    with pytest.raises(ResolutionError, match=window.replace("ms", " ms")):
        compare.compare([stepping.path], compare.plan(window, "pml", seeds=1))


SIZED = {
    *("vmware", "idle-pages", "flag-sample", "damon", "qemu-sampling", "intermittent", "vtmm"),
    *("cold-age", "far-memory", "mglru", "mglru-blind", "soft-dirty", "hint-faults", "telescope"),
    "flag-sample-pml",
}


@pytest.mark.parametrize("high", [1 << 35, 1 << 51, (1 << 52) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("how", [{"options": {MEMORY_GUESSED: True}}, {"address": "block"}])
def test_high_pages_are_counted_and_an_unknown_memory_is_not_sampled(high, how, make_trace):
    """What notes or samples all memory says that its size is not known; it makes up none."""
    domain = {"name": "high", "memory_bytes": min((high + 1) << 12, 1 << 64)}
    domain |= {"address": how.get("address", "guest-physical")}
    used = [[(page, WRITE) for page in (*range(10), high)]] * 40
    path = make_trace("high.trace", events=used, domain=domain, memory_map=[], pml=False,
                      options=how.get("options", {})).path  # fmt: skip
    comparison = compare.compare([path], compare.plan("50ms", seeds=1))
    assert set(comparison.truth["pages"]) == {11}
    scores = comparison.scores.set_index("technique")
    counting = ["pml", "prl", "pml-threshold", "qemu-bitmap", "qemu-ring", "pml-plateau"]
    assert (scores.loc[counting, "mape"] == 0).all()
    assert scores.loc[list(SIZED), "missing"].str.contains("size of a guest's memory").all()


def test_techniques_of_a_huge_memory_work_by_the_pages_in_use_or_say_why_not(make_trace):
    """16 PiB: a scan tells the pages, what notes something of each page cannot be had."""
    high = 1 << 42
    used = [[(page, WRITE) for page in (*range(10), high)]] * 40
    path = make_trace("huge.trace", events=used, memory_bytes=(high + 1) << 12, pml=False).path
    scores = compare.compare([path], compare.plan("50ms", seeds=1)).scores.set_index("technique")
    assert scores.loc["idle-pages", "mape"] == 0
    assert scores.loc[["vmware", "damon"], "missing"].tolist() == ["", ""]
    noted = scores.loc[["vtmm", "intermittent", "qemu-sampling", "flag-sample"], "missing"]
    assert noted.str.contains("memory small enough for per-page state, not").all()


def test_an_import_knows_the_memorys_size_if_it_is_given(tmp_path):
    file = tmp_path / "x.csv"
    rows = [f"{i * 10**7},{(i + 1) * 10**7},{page}" for i in range(8) for page in (1, 2, 1 << 35)]
    file.write_text("\n".join(["t_start_ns,t_end_ns,gfn", *rows]) + "\n")
    guessed = interop.load("csv", file, tmp_path / "guessed.trace")
    given = interop.load("csv", file, tmp_path / "given.trace", memory_bytes=1 << 48)
    comparison = compare.compare(
        [guessed.path, given.path], compare.plan("20ms", "prl,vmware,idle-pages", seeds=1)
    )
    missing = comparison.scores.pivot(index="technique", columns="trace", values="missing")
    assert (missing.loc["prl"] == "").all()
    assert (missing["given"] == "").all()
    size = "size of a guest's memory"
    assert missing.loc[["vmware", "idle-pages"], "guessed"].str.contains(size).all()


@pytest.mark.parametrize("window", ["50ms", "1s", "10ms", "15ms", "1ms", "30s"])
def test_it_takes_and_refuses_the_windows_that_the_working_set_does(window, tmp_path):
    """Irregular rounds of about 10 ms, and a gap: any T from there to all that there is."""
    lengths = np.array([10, 11, 9, 10, 23, 10, 2000, 10, 12, 10]) * 1_000_000
    events = [[] if ns > 10**9 else [(i, WRITE), (0, READ)] for i, ns in enumerate(lengths)]
    trace = write_irregular(tmp_path / "x.trace", events, lengths)
    try:
        expected = workingset.estimate(trace, window, "sliding")["pages"].tolist()
    except ResolutionError as error:
        with pytest.raises(ResolutionError) as refused:
            compare.compare([trace.path], compare.plan(window, "pml"))
        assert str(refused.value) == str(error)
    else:
        comparison = compare.compare([trace.path], compare.plan(window, "pml"))
        assert comparison.truth["pages"].tolist() == expected


def test_a_single_draw_has_no_interval_and_a_technique_without_draws_has_one_of_0(make_trace):
    path = make_trace(rounds=40).path
    single = compare.compare([path], compare.plan("50ms", "pml,flag-sample", seeds=1))
    assert row(single, "pml")["mae_ci"] == 0 == row(single, "pml")["mape_ci"]
    assert np.isnan(row(single, "flag-sample")[["mae_ci", "mape_ci"]].astype(float)).all()
    several = compare.compare([path], compare.plan("50ms", "flag-sample", seeds=3))
    assert row(several, "flag-sample")["mae_ci"] > 0
