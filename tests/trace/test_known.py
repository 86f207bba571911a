# SPDX-License-Identifier: Apache-2.0
"""Known answers, measured on traces in which each page's use is written down."""

import pytest

from pmlkit.errors import PmlkitError
from pmlkit.trace import known
from pmlkit.trace.kinds import Kind

READ, WRITE, EXEC = Kind.READ, Kind.WRITE, Kind.EXEC
# Phase "a" is rounds 0 and 1, phase "b" round 2. Region "hot" is frames 10 to 13.
EVENTS = [
    [(10, WRITE), (11, READ), (99, WRITE)],
    [(10, WRITE), (12, WRITE), (12, READ)],
    [(13, EXEC), (99, READ)],
]


def answer(phase, kind, pages, region="hot"):
    return {"phase": phase, "region": region, "kind": kind, "pages": pages}


@pytest.fixture
def trace(make_trace):
    def make(*answers, **options):
        layout = {"phases": [("a", 0), ("b", 2)], "regions": [("hot", 10, 4), ("far", 99, 1)]}
        return make_trace(events=EVENTS, known=list(answers), **layout, **options)

    return make


@pytest.mark.parametrize(
    ("phase", "kind", "pages"),
    [
        ("a", "written", 2),
        ("a", "read", 2),
        ("a", "touched", 3),
        ("b", "written", 0),
        ("b", "read", 0),
        ("b", "touched", 1),
    ],
)
def test_distinct_pages_of_the_phase_the_region_and_the_kind_are_counted(trace, phase, kind, pages):
    (result,) = known.measure(trace(answer(phase, kind, pages)))
    assert result.met
    assert result.as_dict() == {
        "phase": phase,
        "region": "hot",
        "kind": kind,
        "expected": pages,
        "measured": pages,
        "met": True,
    }


def test_a_wrong_answer_is_not_met(trace):
    (result,) = known.measure(trace(answer("a", "written", 3)))
    assert (result.expected, result.measured, result.met) == (3, 2, False)


def test_the_pml_log_answers_for_writes_only(trace):
    answers = [answer("a", "written", 2), answer("a", "read", 2), answer("a", "touched", 3)]
    (result,) = known.measure(trace(*answers).pml)
    assert (result.kind, result.measured) == ("written", 2)


def test_a_phase_that_was_not_reached_has_no_answer(trace):
    assert known.measure(trace(answer("never", "read", 1))) == []


def test_a_phase_in_which_the_recording_was_cut_short_has_no_answer(trace):
    answers = [answer("a", "read", 2), answer("b", "touched", 4)]
    (result,) = known.measure(trace(*answers, complete=False))
    assert result.phase == "a"


def test_a_trace_without_known_answers_has_none(make_trace):
    assert known.measure(make_trace()) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(answer("a", "smelt", 1), "'smelt'"), (answer("a", "read", 1, "attic"), "'attic'")],
)
def test_an_answer_about_nothing_is_refused(trace, wrong, says):
    with pytest.raises(PmlkitError, match=says):
        known.measure(trace(wrong))
