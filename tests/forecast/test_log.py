# SPDX-License-Identifier: Apache-2.0
"""Logs of a trace: steps of equal time, whatever its rounds are, against an oracle by time."""

import numpy as np
import pytest
from factories import make_meta
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import UsageError
from pmlkit.forecast import features, log
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.writer import TraceWriter

ROUND_NS = 10

# What each round logs, and how long it lasts; a gap is a long round of nothing.
ROUNDS = st.lists(
    st.tuples(st.sets(st.integers(0, 5), max_size=4), st.integers(0, 35))
    | st.tuples(st.just(set()), st.integers(50, 150)),
    min_size=1,
    max_size=25,
)


def write(path, rounds, round_ns=ROUND_NS, phases=()):
    """Write a PML log of rounds of any length, with gaps."""
    lengths = np.array([length for _, length in rounds])
    ends = np.cumsum(lengths)
    with TraceWriter(path, make_meta("pml", round_ns=round_ns), overwrite=True) as writer:
        for number, (pages, _) in enumerate(rounds):
            frames = np.array(sorted(pages), np.uint64)
            writer.add_entries(number, number, 0, frames, Kind.WRITE)
        number, starts = np.arange(len(rounds)), ends - lengths
        times = {"t_start_ns": starts, "t_end_ns": ends}
        exits = [len(pages) for pages, _ in rounds]
        writer.set_rounds({"round": number, **times, "exits": exits, "pause_ns": lengths})
        writer.set_batches(
            {"batch": number, "round": number, **times, "reason": ["round"] * len(number)}
        )
        writer.set_phases(
            [{"name": n, "round": r, "t_ns": int(starts[r]), "insn": -1} for n, r in phases]
        )
    return Trace.open(path), starts, ends


@given(ROUNDS, st.integers(1, 4))
def test_windows_are_of_time_and_a_gap_is_time_without_uses(tmp_path_factory, rounds, k):
    """Window i holds what was logged in rounds that end in (iT, iT + T], the first one 0 too."""
    trace, starts, ends = write(tmp_path_factory.mktemp("log") / "x.trace", rounds)
    t_ns, of_time = k * ROUND_NS, log.read(trace)
    windows = int(ends[-1]) // t_ns
    if not windows:
        with pytest.raises(UsageError, match="shorter than a window"):
            features.table(of_time, t_ns)
        return
    table = features.table(of_time, t_ns)
    assert table["t_ns"].tolist() == [(i + 1) * t_ns for i in range(windows)]
    for i in range(windows):
        mine = [r for r, end in enumerate(ends) if i * t_ns < max(end, 1) <= (i + 1) * t_ns]
        assert table["pages"][i] == len(set().union(*(rounds[r][0] for r in mine)))
        assert table["exits"][i] == sum(len(rounds[r][0]) for r in mine)
        assert table["pause_ns"][i] == sum(rounds[r][1] for r in mine)
        back = [r for r, end in enumerate(ends) if (i - 1) * t_ns < max(end, 1) <= (i + 1) * t_ns]
        assert table["w2"][i] == len(set().union(*(rounds[r][0] for r in back)))


def test_rounds_as_long_as_asked_for_are_the_steps(tmp_path):
    rounds = [({r % 5}, ROUND_NS) for r in range(20)]
    trace, _, _ = write(tmp_path / "x.trace", rounds, phases=[("a", 0), ("b", 7)])
    found = log.read(trace)
    assert found.round.tolist() == list(range(20))
    assert found.phase.tolist() == ["a"] * 7 + ["b"] * 13
    part = log.read(trace, start=50, end=100)
    assert part.gfn.tolist() == [0, 1, 2, 3, 4] and part.round.tolist() == [0, 1, 2, 3, 4]


def test_a_phase_that_cuts_a_round_is_that_of_the_step(tmp_path):
    """Rounds of 10, cut at 14: the step from 10 to 20 ends in the phase that began in it."""
    rounds = [({1}, 10), ({2}, 4), ({3}, 10), ({4}, 10)]
    trace, _, _ = write(tmp_path / "x.trace", rounds, phases=[("a", 0), ("b", 2)])
    found = log.read(trace)
    assert found.phase.tolist() == ["a", "b", "b"]
    assert found.round.tolist() == [0, 1, 2]  # what ends at 34 is in no whole step


def test_a_fine_clock_over_a_long_time_is_refused_before_it_is_laid_out(tmp_path):
    rounds = [({1}, 1), (set(), 10**15), ({2}, 1)]
    trace, _, _ = write(tmp_path / "x.trace", rounds)
    with pytest.raises(UsageError, match="in steps of 10 ns are too many for a forecast"):
        log.read(trace)


def test_a_log_without_a_period_has_steps_of_its_usual_round(tmp_path):
    """As an import of a log with times; the gap is two steps of nothing."""
    rounds = [({1}, 10), ({2}, 10), (set(), 20), ({1}, 10), ({3}, 10)]
    trace, _, _ = write(tmp_path / "x.trace", rounds, round_ns=None)
    found = log.read(trace)
    assert (found.round_ns, found.n_rounds) == (10, 6)
    assert found.round.tolist() == [0, 1, 4, 5]
