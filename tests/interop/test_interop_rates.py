# SPDX-License-Identifier: Apache-2.0
"""QEMU's dirty rates, in the forms that people keep; what is not known stays so."""

import json

import pandas as pd
import pytest
from foreign import survives
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import interop
from pmlkit.interop.reading import ForeignFileError

MIB = 1 << 20
MEASURED = {"status": "measured", "start-time": 100, "calc-time": 1, "mode": "page-sampling"}
HMP = """Status: measured
Start Time: {start} (ms)
Sample Pages: 512 (per GB)
Period: {period}
Mode: dirty-ring
Dirty rate: 108 (MB/s)
vcpu[0], Dirty rate: 100 (MB/s)
vcpu[1], Dirty rate: 8 (MB/s)
"""
VIRSH = """Domain: 'vm1'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time={start}
  dirtyrate.calc_period=1
  dirtyrate.megabytes_per_second=3
  dirtyrate.calc_mode=dirty-ring
  dirtyrate.vcpu.0.megabytes_per_second=3

"""


@pytest.fixture
def load(tmp_path):
    def make(data, suffix=".csv"):
        path = tmp_path / "answers"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return interop.load("query-dirty-rate", path, tmp_path / f"r{suffix}", overwrite=True)

    return make


def answer(**more):
    return json.dumps({"return": MEASURED | more})


def test_the_lines_of_hmp(load):
    text = HMP.format(start=100, period="1 (sec)") + HMP.format(start=105, period="500 (ms)")
    table = load(f"(qemu) info dirty_rate\n{text}(qemu) ")
    assert table["mib_per_s"].tolist() == [108, 100, 8] * 2
    assert table["vcpu"].tolist() == [-1, 0, 1] * 2
    # QEMU gives the start in seconds, whatever HMP says.
    assert table["t_ns"].tolist() == [10**9] * 3 + [5_500_000_000] * 3
    assert table["bytes"].tolist()[::3] == [108 * MIB, 54 * MIB]


def test_hmp_through_qmp(load):
    text = HMP.format(start=100, period="1 (sec)").replace("\n", "\r\n")
    assert load(json.dumps({"return": text}))["mib_per_s"].tolist() == [108, 100, 8]


def test_the_lines_of_virsh(load):
    table = load(VIRSH.format(start=100) + VIRSH.format(start=102))
    assert table["t_ns"].tolist() == [10**9] * 2 + [3 * 10**9] * 2
    assert table["pages"].tolist() == [768] * 4 and table["vcpu"].tolist() == [-1, 0] * 2


def test_two_domains_are_refused(load):
    with pytest.raises(ForeignFileError, match="two domains, 'vm1' and 'vm2'"):
        load(VIRSH.format(start=1) + VIRSH.format(start=1).replace("vm1", "vm2"))


def test_a_session_of_qmp_shell(load):
    text = "Welcome to the QMP low-level shell!\nConnected to QEMU 7.2.0\n\n"
    text += f"(QEMU) query-dirty-rate\n{answer(**{'dirty-rate': 5})}\n(QEMU) "
    assert load(text)["mib_per_s"].tolist() == [5]
    assert load(f"(QEMU) {answer(**{'dirty-rate': 6})}")["mib_per_s"].tolist() == [6]


def test_a_session_of_qmp(load):
    lines = [
        {"QMP": {"version": {}, "capabilities": []}},
        {"execute": "query-dirty-rate"},
        {"return": {}},
        {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"},
        {"error": {"class": "GenericError", "desc": "no"}},
        {"return": {"status": "measuring", "start-time": 9, "calc-time": 1}},
        {"return": MEASURED | {"dirty-rate": 7}, "id": "libvirt-4"},
    ]
    assert load("\n".join(map(json.dumps, lines)))["mib_per_s"].tolist() == [7]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_a_mark_of_the_byte_order(load, codec):
    assert load(answer(**{"dirty-rate": 5}).encode(codec))["pages"].tolist() == [1280]


@pytest.mark.parametrize("unknown", [{"dirty-rate": -1}, {}, {"dirty-rate": None}])
def test_a_rate_that_is_not_known_is_missing(load, unknown, tmp_path):
    table = load(answer(**unknown) + answer(**{"dirty-rate": 2, "start-time": 200}))
    for name in ("bytes", "pages", "mib_per_s"):
        assert table[name].isna().tolist() == [True, False]
    assert pd.read_csv(tmp_path / "r.csv")["pages"].isna().tolist() == [True, False]
    assert load(answer(**unknown), ".parquet")["pages"].isna().all()
    assert pd.read_parquet(tmp_path / "r.parquet")["pages"].isna().all()


def test_a_vcpus_rate_that_is_not_known(load):
    vcpus = [{"id": 0, "dirty-rate": -1}, {"id": 1, "dirty-rate": 4}]
    table = load(answer(**{"dirty-rate": 4, "vcpu-dirty-rate": vcpus}))
    assert table["mib_per_s"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (answer(**{"dirty-rate": 10**400}), "dirty-rate is 1000"),
        ('{"status": "measured", "start-time": 1, "calc-time": 1, "dirty-rate": 1e999}', "is inf"),
        (answer(**{"dirty-rate": -2}), "dirty-rate is -2"),
        (answer(**{"dirty-rate": True}), "dirty-rate is True"),
        (answer(**{"dirty-rate": 1, "calc-time": -1}), "calc-time is -1"),
        (answer(**{"dirty-rate": 1 << 39, "calc-time": 1 << 20}), "too much"),
        (answer(**{"dirty-rate": 1, "calc-time-unit": "hour"}), "calc-time-unit is 'hour'"),
        (answer(**{"dirty-rate": 1, "vcpu-dirty-rate": [3]}), "answer 1"),
        (answer(**{"dirty-rate": 1, "vcpu-dirty-rate": 3}), "answer 1"),
        (json.dumps({"return": {"status": "measured", "calc-time": 1}}), "has no start-time"),
        ("[" * 100_000, "line 1 .*not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("Status: measured\nPeriod: x (sec)\nStart Time: 1 (ms)\n", "calc-time is x"),
        ("Status: measuring\nDirty rate: (not ready)\n", "contains no measured answer"),
        ("some words\n", "line 1 .*neither JSON"),
        (answer(**{"dirty-rate": 1}) + "\nsome words\n", "line 2 .*neither JSON"),
    ],
)
def test_what_cannot_be_read_is_one_line(load, text, says):
    with pytest.raises(ForeignFileError, match=says):
        load(text)


PIECES = [answer(**{"dirty-rate": 5}), HMP.format(start=1, period="1 (sec)"), VIRSH, "(QEMU) x"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=30)), max_size=4), st.data())
def test_any_text_is_read_or_refused(lines, data):
    text = "\n".join(lines)
    if text:
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]
    survives("query-dirty-rate", text.encode("utf-8", "surrogatepass"))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=6,
)


@given(
    st.sampled_from(["status", "start-time", "calc-time", "dirty-rate", "vcpu-dirty-rate"]), JSON
)
def test_any_value_is_read_or_refused(name, value):
    survives("query-dirty-rate", answer(**{"dirty-rate": 1, name: value}).encode())
