# SPDX-License-Identifier: Apache-2.0
"""Windows by time against loops over uses: rounds of any length, gaps, instants, several vCPUs."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pmlkit import missratio, workingset
from pmlkit.answers import working_set
from pmlkit.cli import console
from pmlkit.errors import ResolutionError, UsageError
from pmlkit.kernels import by_page, by_time
from pmlkit.selection import select
from pmlkit.timeline import Windows, default_window, timeline
from pmlkit.trace.reader import Trace, TraceMeta, TraceWriter
from pmlkit.units import parse_window

MS, SECOND = 1_000_000, 1_000_000_000
on_disk = settings(max_examples=20, deadline=None)


def make(folder, rounds, kind="pml", vcpus=1, **meta):
    """Write a trace of (length in ms, pages) a round; pages go to the vCPUs in turn."""
    ends = np.cumsum([length * MS for length, _ in rounds], dtype=np.int64)
    table = {
        "round": np.arange(len(rounds)),
        "t_start_ns": np.concatenate(([0], ends))[: len(rounds)],
        "t_end_ns": ends,
    }
    meta = {"domain": {"memory_bytes": 1 << 30, "vcpus": vcpus}} | meta
    with TraceWriter(folder / "t.trace", TraceMeta(kind, "made", **meta), overwrite=True) as writer:
        batches = []
        for number, (_, pages) in enumerate(rounds):
            for vcpu in range(vcpus):
                gfns = np.array(pages[vcpu::vcpus], np.uint64)
                if len(gfns):
                    kinds = np.full(len(gfns), 2, np.uint8)
                    writer.add_entries(number, len(batches), vcpu, gfns, kinds)
                    batches.append(
                        (len(batches), number, vcpu, ends[number], ends[number], "round")
                    )
        writer.set_rounds(pd.DataFrame(table))
        names = ["batch", "round", "vcpu", "t_start_ns", "t_end_ns", "reason"]
        writer.set_batches(pd.DataFrame(batches, columns=names))
    return Trace.open(folder / "t.trace")


pages = st.lists(st.sampled_from([0, 1, 2, 3, 2**40, 2**52 - 1]), max_size=5)
irregular = st.tuples(st.sampled_from([0, 0, 1, 2, 3, 10, 10, 25, 1000]), pages)
# Rounds of 10 ms, some of which a phase or the recording's end cuts short.
regular = st.tuples(st.one_of(st.just(10), st.just(10), st.integers(1, 9)), pages)
all_rounds = st.one_of(
    st.lists(irregular, min_size=1, max_size=10).filter(lambda rs: any(r[0] for r in rs)),
    st.lists(regular, min_size=1, max_size=30),
)


class Case:
    """A part of a trace, and what is true of it, by loops."""

    def __init__(self, folder, rounds, data):
        vcpus = data.draw(st.integers(1, 3))
        self.trace = make(folder, rounds, vcpus=vcpus)
        n = len(rounds)
        first, stop = 0, n
        self.part = {}
        edges = np.cumsum([0] + [length * MS for length, _ in rounds]).tolist()
        if data.draw(st.booleans()):
            low, high = sorted(data.draw(st.tuples(*[st.integers(0, edges[-1])] * 2)))
            assume(low < high)
            first, stop = self.trace.rounds_between(low, high)
            assume(first < stop)
            self.part = {"start": low, "end": high}
        self.start, self.ends = edges[first], edges[first + 1 : stop + 1]
        self.rounds = rounds[first:stop]
        self.uses = [
            (end, page)
            for end, (_, used) in zip(self.ends, self.rounds, strict=True)
            for vcpu in range(vcpus)  # in log order: one vCPU's buffer after the other's
            for page in used[vcpu::vcpus]
        ]
        self.length = self.ends[-1] - self.start
        assume(self.length)
        self.timeline = timeline(self.trace, first, stop - first)
        resolution = self.timeline.resolution_ns
        assume(resolution <= self.length)
        most = max(self.length // resolution, 1)
        times = data.draw(st.integers(max(most // 100, 1), most))  # few enough for loops
        rest = 0 if self.timeline.regular else data.draw(st.integers(0, resolution - 1))
        self.window = min(times * resolution + rest, self.length)
        if self.timeline.regular:
            self.window = self.window // resolution * resolution

    def pages(self, after, until, m=1):
        counts = Counter(page for end, page in self.uses if after < end <= until)
        return sum(count >= m for count in counts.values())

    def known(self, t):
        """Up to when all that was used by `t` is known to have been counted."""
        start = self.start
        for end, (_, used) in zip(self.ends, self.rounds, strict=True):
            if start <= t <= end and (t == end or not used):
                return t
            if start <= t < end:
                return start
            start = end
        return min(t, self.ends[-1])

    def full(self, after, until):
        """Whether the window lies within the part, and at least half of it is known."""
        known = self.known(until) - self.known(after)
        return until - after == self.window and 2 * known >= self.window

    def tumbling(self):
        edges = [*range(self.start, self.ends[-1], self.window), self.ends[-1]]
        return list(zip(edges[:-1], edges[1:], strict=True))

    def mean(self, m, window, full=False):
        """Return the mean of W over time: it changes where a round ends, and T later."""
        begin, end = self.ends[0], self.ends[-1] + self.timeline.resolution_ns
        if full:
            begin = max(begin, self.start + window)
        changes = {begin, end, *self.ends, *(t + window for t in self.ends)}
        changes = sorted(t for t in changes if begin <= t <= end)
        area = sum(
            self.pages(t - window, t, m) * (later - t)
            for t, later in zip(changes[:-1], changes[1:], strict=True)
        )
        return area / (end - begin)


@on_disk
@given(all_rounds, st.data(), st.integers(1, 3))
def test_tumbling_windows_equal_the_oracle(tmp_path, rounds, data, m):
    case = Case(tmp_path, rounds, data)
    estimates = workingset.estimate(case.trace, case.window, min_count=m, **case.part)
    edges = case.tumbling()
    # What is used at the very start is in the first window, or it would be in none.
    opened = [(a - (a == case.start), b) for a, b in edges]
    assert estimates["pages"].tolist() == [case.pages(a, b, m) for a, b in opened]
    assert estimates["t_ns"].tolist() == [b for _, b in edges]
    assert estimates["full"].tolist() == [case.full(a, b) for a, b in edges]
    assert estimates["effective_ns"].tolist() == [case.known(b) - case.known(a) for a, b in edges]
    if m == 1:
        turnover = workingset.turnover(case.trace, case.window, **case.part)
        sets = [{p for end, p in case.uses if a < end <= b} for a, b in opened]
        assert turnover["pages"].tolist() == [len(s) for s in sets]
        pairs = list(zip(sets, [set(), *sets], strict=False))
        assert turnover["stayed"].tolist() == [len(s & before) for s, before in pairs]
        assert turnover["left"].tolist() == [len(before - s) for s, before in pairs]


@on_disk
@given(all_rounds, st.data(), st.integers(1, 3))
def test_sliding_windows_and_sweeps_equal_the_oracle(tmp_path, rounds, data, m):
    case = Case(tmp_path, rounds, data)
    estimates = workingset.estimate(case.trace, case.window, "sliding", m, **case.part)
    instants = sorted(set(case.ends))
    assert estimates["t_ns"].tolist() == instants
    assert estimates["pages"].tolist() == [case.pages(t - case.window, t, m) for t in instants]
    starts = [max(t - case.window, case.start) for t in instants]
    edges = list(zip(starts, instants, strict=True))
    assert estimates["full"].tolist() == [case.full(a, t) for a, t in edges]
    assert estimates["effective_ns"].tolist() == [case.known(t) - case.known(a) for a, t in edges]
    windows = [
        case.window,
        "1r",
        case.length // case.timeline.resolution_ns * case.timeline.resolution_ns,
    ]
    swept = workingset.sweep(case.trace, windows, **case.part)
    alone = [workingset.estimate(case.trace, w, "sliding", **case.part) for w in windows]
    for name in ("t_ns", "pages", "full", "effective_ns", "asked_ns"):
        assert swept[name].tolist() == [x for table in alone for x in table[name]]
    refs = select(case.trace, **case.part).refs
    for step in (None, "sliding"):
        of_window = case.timeline.windows(case.window, step)
        table = workingset.estimate(case.trace, case.window, step, m, **case.part)
        assert by_page.sliding(refs, of_window, m).tolist() == table["pages"].tolist()


@on_disk
@given(all_rounds, st.data(), st.integers(1, 3))
def test_windows_at_steps_equal_the_oracle(tmp_path, rounds, data, m):
    case = Case(tmp_path, rounds, data)
    resolution = case.timeline.resolution_ns
    most = max(case.length // resolution, 1)
    step = data.draw(st.integers(max(most // 100, 1), most)) * resolution
    assume(step != case.window)
    estimates = workingset.estimate(case.trace, case.window, step, m, **case.part)
    ends = list(range(case.start + step, case.ends[-1] + 1, step))
    assert estimates["t_ns"].tolist() == ends
    assert estimates["pages"].tolist() == [case.pages(t - case.window, t, m) for t in ends]


@on_disk
@given(all_rounds, st.data())
def test_means_over_time_equal_the_oracle(tmp_path, rounds, data):
    case = Case(tmp_path, rounds, data)
    surface = workingset.surface(case.trace, [case.window, case.window], [1, 3, 2], **case.part)
    expected = [case.mean(m, case.window, full=True) for m in (1, 3, 2)]
    assert surface["pages"].tolist() == pytest.approx(2 * expected)
    curve = workingset.curve(case.trace, **case.part)
    resolution = case.timeline.resolution_ns
    rows = curve.iloc[:: max(len(curve) // 5, 1)]
    assert curve["rounds"].iloc[-1] * resolution <= case.length
    for row in rows.itertuples():
        assert row.asked_ns == row.rounds * resolution
        assert row.pages == pytest.approx(case.mean(1, row.asked_ns))
        assert row.full_pages == pytest.approx(case.mean(1, row.asked_ns, full=True))
        last, misses = {}, 0
        for end, page in case.uses:
            misses += end - last.get(page, -(10**18)) > row.asked_ns
            last[page] = end
        assert row.miss_ratio == pytest.approx(misses / max(len(case.uses), 1))
    gaps = workingset.reuse(case.trace, **case.part)
    last, expected = {}, []
    for end, page in case.uses:
        expected += [end - last[page]] if page in last else []
        last[page] = end
    assert gaps["uses"].sum() == len(expected)
    assert (gaps["gap_ns"] * gaps["uses"]).sum() == pytest.approx(sum(expected), abs=len(expected))


@on_disk
@given(all_rounds, st.data())
def test_miss_ratios_over_time_equal_the_oracle(tmp_path, rounds, data):
    case = Case(tmp_path, rounds, data)
    estimates = missratio.over_time(case.trace, case.window, [1, 2, 4], **case.part)
    stack, rows = [], []
    for end, page in case.uses:
        distance = stack.index(page) if page in stack else 99
        stack = [page, *(p for p in stack if p != page)]
        rows.append((end, distance))
    expected = []
    for a, b in case.tumbling():
        inside = [d for end, d in rows if a - (a == case.start) < end <= b]
        for size in (1, 2, 4):
            misses = sum(d >= size for d in inside)
            expected.append(misses / len(inside) if inside else np.nan)
    np.testing.assert_allclose(estimates["miss_ratio"], expected)
    assert estimates["full"].tolist() == [
        case.full(a, b) for a, b in case.tumbling() for _ in range(3)
    ]


def test_a_window_over_a_gap_holds_what_was_used_within_it(tmp_path):
    """Eight minutes without a use are no round of a second (an oracle of a cache, imported)."""
    rounds = [
        (1000, [1]),
        (1000, [2]),
        (1000, [3]),
        (480_000, []),
        (1000, [4]),
        (9000, []),
        (1000, [5]),
    ]
    trace = make(tmp_path, rounds)
    table = workingset.estimate(trace, "10s", "sliding")
    assert table["pages"].tolist() == [1, 2, 3, 0, 1, 1, 1]
    assert table["effective_ns"].tolist()[3:] == [10 * SECOND] * 4
    assert workingset.estimate(trace, "10s")["pages"].max() == 3
    ratios = missratio.over_time(trace, "10s", [1])
    assert ratios["uses"].tolist() == [3, *[0] * 47, 1, 1]


@pytest.mark.parametrize(("cut_ms", "full"), [(1, False), (4, False), (5, True), (9, True)])
def test_a_window_whose_only_round_is_cut_to_less_than_half_is_not_full(tmp_path, cut_ms, full):
    """A phase begins within the third round; the next windows begin within rounds."""
    rounds = [10, 10, cut_ms, 10, 10 - cut_ms]
    trace = make(tmp_path, [(ms, range(ms)) for ms in rounds], period={"ns": 10 * MS})
    table = workingset.estimate(trace, "10ms")
    assert table["pages"].tolist() == [10, 10, cut_ms, 10]
    assert table["effective_ns"].tolist() == [10 * MS, 10 * MS, cut_ms * MS, (20 - cut_ms) * MS]
    assert table["full"].tolist() == [True, True, full, True]
    answer = working_set(trace, "10ms")
    assert (answer.windows, answer.partial) == (3 + full, 1 - full)
    assert answer.mean == pytest.approx(4096 * np.mean([10, 10, 10] + [cut_ms] * full))


def test_windows_within_one_long_round_are_not_full(tmp_path):
    """Of a stalled host's window nothing is known: its 0 pages are no working set."""
    rounds = [(10, [1])] * 4 + [(60, [1, 2])] + [(10, [1])] * 40
    table = workingset.estimate(make(tmp_path, rounds), "20ms").head(6)
    assert table["pages"].tolist() == [1, 1, 0, 0, 2, 1]
    assert table["full"].tolist() == [True, True, False, False, True, True]


def test_rounds_of_one_length_need_no_period(tmp_path):
    trace = make(tmp_path, [(10, [1]), (10, [2]), (10, [1, 2]), (10, [1])])
    assert workingset.estimate(trace, "20ms")["pages"].tolist() == [2, 2]
    with pytest.raises(ResolutionError, match="multiple of 10 ms"):
        workingset.estimate(trace, "15ms")
    uneven = make(tmp_path, [(10, [1]), (12, [2]), (9, [1, 2]), (10, [1])])
    assert timeline(uneven).resolution_ns == 10 * MS and not timeline(uneven).regular
    assert workingset.estimate(uneven, "15ms")["pages"].tolist() == [1, 1, 2]
    with pytest.raises(ResolutionError, match="10 ms or more"):
        workingset.estimate(uneven, "9ms")


def test_stalled_rounds_are_not_of_the_length_asked_for(tmp_path):
    """A busy host: rounds of 10 ms were asked for, and took 23."""
    trace = make(tmp_path, [(23, [i]) for i in range(20)], period={"ns": 10 * MS})
    with pytest.raises(ResolutionError):
        workingset.estimate(trace, "10ms")
    late = make(tmp_path, [(22 + i % 3, [i]) for i in range(20)], period={"ns": 10 * MS})
    table = workingset.estimate(late, "100ms", "sliding")
    assert table["pages"].max() == 5
    assert table["effective_ns"][table["full"]].between(100 * MS, 125 * MS).all()


def test_instants_have_no_length(tmp_path):
    """Uses with a time of their own: a gap up to each, then a round of no length."""
    rounds = [(0, [1])]
    for page in (2, 3, 1):
        rounds += [(7, []), (0, [page])]
    trace = make(tmp_path, rounds)
    assert timeline(trace).resolution_ns == 1
    assert workingset.estimate(trace, "7ms", "sliding")["pages"].tolist() == [1, 1, 1, 1]
    assert workingset.estimate(trace, "8ms", "sliding")["pages"].tolist() == [1, 2, 2, 2]
    assert workingset.estimate(trace, "10ms")["pages"].tolist() == [2, 1, 1]
    assert workingset.surface(trace, ["8ms"], [1])["pages"].tolist() == pytest.approx(
        [(6 * 1 + 1 * 2 + 6 * 1) / 13], rel=1e-6
    )


def test_a_long_gap_costs_nothing_and_too_many_windows_are_refused(tmp_path):
    year = 365 * 24 * 3600 * 1000
    trace = make(tmp_path, [(10, [1]), (year, []), (10, [2])])
    with pytest.raises(UsageError, match="more than a table can hold"):
        workingset.estimate(trace, "1s")
    assert workingset.estimate(trace, "1s", "sliding")["pages"].tolist() == [1, 0, 1]
    assert len(workingset.curve(trace)) <= 100_000
    assert workingset.surface(trace, ["1s"], [1, 2])["pages"].tolist() == pytest.approx(
        [20 / year, 0], rel=1e-3
    )
    chosen = default_window(timeline(trace))
    assert len(workingset.estimate(trace, chosen)) <= 10_000_000


def test_cost_is_by_uses_not_by_rounds(tmp_path, monkeypatch):
    """What goes through the kernels are the uses; windows are arrays, made once."""
    calls = Counter()
    real = by_time.sliding

    def counted(batches, *rest):
        def through():
            for batch in batches:
                calls["batches"] += 1
                calls["uses"] += len(batch[0])
                yield batch

        return real(through(), *rest)

    monkeypatch.setattr(by_time, "sliding", counted)
    monkeypatch.setattr(workingset, "AT_ONCE", 0)
    for n in (100, 2000):
        calls.clear()
        per_round = 4000 // n
        rounds = [(10 if i % 3 else 9, list(range(per_round))) for i in range(n)]
        workingset.estimate(make(tmp_path, rounds), "20ms", "sliding")
        assert calls == {"batches": 1, "uses": 4000}


@pytest.mark.parametrize(
    ("rounds", "window"),
    [
        ([(1000, [1])] * 5, "1s"),
        ([(10, [1])] * 630, "1s"),
        ([(10, [1])] * 50, "50ms"),
        ([(3, [1])] * 1000, "300ms"),
        ([(20_000, [1])] * 100, "20s"),
        ([(700, [1]), (900, []), (800, [1])] * 7, "1s"),
        ([(9000, [1])], "9s"),
        ([(10, [1]), (12, [2]), (11, [2])], "20ms"),
        ([(0, [1]), (0, [2])], "1r"),
        ([], "1r"),
    ],
)
def test_the_default_window_can_be_had(tmp_path, rounds, window):
    trace = make(tmp_path, rounds)
    chosen = default_window(timeline(trace))
    assert chosen == parse_window(window)
    workingset.estimate(trace, chosen)


def test_windows_of_rounds_are_what_they_were():
    sliding = Windows.of_rounds(5, 2)
    assert sliding.enter.tolist() == [0, 1, 2, 3, 4, 5]
    assert sliding.leave.tolist() == [2, 3, 4, 5, 5, 5]
    tumbling = Windows.of_rounds(5, 2, 2)
    assert tumbling.enter.tolist() == [0, 0, 1, 1, 2, 3] and len(tumbling) == 3
    assert tumbling.until.tolist() == [2, 4, 5]
    assert len(Windows.of_rounds(0, 2)) == 0


def test_a_long_gap_is_one_line_of_what_is_printed(capsys):
    pages, second = np.array([3, *[0] * 18, 5]), np.full(20, 10**9)
    columns = {"t_ns": np.arange(1, 21) * second, "pages": pages, "bytes": 4096 * pages}
    columns |= {"effective_ns": second, "asked_ns": second}
    console.windows(columns | {"phase": np.full(20, ""), "full": np.full(20, True)})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:-1]] == [
        "1.000",
        "2.000",
        "...",
        "19.000",
        "20.000",
    ]
    assert "16 windows" in printed[4]


@pytest.mark.parametrize(("window", "part"), [("31ms", "lasts 30 ms"), ("4r", "has 3 rounds")])
def test_a_window_that_is_longer_than_the_part_is_refused(tmp_path, window, part):
    axis = timeline(make(tmp_path, [(5, [1]), (10, [2]), (15, [1])]))
    with pytest.raises(ResolutionError, match=f"too long: the measured part of .* {part}"):
        axis.windows(window)
    assert axis.windows(window, longest=False).rounds > 0
