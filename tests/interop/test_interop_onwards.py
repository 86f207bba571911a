# SPDX-License-Identifier: Apache-2.0
"""What comes after an import: `info`, the default `wss`, `mrc` and `plot surface` of each file."""

import json
import zlib

import pytest
import tracedat

from pmlkit import cli

S = 10**9
PUSH = " qemu-1 [000] ..... {t:.6f}: kvm_dirty_ring_push: ring {ring}: dirty 0x1 reset 0x0 "
PUSH += "slot 0 offset {page:#x} (used 1)\n"
RESET = " qemu-1 [000] ..... {t:.6f}: kvm_dirty_ring_reset: ring {ring}: dirty 0x1 reset 0x1\n"


def ftrace(resets=True, rings=2):
    lines = []
    for tick in range(40):
        t = 100 + tick / 10
        lines += [PUSH.format(t=t, ring=r, page=(tick * 3 + r) % 17) for r in range(rings)]
        if resets and tick % 5 == 4:
            lines += [RESET.format(t=t + 0.05, ring=r) for r in range(rings)]
    return "".join(lines).encode()


def trace_dat():
    events = [tracedat.push(100 * S + n * S // 10, 1, 0, 0, n % 7) for n in range(40)]
    resets = [tracedat.reset(100 * S + n * S // 2 + 7, 2, 0) for n in range(1, 8)]
    return tracedat.version_7([[tracedat.page(sorted(events + resets))]], codec="zstd")


def damo(compress=False, irregular=False):
    snapshots, t = [], 5 * S
    for n in range(40):
        length = S // 10 + (n % 7 - 3) * 10**6 * irregular
        regions = [
            {"start": first << 12, "end": (first + 3) << 12, "nr_accesses": {"samples": n % 3}}
            for first in (n % 5, 1 << 35)
        ]
        snapshots.append({"start_time": t, "end_time": t + length, "regions": regions})
        t += length
    data = json.dumps([{"target_id": 0, "snapshots": snapshots}]).encode()
    return zlib.compress(data) if compress else data


def perf_script():
    line = (
        "kdamond.0 1 [000] {t:.6f}: damon:damon_aggregated: target_id=1 nr_regions=1 {a}-{b}: 3 1\n"
    )
    lines = [line.format(t=7 + n / 10, a=n << 12, b=(n + 4) << 12) for n in range(40)]
    return "".join(lines).encode()


def lackey():
    lines = ["==7== Lackey"]
    for n in range(3000):
        lines += [f"I  {0x400000 + 64 * n:08x},4", f" L {0xFFFFFFFFFF600000 + n % 9 * 4096:x},8"]
    return "\n".join(lines).encode()


FILES = {
    "resets": ("kvm-dirty-ring", ftrace(), "1s"),
    "no resets": ("kvm-dirty-ring", ftrace(resets=False), "1s"),
    "trace.dat": ("kvm-dirty-ring", trace_dat(), "1s"),
    "damo": ("damo", damo(), "1s"),
    "damo, compressed and irregular": ("damo", damo(compress=True, irregular=True), "1s"),
    "perf script": ("damo", perf_script(), "1s"),
    "lackey": ("lackey", lackey(), "1us"),
}


@pytest.mark.parametrize(("name", "data", "window"), FILES.values(), ids=FILES)
def test_commands_go_on_with_an_import(tmp_path, capsys, name, data, window):
    (tmp_path / "x").write_bytes(data)
    trace = str(tmp_path / "x.trace")
    more = ["--instructions", "500"] if name == "lackey" else []
    assert cli.main(["import", name, str(tmp_path / "x"), "-o", trace, *more, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["entries"] and made["lost"] in (None, 0)
    assert cli.main(["info", trace]) == 0
    assert "lock step" not in capsys.readouterr().out
    assert cli.main(["wss", trace, "--window", window, "--json"]) == 0
    capsys.readouterr()
    if made["kind"] == "access":
        assert cli.main(["mrc", trace, "--json"]) == 0
        capsys.readouterr()
    assert cli.main(["plot", trace, "surface", "-o", str(tmp_path / "surface")]) == 0
