# SPDX-License-Identifier: Apache-2.0
"""Traces as streams: what is read of them, in shares, and with more regions than a mark holds."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import make_trace as write_trace

from pmlkit import missratio, workingset
from pmlkit import workingset as sizes
from pmlkit.selection import stream
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

ROUNDS = 40


@pytest.fixture
def trace(tmp_path):
    """Row groups of 16 entries, rounds of 8."""
    events = [[(100 * (r // 4) + g, Kind.READ) for g in range(8)] for r in range(ROUNDS)]
    regions = [(f"r{i}", i * 10, 10) for i in range(100)]
    path = tmp_path / "x.trace"
    return Trace.open(write_trace(path, events=events, regions=regions, row_group_rows=16))


@pytest.fixture
def groups_read(monkeypatch):
    read, original = [], pq.ParquetFile.read_row_group

    def noting(self, group, **how):
        read.append(group)
        return original(self, group, **how)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noting)
    return read


ANALYSES = (
    workingset.estimate,
    workingset.curve,
    workingset.surface,
    workingset.sweep,
    workingset.turnover,
    missratio.of_trace,
)


@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_range_of_time_reads_its_row_groups_only(trace, groups_read, analysis):
    windows = {"curve": [], "of_trace": [], "sweep": [["10ms"]], "surface": [["10ms"], [1, 2]]}
    words = windows.get(analysis.__name__, ["10ms"])
    analysis(trace, *words, start="100ms", end="140ms")
    assert set(groups_read) == {5, 6}  # 4 rounds of 8 entries
    groups_read.clear()
    analysis(trace, *words)
    assert len(set(groups_read)) >= 16  # of each of the files


def test_shares_of_the_frames_are_all_of_them(trace, monkeypatch):
    source = stream(trace)
    shares = [np.concatenate([g for _, g in source.share(i, 3)]) for i in range(3)]
    everything = np.concatenate([g for _, g in source])
    assert sorted(np.concatenate(shares)) == sorted(everything)
    assert all((share % 3 == i).all() for i, share in enumerate(shares))
    at_once = workingset.surface(trace, ["10ms", "50ms"], [1, 3])
    monkeypatch.setattr(sizes, "MEMORY", 20_000)
    assert workingset.surface(trace, ["10ms", "50ms"], [1, 3]).equals(at_once)


def test_more_regions_than_a_mark_holds(trace):
    table = workingset.estimate(trace, "40ms")
    regions = table.filter(like="region:")
    assert regions.shape == (10, 100)
    for window in range(10):
        expected = [8 if i == 10 * window else 0 for i in range(100)]
        assert regions.iloc[window].tolist() == expected


def test_a_sweep_has_a_row_for_each_window_and_round(trace):
    table = workingset.sweep(trace, ["20ms", "5r"], start="100ms")
    assert table["rounds"].unique().tolist() == [2, 5] and len(table) == 2 * 30
    for k, part in table.groupby("rounds"):
        sliding = workingset.estimate(trace, f"{k}r", "sliding", start="100ms")
        assert part["pages"].tolist() == sliding["pages"].tolist()
        assert part["t_ns"].tolist() == sliding["t_ns"].tolist()


def test_turnover_says_what_came_stayed_and_left(trace):
    table = workingset.turnover(trace, "20ms", end="120ms")
    assert table["pages"].tolist() == [8] * 6
    assert table["came"].tolist() == [8, 0] * 3 and table["left"].tolist() == [0, 0, 8, 0, 8, 0]
    assert table["stayed"].tolist() == [0, 8] * 3


def test_kernels_work_where_nothing_can_be_written(tmp_path):
    """Numba keeps what it compiled on the disk if it can, and must not need to."""
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from pmlkit import missratio\n"
        "print(missratio.exact([1, 2, 1]).pages)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr
