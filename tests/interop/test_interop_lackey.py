# SPDX-License-Identifier: Apache-2.0
"""valgrind's lackey: its own lines, those of the program, and numbers that cannot be."""

import pytest
from foreign import survives
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import interop
from pmlkit.errors import UsageError
from pmlkit.interop import lackey
from pmlkit.interop.reading import ForeignFileError


@pytest.fixture
def load(tmp_path):
    def make(text, **options):
        path = tmp_path / "x.log"
        path.write_text(text)
        return interop.load("lackey", path, tmp_path / "x.trace", **options)

    return make


def rows(trace):
    return trace.to_pandas(["round", "gfn", "kind"]).values.tolist()


def test_valgrinds_own_lines_are_skipped(load):
    text = "==7== Lackey\n--7-- a warning\n**7** a message\nI  04001090,3\n==7== \n\n"
    assert rows(load(text)) == [[0, 0x4001, 4]]


def test_addresses_are_virtual_and_losses_are_not_counted(load):
    meta = load("I  04001090,3\n S 1ffefffe78,8\n").meta
    assert meta.domain["address"] == "virtual"
    assert meta.lost is None and meta.complete is None


def test_an_access_at_the_end_of_the_address_space(load):
    trace = load("I  ffffffffff600000,3\n L ffffffffffffffff,1\n")
    assert sorted(row[1] for row in rows(trace)) == [0xFFFFFFFFFF600, 0xFFFFFFFFFFFFF]


def test_rounds_of_instructions_and_what_is_merged(load):
    text = "I  1000,4\n L 5000,8\nI  1004,4\n L 5008,8\nI  1008,4\n S 6000,8\n"
    trace = load(text, instructions=2)
    assert rows(trace) == [[0, 5, 1], [0, 1, 4], [1, 6, 2], [1, 1, 4]]
    assert trace.rounds["t_end_ns"].tolist() == [2, 3]
    assert any("2 were merged" in note for note in trace.meta.notes)
    assert trace.meta.time.ns_per_insn == 1  # so that a cost in instructions is a share of it


def test_a_log_without_instructions_counts_accesses(load):
    trace = load(" L 1000,1\n M 2000,1\n S 3000,1\n", instructions=2)
    assert trace.rounds["t_end_ns"].tolist() == [2, 3]
    assert rows(trace) == [[0, 1, 1], [0, 2, 1], [0, 2, 2], [1, 3, 2]]
    assert any("the clock counts accesses" in note for note in trace.meta.notes)
    assert trace.meta.clock["kind"] == "accesses" and trace.meta.time.ns_per_insn is None


def test_one_space_behind_the_letter(load):
    assert rows(load("I 04001090,3\n")) == [[0, 0x4001, 4]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "I  1000,3\nresultI  1003,5\n",
            "line 2 .*not a line of lackey's: use valgrind's --log-file",
        ),
        ("I  1000,3\n L -1000,8\n", "line 2 .*is not an access"),
        (" L -1000,4\n", "line 1 .*is not an access"),
        ("I  1000,4\n L 0,1000000000000\n", "line 2 .*is not an access"),
        ("I  1000,4\n L 0,99999999\n", "line 2 .*of 99,999,999 bytes"),
        ("I  1000,-4\n", "line 1 .*is not an access"),
        (f"I  {'9' * 100_000},4\n", "line 1 .*longer than"),
        (f"I  1,{'9' * 50_000}\n", "line 1 .*is not an access"),
        ("I  11112222333344445,4\n", "line 1 .*is not an access"),
        (" L ffffffffffffffff,2\n", "line 1 .*is not an access"),
        ("==7== a\nI  1000,4\n==8== b\n", "line 3 .*second process.*--log-file=NAME.%p"),
    ],
)
def test_what_cannot_be_read_is_one_line(load, text, says):
    with pytest.raises(ForeignFileError, match=says):
        load(text)


LINES = ["I  04001090,3", " L 1ffefffe78,8", " M 0,0", "==7== x", "**7** y", ""]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=20)), max_size=8), st.data())
def test_any_text_is_read_or_refused(lines, data):
    text = "\n".join(lines)
    if text and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]
    survives("lackey", text.encode("utf-8", "surrogatepass"), instructions=2)


@pytest.mark.parametrize("instructions", [3, 1 << 63, 10**30])
def test_a_round_may_be_longer_than_the_file(load, instructions):
    trace = load("I  1000,3\nI  2000,3\n L 3000,8\n", instructions=instructions)
    assert trace.rounds[["t_start_ns", "t_end_ns"]].to_numpy().tolist() == [[0, 2]]


@pytest.mark.parametrize("instructions", [0, -1, -(1 << 70)])
def test_a_round_has_instructions(load, instructions):
    with pytest.raises(UsageError, match="is not possible: give more `instructions`"):
        load("I  1000,3\n", instructions=instructions)


def test_another_file_is_refused_before_it_is_read_as_a_whole(load, monkeypatch):
    monkeypatch.setattr(lackey, "_count", None)  # a hundred gigabytes would take minutes
    with pytest.raises(ForeignFileError, match="line 1 .*not a line of lackey"):
        load("total 4\nI  1000,3\n")
