# SPDX-License-Identifier: Apache-2.0
"""The aging's count beside a log: how many by the one, which by the other."""

import json

import pandas as pd
import pytest
from pagetable_guest import MS, Guest, write_trace

from pmlkit import cli
from pmlkit.errors import FileRefused, NeedsError, UsageError
from pmlkit.reads import aging
from pmlkit.trace.schema import HOST_CLOCK, UNSEEN

BOOT = 5_000_000_000_000  # the host's clock at the start of the trace
COUNTS = ((30, 5), (20, 0), (10, 10), (40, 1))  # of each round: pages read, and then written


@pytest.fixture
def trace(tmp_path):
    """Return a log of four rounds, 10 ms each; 100 ms were left out after the second."""
    guest = Guest()
    root = guest.space()
    for page in range(60):
        guest.map(root, page, 500 + page)
    for reads, writes in COUNTS:
        for page in range(reads):
            guest.read(root, page)
        for page in range(writes):
            guest.write(root, page)
        guest.close_round()
    clock = [[0, BOOT], [20 * MS, BOOT + 120 * MS]]
    return write_trace(tmp_path / "g.trace", guest, options={HOST_CLOCK: clock})


def table(*rows):
    """Return the aging's table of (end after the trace's start, length in ms, pages)."""
    return pd.DataFrame(
        [(BOOT + end * MS, length * MS, pages) for end, length, pages in rows],
        columns=["clock_ns", "length_ns", "pages"],
    )


def test_the_aging_says_how_many_and_the_log_which(trace):
    rows = aging.estimate(trace, table((10, 10, 30), (20, 10, 20), (130, 10, 10), (140, 10, 41)))
    assert rows.pages.tolist() == [30, 20, 10, 41]
    assert rows.written.tolist() == [5, 0, 10, 1]
    assert rows["read"].tolist() == [25, 20, 0, 40]
    assert rows.t_ns.tolist() == [10 * MS, 20 * MS, 30 * MS, 40 * MS]
    assert (rows.high == 60).all()  # what the one leaf table maps
    assert (rows.low >= rows.written).all()
    assert (rows.tables == 1).all()


def test_an_interval_of_several_rounds(trace):
    (row,) = aging.estimate(trace, table((20, 20, 33))).to_dict("records")
    assert (row["pages"], row["written"], row["read"]) == (33, 5, 28)


def test_an_interval_that_cuts_rounds_counts_their_pages_for_the_upper_bound_only(trace):
    (row,) = aging.estimate(trace, table((15, 10, 7))).to_dict("records")
    assert (row["written"], row["low"], row["high"]) == (0, 0, 60)
    assert row["pages"] == 7


def test_a_count_beyond_the_bounds_is_cut_and_said(trace):
    rows = aging.estimate(trace, table((10, 10, 1), (20, 10, 99)))
    assert rows.pages.tolist() == [rows.low[0], 60]
    assert "more were certainly touched" in rows.why[0]
    assert "more pages than the tables map" in rows.why[1]
    assert rows.unresolved.tolist() == [0, 39]


def test_intervals_outside_of_the_trace_are_left_out(trace):
    rows = aging.estimate(trace, table((5, 10, 1), (20, 10, 20), (150, 10, 3)))
    assert rows.t_ns.tolist() == [20 * MS]
    with pytest.raises(UsageError, match="with a round between them"):
        aging.estimate(trace, table((10, 10, 30)), end=0)
    with pytest.raises(UsageError, match="no interval of the aging lies within"):
        aging.estimate(trace, table((1000, 10, 1)))


def test_without_snapshots_a_table_stands_for_all_of_its_pages(trace, tmp_path):
    guest = Guest()
    root = guest.space()
    guest.map(root, 0, 500)
    guest.read(root, 0)
    guest.close_round()
    marks = write_trace(tmp_path / "m.trace", guest, snapshots=False,
                        options={HOST_CLOCK: [[0, BOOT]]})  # fmt: skip
    (row,) = aging.estimate(marks, table((10, 10, 1))).to_dict("records")
    assert (row["pages"], row["high"]) == (1, 512)


def test_a_trace_without_the_hosts_clock_is_refused(tmp_path):
    guest = Guest()
    guest.close_round()
    other = write_trace(tmp_path / "o.trace", guest)
    with pytest.raises(NeedsError, match="the host's clock"):
        aging.estimate(other, table((10, 10, 1)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a table"),
        ("t_ns,pages\n1,2\n", "has no column clock_ns"),
        ("clock_ns,length_ns,pages\n", "rows that aging does not produce"),
        ("clock_ns,length_ns,pages\n1,1,-3\n", "rows that aging does not produce"),
        ("clock_ns,length_ns,pages\n1,1,many\n", "rows that aging does not produce"),
        ("clock_ns,length_ns,pages\n10,5,1\n12,5,1\n", "overlap, or are not in order"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, why):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=why):
        aging.read(path)


def test_the_command(trace, tmp_path, capsys):
    path = tmp_path / "x.csv"
    table((10, 10, 30)).to_csv(path, index=False)
    assert cli.main(["reads", str(trace.path), "--aging", str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["pages"], row["read"]) == (30, 25)
    assert cli.main(["reads", str(trace.path), "--aging", str(path)]) == 0
    assert "30" in capsys.readouterr().out
    assert cli.main(["reads", str(trace.path), "--aging", str(path), "--window", "2r"]) == 2
    assert "leave out --window" in capsys.readouterr().err


def test_where_tables_may_be_missing_the_count_is_not_cut(tmp_path):
    guest = Guest()
    root = guest.space()
    for page in range(60):
        guest.map(root, page, 500 + page)
    for _ in range(2):
        guest.read(root, 0)
        guest.close_round()
    options = {HOST_CLOCK: [[0, BOOT]], UNSEEN: [1]}
    trace = write_trace(tmp_path / "u.trace", guest, options=options)
    rows = aging.estimate(trace, table((10, 10, 99), (20, 10, 99)))
    assert rows.pages.tolist() == [60, 99]


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileRefused, match=r"no\.csv \(No such file"):
        aging.read(tmp_path / "no.csv")
