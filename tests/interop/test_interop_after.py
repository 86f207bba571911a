# SPDX-License-Identifier: Apache-2.0
"""What comes after an import: the commands that its user runs next work on every format."""

import json
import struct

import numpy as np
import pandas as pd
import pytest

from pmlkit import cli, interop
from pmlkit.interop.lcs import MAGIC
from pmlkit.interop.lcs import VERSIONS as LCS
from pmlkit.interop.oracle import REQUEST
from pmlkit.interop.vscsi import VERSIONS

REGION = {"start": 40960, "end": 49152, "nr_accesses": {"samples": 1}}


def oracle(path):
    np.array([(t // 3, t % 5, 4096, -1) for t in range(20)], REQUEST).tofile(path)


def hashed(path):
    rows = [(1_700_000_000 + 7 * t, 2**63 + t % 5, 9000, -1) for t in range(9)]
    np.array(rows, REQUEST).tofile(path)


def lcs(path):
    rows = np.zeros(20, LCS[3])
    rows["time"], rows["obj"], rows["size"] = np.arange(20), np.arange(20) % 5, 4096
    head = struct.pack("<QQ", MAGIC, 3).ljust(8184, b"\0") + struct.pack("<Q", MAGIC)
    path.write_bytes(head + rows.tobytes())


def vscsi(path):
    rows = np.zeros(20, VERSIONS[2])
    rows["ver"], rows["len"], rows["lbn"] = 512, 8192, np.arange(20) % 5 * 8
    rows["ts"] = 10**12 + np.arange(20) * 200_000
    rows.tofile(path)


def csv(path):
    rows = [f"{t * 10**8},{t * 10**8 + 10**8},{t % 3},{g},w" for t in range(30) for g in (t, t + 1)]
    path.write_text("t_start_ns,t_end_ns,vcpu,gfn,kind\n" + "\n".join(rows))


def epoch(path):
    rows = [f"{1_700_000_000 + t * t},{t % 4}" for t in range(9)]
    path.write_text("t,o\n" + "\n".join(rows))


def parquet(path):
    pd.DataFrame({"t": np.arange(30) * 0.3, "o": [2**52 - 1, 1, 2] * 10}).to_parquet(path)


def damo(path):
    snapshots = [
        {"start_time": t * 10**9, "end_time": (t + 1) * 10**9, "regions": [REGION]}
        for t in range(5)
    ]
    path.write_text(json.dumps([{"target_id": 0, "snapshots": snapshots}]))


def ring(path):
    path.write_text(
        "".join(
            f" qemu-1 [000] ...1.  {100 + t}.000002: kvm_dirty_ring_push: ring {t % 2}: dirty 0x2 "
            f"reset 0x0 slot 0 offset {t % 4:#x} (used 2)\n"
            for t in range(12)
        )
    )


def lackey(path):
    path.write_text("".join(f"I  {0x400000 + 900 * t:x},3\n S {t % 3:x}000,8\n" for t in range(50)))


def pinatrace(path):
    lines = [
        f"0x{0x400000 + 4 * t:x}: {'RW'[t % 2]} {0x7FFD0000 + t % 7 * 4096:#x}" for t in range(50)
    ]
    path.write_text("\n".join([*lines, "#eof\n"]))


FILES = {
    "oracle-general": (oracle, []), "oracle-general of hashes": (hashed, []), "lcs": (lcs, []),
    "vscsi": (vscsi, []), "csv": (csv, []), "csv of times": (epoch, ["--columns", "time=t,obj=o"]),
    "parquet": (parquet, ["--columns", "time=t,obj=o", "--window", "100ms"]), "damo": (damo, []),
    "kvm-dirty-ring": (ring, []), "lackey": (lackey, ["--instructions", "10"]),
    "pinatrace": (pinatrace, []),
}  # fmt: skip


def test_every_format_that_becomes_a_trace_is_here():
    loaded = {name for name, one in interop.FORMATS.items() if "load" in one.ways}
    assert loaded - {"query-dirty-rate"} == {name.split()[0] for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_the_commands_that_follow_an_import_work(tmp_path, capsys, name):
    make, options = FILES[name]
    make(tmp_path / "file")
    out = str(tmp_path / "x.trace")
    words = ["import", name.split()[0], str(tmp_path / "file"), "-o", out, *options]
    follow = [
        words,
        ["info", out],
        ["wss", out],
        ["mrc", out],
        ["plot", out, "surface", "-o", str(tmp_path / "surface")],
    ]
    for command in follow:
        assert cli.main(command) == 0, (command, capsys.readouterr().err)
    assert capsys.readouterr().err == ""


def test_miss_ratios_are_of_memory_in_the_trace_s_pages(tmp_path, capsys):
    oracle(tmp_path / "file")
    out = str(tmp_path / "x.trace")
    words = ["import", "oracle-general", str(tmp_path / "file"), "-o", out, "--page-size", "8192"]
    assert cli.main(words) == cli.main(["mrc", out]) == 0
    assert "miss ratio at 40 KiB" in capsys.readouterr().out  # of five pages
    assert cli.main(["mrc", out, "--window", "2s"]) == 0
    assert "40 KiB" in capsys.readouterr().out


def test_an_import_that_is_broken_off_leaves_nothing(tmp_path, monkeypatch):
    csv(tmp_path / "file")

    def stop(task, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("pmlkit.progress.Task.begin", stop)

    with pytest.raises(KeyboardInterrupt):
        interop.load("csv", tmp_path / "file", tmp_path / "x.trace")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
