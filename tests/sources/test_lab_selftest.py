# SPDX-License-Identifier: Apache-2.0
"""A guest whose writes are known, as files for a real host, and the check of its trace."""

import json

import pytest

from pmlkit.cli.app import main
from pmlkit.errors import NeedsError, UsageError
from pmlkit.sources.lab import guests, selftest
from pmlkit.trace.kinds import Kind

WRITTEN = [*range(4096, 4396), *range(5096, 6596)]
OWN = [512, 257]  # the mailbox and a stack


@pytest.fixture
def log(make_trace):
    """A function that makes a PML log with these frames written, a list for each round."""

    def make(*rounds):
        events = [[(gfn, Kind.WRITE) for gfn in gfns] for gfns in rounds]
        return make_trace(kind="pml", events=events)

    return make


def test_exact_rounds_are_met(log):
    result = selftest.check(log(WRITTEN[:7], WRITTEN + OWN, WRITTEN), "known")
    assert result == selftest.Check(1800, rounds=2, exact=2, missing=0, foreign=0)
    assert result.met and str(result) == "met: 1,800 of 1,800 pages in 2 of 2 rounds"


def test_missing_and_foreign_pages_are_counted(log):
    result = selftest.check(log(WRITTEN, WRITTEN[2:], [*WRITTEN, 9000], WRITTEN), "known")
    assert (result.rounds, result.exact, result.missing, result.foreign) == (3, 1, 2, 1)
    assert str(result).startswith("NOT met")


def test_a_round_without_entries_lacks_them_all(log):
    assert selftest.check(log(WRITTEN, [], WRITTEN), "known").missing == 1800


def test_one_round_is_too_few(log):
    with pytest.raises(NeedsError, match="2 rounds"):
        selftest.check(log(WRITTEN), "known")


def test_a_guest_without_known_writes_is_refused(log):
    with pytest.raises(UsageError, match="has no known written frames"):
        selftest.check(log(WRITTEN, WRITTEN), "reads")


def test_a_guest_that_there_is_not_is_refused(log, capsys):
    path = str(log(WRITTEN, WRITTEN).path)
    assert main(["lab", "check", path, "knwon"]) == 2
    assert "there is no guest 'knwon': do you mean 'known'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", guests.shipped())
def test_every_guest_meets_its_own_answer_or_is_refused(log, name):
    regions = [r for r in guests.shipped()[name]["regions"] if r.get("kind") == "written"]
    frames = [gfn for r in regions for gfn in range(r["gfn"], r["gfn"] + r["pages"])]
    try:
        result = selftest.check(log([], OWN + frames, OWN + frames[1:]), name)
    except UsageError as error:
        assert "has no known written frames" in str(error)
        assert all(gfn < 4096 for gfn in frames)
    else:
        assert result == selftest.Check(len(frames), rounds=2, exact=1, missing=1, foreign=0)


@pytest.mark.parametrize(("frames", "status"), [(WRITTEN, 0), (WRITTEN[1:], 1)])
def test_the_command_says_so_and_fails_if_not(log, capsys, frames, status):
    trace = log(frames, frames)
    assert main(["lab", "check", str(trace.path), "known", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["exact"] == 1 - status


def test_the_files_start_a_guest_that_waits_for_nobody(tmp_path, capsys):
    assert main(["lab", "guest", "known", "-o", str(tmp_path / "self")]) == 0
    config = (tmp_path / "self" / "known.cfg").read_text()
    assert 'extra = "free=1"' in config and f'kernel = "{tmp_path}/self/known.elf"' in config
    assert (tmp_path / "self" / "known.elf").read_bytes()[:4] == b"\x7fELF"
    assert "xl create" in capsys.readouterr().err
