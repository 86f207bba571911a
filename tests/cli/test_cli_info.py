# SPDX-License-Identifier: Apache-2.0
"""`pmlkit info`: the recordings that are included, and what it says of one."""

import json
import re

from cli_case import EVENTS, KNOWN

from pmlkit import recordings


def test_info_without_a_trace_lists_the_recordings(run, monkeypatch, tmp_path):
    code, out, err = run("info", "--json")
    told = {one["name"]: one for one in json.loads(out)}
    assert (code, err) == (0, "")
    assert sorted(told) == recordings.bundled()
    for name, one in told.items():
        trace = recordings.open_trace(name)
        assert one["seconds"] == trace.duration_ns / 1e9
        assert (one["kind"], one["workload"]) == (trace.meta.kind, trace.meta.domain["name"])
        assert one["good_for"] and one["good_for"] in run("info")[1]
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    assert json.loads(run("info", "--json")[1]) == []


def test_info_says_what_a_trace_is_and_measures_its_known_answers(run, trace):
    code, out, err = run("info", trace, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["kind"], told["rounds"], told["entries"]) == ("access", 2, 4)
    assert told["duration_ns"] == 20_000_000
    assert [phase["name"] for phase in told["phases"]] == ["a", "b"]
    assert told["regions"] == {"hot": 2, "cold": 1}
    answer = {"phase": "a", "region": "hot", "kind": "written", "expected": 2, "measured": 2}
    assert told["known"] == [{**answer, "met": True}]
    assert told["all_known_met"] is True
    code, out, _ = run("info", trace)
    assert code == 0
    assert re.search(r"a +hot +written +2 +2 +met", out)


def test_info_fails_if_a_known_answer_is_not_met(run, make_trace):
    wrong = [{**KNOWN[0], "pages": 3}]
    layout = {"phases": [("a", 0)], "regions": [("hot", 10, 2)]}
    path = make_trace(events=EVENTS, known=wrong, **layout).path
    code, out, err = run("info", path)
    assert (code, err) == (1, "")
    assert re.search(r"hot +written +3 +2 +NOT MET", out)
    code, out, _ = run("info", path, "--json")
    assert (code, json.loads(out)["all_known_met"]) == (1, False)


def test_info_says_by_which_clock(make_trace, run):
    for kind, says in (("icount", "guest instructions (icount)"), ("host", "T is wall time")):
        made = make_trace(
            f"{kind}.trace", clock={"kind": kind, "ns_per_insn": 8.0 if kind == "icount" else None}
        )
        assert says in run("info", str(made.path))[1]
