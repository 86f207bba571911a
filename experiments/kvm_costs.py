# SPDX-License-Identifier: Apache-2.0
"""The costs of logging and of capturing a page under Debian's KVM, in the lab.

A guest (`known`) writes 1,800 pages a round: without a log, with a log that is not captured, and
with each method of capture. Emulated time counts instructions, so the numbers are instructions.

    python -m experiments.kvm_costs data/kvm-costs
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pandas as pd

from experiments import made
from pmlkit.recordings import ROOT
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.bochs import INSN_PER_S
from pmlkit.sources.lab.kvm.image import KERNELS
from pmlkit.sources.lab.kvm.session import KvmLabOptions, collect

GUEST = "known"
_COLUMNS = ["log", "capture", "round", "start", "end", "pages", "rearm", "captured", "lost"]
_SCRIPT = """\
for m in $(cat /mods/kvm-order); do
    [ $m = kvm-intel ] && parameters="$KVM_INTEL" || parameters=
    insmod /mods/$m.ko $parameters || exit 3
done
cat >/tmp/costs.py <<'PROGRAM'
{program}
PROGRAM
cd /out
VMM="--memory {mib} --vcpus 1 --go /job/go --kit --cmdline 'vmm={mib} {cmdline}' /job/kernel"
export VMM
PYTHONPATH=/job python3 /tmp/costs.py {what}
"""


def measure(kernel: str, what: str = "costs") -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rounds of all cases, and the versions of the software.

    Parameters
    ----------
    what : {"costs", "losses"}
        Every way to capture; or three of them, into buffers that are too small.
    """
    guest = guests.load(GUEST)
    program = (ROOT / "experiments" / "kvm_costs_host.py").read_text()
    words = {"mib": guest.memory_mib, "cmdline": guest.cmdline, "what": what}
    script = _SCRIPT.format(program=program, **words)
    with tempfile.TemporaryDirectory() as scratch:
        spool = Path(scratch)
        collect(guest, spool, KvmLabOptions(kernel=kernel, script=script))
        versions = json.loads((spool / "job.json").read_text())["header"]["versions"]
        lines = [line.split() for line in (spool / f"{what}.txt").read_text().splitlines()]
    if bad := [line for line in lines if "error" in line]:
        raise SystemExit("\n".join(" ".join(line) for line in bad))
    table = pd.DataFrame(lines, columns=pd.Index(_COLUMNS))
    return table.astype(dict.fromkeys(_COLUMNS[2:], "int64")), versions


def costs(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return instructions per page: to log, to capture and to re-arm it.

    The cheapest round counts: in the others there is the timer's tick more.
    """
    insn = INSN_PER_S / 1e9
    timed = rounds.assign(
        took=(rounds["end"] - rounds["start"]) * insn, rearm=rounds["rearm"] * insn
    )
    best = timed.groupby(["log", "capture"], sort=False).agg(
        took=("took", "min"), rearm=("rearm", "min"), pages=("pages", "max")
    )
    rows = []
    for (log, capture), case in best.iterrows():
        if capture in ("off", "none"):
            continue
        bare, none = best.loc[(log, "off")], best.loc[(log, "none")]
        rows.append({
            "log": log,
            "capture": capture,
            "pages": int(case["pages"]),
            "log a page": round((none["took"] - bare["took"]) / none["pages"]),
            "capture it": round((case["took"] - none["took"]) / case["pages"]),
            "re-arm it": round(case["rearm"] / case["pages"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def main(out: str) -> None:
    """Write the table, and its provenance."""
    Path(out).mkdir(parents=True, exist_ok=True)
    tables, versions = [], []
    for kernel in KERNELS:
        rounds, of = measure(kernel)
        tables.append(costs(rounds).assign(kernel=kernel))
        versions.append(of)
    table = pd.concat(tables)
    table[["kernel", *table.columns[:-1]]].to_csv(Path(out) / "costs.csv", index=False)
    command = f"python -m experiments.kvm_costs {out}"
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
