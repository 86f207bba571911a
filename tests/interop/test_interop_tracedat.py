# SPDX-License-Identifier: Apache-2.0
"""trace-cmd's files: the same as the text that trace-cmd makes of them."""

import shutil
import struct
import subprocess

import pytest
import tracedat
from foreign import survives
from hypothesis import example, given
from hypothesis import strategies as st
from needs import REQUIRED
from tracedat import page, push, reset
from waiting import HANG_S

from pmlkit import interop
from pmlkit.interop.reading import ForeignFileError

T = 100 * 10**9
THREADS = {11: "CPU 0/KVM", 12: "CPU 1/KVM", 20: "qemu"}
CPUS = [
    [
        page([push(T + i * 1000, 11, 0, 0, 0x20 - i) for i in range(5)]
             + [reset(T + 2 * 10**8, 20, 0), reset(T + 2 * 10**8 + 1000, 20, 1)]),
        page([push(T + 3 * 10**8 + i * 1000, 11, 0, 1, i) for i in range(4)], missed=7),
    ],
    [page([push(T + 500 + i * 1000, 12, 1, 0, 0x40 + i) for i in range(3)], large=True)],
]  # fmt: skip
FILES = {
    "6": tracedat.version_6(CPUS, THREADS),
    "7": tracedat.version_7(CPUS, THREADS),
    "7 by zlib": tracedat.version_7(CPUS, THREADS, codec="zlib"),
    "7 by zstd": tracedat.version_7(CPUS, THREADS, codec="zstd"),
}


@pytest.fixture
def load(tmp_path):
    def make(data, name="x", **options):
        path = tmp_path / name
        path.write_bytes(data)
        return interop.load("kvm-dirty-ring", path, tmp_path / f"{name}.trace", **options)

    return make


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_both_versions_and_codecs(load, data):
    trace = load(data)
    rows = trace.to_pandas(["round", "vcpu", "gfn"]).values.tolist()
    assert [row for row in rows if row[1] == 1] == [[0, 1, 0x42], [0, 1, 0x41], [0, 1, 0x40]]
    assert [row for row in rows if row[1] == 0] == [
        *([0, 0, 0x1C + i] for i in range(5)), *([1, 0, (1 << 32) + 3 - i] for i in range(4))
    ]  # fmt: skip
    assert trace.rounds["t_end_ns"].tolist() == [200_001_000, 300_003_001]
    assert trace.rounds["lost"].tolist() == [0, 7] and trace.meta.losses == "counted"
    assert any("reversed" in note for note in trace.meta.notes)  # its uname says 6.1


@pytest.mark.parametrize("name", ["6", "7", "7 by zstd"])
def test_trace_cmd_prints_what_is_read(load, tmp_path, name):
    if not shutil.which("trace-cmd") and not REQUIRED:
        pytest.skip("needs trace-cmd: apt-get install trace-cmd")
    trace = load(FILES[name])
    command = ["trace-cmd", "report", "-N", "-t", "-i", str(tmp_path / "x")]
    text = subprocess.run(command, capture_output=True, check=True, timeout=HANG_S).stdout
    again = load(text, "text", kernel="6.1")
    columns = ["round", "vcpu", "gfn"]
    assert again.to_pandas(columns).equals(trace.to_pandas(columns))
    times = ["t_start_ns", "t_end_ns", "lost"]
    assert again.rounds[times].equals(trace.rounds[times])


def test_losses_that_nobody_counted_and_those_after_the_last_page(load):
    unknown = load(tracedat.version_6([[page([push(T, 1, 0, 0, 1)], missed=-1)]]))
    assert unknown.meta.lost is None
    stats = (2, b"CPU: 0\nentries: 1\noverrun: 5\ncommit overrun: 1\ndropped events: 2\n\0")
    seven = [[page([push(T, 1, 0, 0, 1)], missed=7)]]
    assert load(tracedat.version_6(seven, options=[stats]), "y").meta.lost == 8
    assert load(tracedat.version_6([[page([push(T, 1, 0, 0, 1)])]]), "z").meta.lost == 0


def test_a_date_makes_a_base(load):
    microseconds = 1_700_000_000 * 10**6
    data = tracedat.version_7(CPUS, options=[(1, f"{microseconds:#x}\0".encode())])
    assert load(data).meta.clock["base_ns"] == microseconds * 1000 + T


def test_a_clock_of_the_processor(load):
    options = [(4, b"local global [x86-tsc]\0")]
    with pytest.raises(ForeignFileError, match="clock b'x86-tsc', not ns"):
        load(tracedat.version_6(CPUS, options=options))
    scale = (14, struct.pack("<IIQ", 1 << 31, 32, 0))
    made = load(tracedat.version_6(CPUS, options=[scale, *options]), "y")
    assert made.rounds["t_end_ns"].tolist() == [100_000_500, 150_001_501]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (FILES["6"][:-PAGE] if (PAGE := tracedat.PAGE) else b"", "is cut"),
        (FILES["7"][:3000], "points to byte|is cut"),
        (FILES["6"].replace(b"tracing6", b"tracing8"), "has version b'8'"),
        (FILES["6"].replace(b"kvm_dirty_ring_", b"kvm_other_ring_"), "has no kvm_dirty_ring_push"),
        (FILES["6"].replace(b"flyrecord", b"latency  "), "instead of pages of a ring buffer"),
        (FILES["7 by zlib"].replace(b"zlib", b"lzma"), "compressed with b'lzma'"),
        (
            tracedat.version_6([[page([push(T, 1, 0, 0, 1 << 40)])]]),
            "page 0 of CPU 0 .*beyond the limit",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(load, data, says):
    with pytest.raises(ForeignFileError, match=says):
        load(data)


@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8))))
@example("7 by zstd", [(0.125, b"\0")])
@example("7 by zlib", [(0.125, b"\0")])
def test_any_change_is_read_or_refused(name, changes):
    data = bytearray(FILES[name])
    for where, put in changes[:8]:
        at = int(where * (len(data) - 1))
        data[at : at + len(put)] = put
    survives("kvm-dirty-ring", bytes(data))
