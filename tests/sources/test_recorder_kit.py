# SPDX-License-Identifier: Apache-2.0
"""The lab's bare-metal guests in the recorder: a round for each of theirs, and nothing else."""

import pytest
from needs import needs_gcc, needs_qemu

from pmlkit.errors import UsageError, WorkloadError
from pmlkit.sources.recorder.kit import is_kit_guest, record_kit
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.trace import known
from pmlkit.trace.kinds import Kind


@pytest.fixture
def record(tmp_path):
    def make(spec, **more):
        return record_kit(spec, tmp_path / "x.trace", RecordOptions(), **more)

    return make


@needs_qemu
def test_each_of_its_rounds_is_one_of_the_trace(record):
    trace = record("ordered", rounds=3)
    assert trace.check()["complete"]
    phases = trace.phases
    assert phases["name"].tolist() == ["round001", "round002", "round003", "done"]
    assert phases["round"].tolist() == [0, 2, 3, 4]  # round 0 is what comes before the first
    answers = known.measure(trace)
    assert len(answers) == 3 and all(answer.met for answer in answers)
    for number in (1, 2, 3):
        log = trace.pml.to_pandas(region="pages")
        logged = log[log["round"] == number]["gfn"].tolist()
        assert logged == [4096 + (i * 769 + number) % 2003 for i in range(2003)]


@needs_qemu
@pytest.mark.parametrize("levels", ["2", "3", "4"])
def test_a_guest_with_page_tables(record, levels):
    trace = record("reads", rounds=2, settings={"levels": levels})
    table = trace.to_pandas(region="read")
    assert (table["kind"] == int(Kind.READ)).all()
    assert table.groupby("round").size().to_dict() == {1: 2560, 2: 2560}


@needs_qemu
def test_a_c_file_of_ones_own(tmp_path, record):
    source = tmp_path / "mine.c"
    source.write_text(
        '#include "kit.h"\nvoid guest_setup(void){}\n'
        'void guest_round(unsigned n, unsigned v){ kit_page(kit_option("page", 1) + n)[0] = v; }\n'
    )
    assert is_kit_guest(source)
    trace = record(source, rounds=2, settings={"page": "50"})
    data = trace.to_pandas(kinds=Kind.WRITE)
    data = data[data["gfn"] >= 4096]
    assert data[["round", "gfn"]].to_numpy().tolist() == [[1, 4147], [2, 4148]]


def test_what_is_a_guest_of_the_kit(tmp_path):
    assert is_kit_guest("known")
    assert not is_kit_guest("hotcold")
    (tmp_path / "plain.c").write_text("int main(void) { return 0; }")
    assert not is_kit_guest(tmp_path / "plain.c")


@needs_gcc
def test_what_cannot_be_recorded_leaves_nothing(tmp_path, record):
    with pytest.raises(UsageError, match=r"has 2 processors.*pmlkit lab run vcpus"):
        record("vcpus")
    with pytest.raises(UsageError, match="give 1 to 999"):
        record("known", rounds=1000)
    with pytest.raises(UsageError, match="has no option levels"):
        record("known", settings={"levels": "3"})
    with pytest.raises(WorkloadError):
        record("no-such-guest")
    assert list(tmp_path.iterdir()) == []
