# SPDX-License-Identifier: Apache-2.0
"""Hold a fresh recording of `hotcold` against its known answer, through the command line alone.

Usage: known_answer.py X.trace. Within its first phase every window of a second sees exactly
N hot and M cold pages; and every known answer that the guest itself gave has to come out.
"""

import json
import subprocess
import sys
from pathlib import Path

PMLKIT = Path(sys.executable).with_name("pmlkit")
WINDOW_NS = 1_000_000_000


def pmlkit(*words):
    done = subprocess.run([PMLKIT, *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def whole_windows(info, rows, phase):
    """Return the rows whose window lies within the phase."""
    starts = [p["t_ns"] for p in info["phases"]] + [info["duration_ns"]]
    index = [p["name"] for p in info["phases"]].index(phase)
    first, last = starts[index], starts[index + 1]
    return [row for row in rows if row["t_ns"] - WINDOW_NS >= first and row["t_ns"] <= last]


def main(trace):
    info = pmlkit("info", trace)
    rows = pmlkit("wss", trace, "--window", "1s", "--sliding")
    asked = info["options"]["parameters"]
    windows = whole_windows(info, rows, "hotcold")
    seen = {(row["region:hot"], row["region:cold"]) for row in windows}
    print(
        f"{len(info['known'])} known answers, {len(windows)} windows of 1 s: (hot, cold) = {seen}"
    )
    assert info["known"] and info["all_known_met"], info["known"]
    assert seen == {(asked["hot"], asked["cold"])}, f"expected {asked}"
    assert all(row["pages"] >= asked["hot"] + asked["cold"] for row in windows)


if __name__ == "__main__":
    main(sys.argv[1])
