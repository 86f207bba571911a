# SPDX-License-Identifier: Apache-2.0
"""A soak of KVM's collector in the lab: minutes of rounds, and no entry lost that is not reported.

The guest `rewrites` writes its pages at full speed after each re-arm. Once a minute the collector
stops for some seconds, in which more entries are logged than its buffers hold. The monitor counts
KVM's entries of each round. The trace must contain them all, or report them as lost.

    python -m experiments.kvm_soak [SECONDS [KERNEL]]

SECONDS are by the emulated host's clock (default: 600); the run takes about as long.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.kvm import ingest, session, steps

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Tell

__all__ = ["judge", "run"]

GUEST = "rewrites"
SECONDS = 600
_LIMIT = 20.0  # most seconds here for a second of the emulated host


def run(folder: Path, seconds: int, kernel: str, progress: Tell = print) -> tuple[Trace, list[int]]:
    """Boot a kernel and soak; return the trace, and the number of entries of each round."""
    name = "kvm_soak_job.py"
    script = steps.script({name: Path(__file__).with_name(name).read_text()}, f"{name} {seconds}")
    options = session.KvmLabOptions(
        kernel=kernel, script=script, rounds=1, period_s=seconds,
        time_limit_s=600 + _LIMIT * seconds,
    )  # fmt: skip
    session.collect(guests.load(GUEST), folder, options, progress)
    said = (folder / "said.txt").read_text()
    if (folder / "status").read_text().strip() != "0":
        raise PmlkitError("the job on the host failed", said[-2000:])
    progress(said.strip())
    (folder / "report.txt").touch()
    trace = ingest.ingest(folder, folder / "soak.trace", heard=progress)
    return trace, [int(line) for line in (folder / "taken.txt").read_text().split()]


def judge(trace: Trace, entries_of_rounds: list[int]) -> dict[str, int]:
    """Return counts of the soak; ``unreported`` and ``wrong`` must be 0.

    ``wrong`` are rounds that report no loss and have not what KVM handed out. ``unreported`` is of
    all rounds together, as the kernel does not say where in a gap the lost ones were.
    """
    entries = trace.to_pandas(["round"]).groupby("round").size()
    lost = trace.rounds.set_index("round")["lost"]
    wrong = sum(
        int(entries.get(number, 0)) != count and not lost[number]
        for number, count in enumerate(entries_of_rounds)
    )
    return {
        "rounds": len(entries_of_rounds), "entries": int(entries.sum()), "lost": int(lost.sum()),
        "rounds with losses": int((lost > 0).sum()), "wrong": wrong,
        "unreported": sum(entries_of_rounds) - int(entries.sum()) - int(lost.sum()),
    }  # fmt: skip


def main(seconds: str = str(SECONDS), kernel: str = "6.1") -> int:
    """Soak; return 0 if all losses were reported."""
    with tempfile.TemporaryDirectory() as folder:
        counts = judge(*run(Path(folder), int(seconds), kernel))
    for name, count in counts.items():
        print(f"{name:20} {count:>12,}")
    return int(counts["unreported"] != 0 or counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
