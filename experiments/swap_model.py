# SPDX-License-Identifier: Apache-2.0
"""The model of a guest with less memory, compared with real limited guests that have a swap disk.

Each limited guest is compared with a guest of the same program that has enough memory. From the
accesses of the latter, `pmlkit.techniques.memory` predicts the pages that the limited guest reads
from its swap disk and writes to it. Recordings that are not bundled are made in a folder. With a
swap disk, two recordings differ.

    python -m experiments.swap_model RECORDINGS data/swap-model
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made
from pmlkit.techniques import Recorded
from pmlkit.techniques.memory import Guest, MemoryModel

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

__all__ = ["PAIRS", "Pair", "against", "main"]


@dataclass(frozen=True)
class Pair:
    """A program, its settings, and the memory of the limited and of the roomy guest."""

    program: str
    settings: tuple[str, ...]
    limited_mib: int
    roomy_mib: int = 256


_PRESSURE = ("phase_ms=400",)
PAIRS = (
    Pair("pressure", _PRESSURE, 112),
    Pair("pressure", _PRESSURE, 96),
    Pair("pressure", _PRESSURE, 128),
    Pair("redis", ("keys=70000",), 160),
    Pair("redis", ("keys=70000",), 144),
    Pair("xz", (), 112),
    Pair("xz", (), 104),
    Pair("sqlite", (), 112),
)
BUNDLED = {("pressure", 112): "pressure", ("pressure", 256): "pressure-roomy"}


def _trace(folder: Path, pair: Pair, mib: int) -> Trace:
    """Return the recording of a pair's guest: bundled, from the folder, or a new one."""
    if (pair.program, mib) in BUNDLED:
        return pmlkit.open(pmlkit.bundled(BUNDLED[pair.program, mib]))
    path = folder / f"{pair.program}-{mib}.trace"
    if not path.exists():
        swap = ["--swap", "128"] if mib == pair.limited_mib else []
        chosen = [word for setting in pair.settings for word in ("--set", setting)]
        command = ["pmlkit", "record", pair.program, "--memory", str(mib), *swap, *chosen]
        subprocess.run([*command, "-o", str(path)], check=True)
    return pmlkit.open(path)


def against(limited: Trace, roomy: Trace) -> Json:
    """Return the pages that the limited guest swapped in and out, and the model's predictions."""
    recorded = Recorded.of(roomy)
    real = limited.guest.iloc[-1]
    # Both guests have equal memory for pages: the kernel's image is larger in the larger guest.
    image = recorded.memory_pages - int(recorded.guest["total_bytes"].iloc[-1]) // 4096
    model = Guest(recorded, MemoryModel())
    model.resize(int(real["total_bytes"]) // 4096 + image)
    model.advance(recorded.n_rounds)
    return {
        "read": int(real["pswpin"]),
        "model_read": int(model.swap_ins + model.refaults),
        "written": int(real["pswpout"]),
        "model_written": int(model.swap_outs),
    }


def main(folder: str, out: str) -> None:
    """Write a row per pair, and the provenance."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows: list[Json] = []
    for pair in PAIRS:
        limited, roomy = (
            _trace(Path(folder), pair, mib) for mib in (pair.limited_mib, pair.roomy_mib)
        )
        facts = {"program": pair.program, "memory_mib": pair.limited_mib}
        rows.append(facts | against(limited, roomy))
        versions = limited.meta.provenance["versions"]
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(Path(out) / "swaps.csv", index=False)
    command = f"python -m experiments.swap_model FOLDER {out}"
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
