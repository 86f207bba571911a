# SPDX-License-Identifier: Apache-2.0
"""The tables of texts, by name: a function for each, computed from ``data/``.

`experiments.quoted` writes them into the texts; those of costs are `experiments.cost_tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import ablation, caps, cost_tables, equal_looks, law, mrc_errors, wss_bench
from experiments.quoted_numbers import DATA, count, short
from pmlkit.law import RULED, STATED
from pmlkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TABLES"]

HELD_OUT = DATA / "wss-bench"
DEVELOPMENT = DATA / "wss-bench-development"
SHORT_T = DATA / "wss-bench-100ms"


def mrc_table() -> pd.DataFrame:
    """Return the distance of SHARDS and AET from the exact curve."""
    return mrc_errors.summary(pd.read_csv(DATA / "mrc-errors" / "errors.csv"))


def swap_table() -> pd.DataFrame:
    """Return the swapped pages of limited guests, and the model's error."""
    table = pd.read_csv(DATA / "swap-model" / "swaps.csv")
    made = {"guest": [f"{row.program}, {row.memory_mib} MiB" for row in table.itertuples()]}
    for way, title in (("read", "pages read from swap"), ("written", "pages written")):
        off = table[f"model_{way}"] / table[way] - 1
        told = ["" if share != share else f"{share * 100:+.0f} %" for share in off]
        made |= {title: table[way], f"the model, {way}": told}
    return pd.DataFrame(made)


def equal_table() -> pd.DataFrame:
    """Return the errors of techniques that see all accesses, at equal numbers of looks."""
    return equal_looks.summary(pd.read_csv(DATA / "equal-looks" / "errors.csv"))


def ablation_table() -> pd.DataFrame:
    """Return the error of a sample with and without PML's log, and its cost, in percent."""
    return ablation.worded(pd.read_csv(DATA / "ablation" / "errors.csv"))


def law_table(ruled: bool = False) -> pd.DataFrame:
    """Return, for each technique, how far predicted errors are off, on the recorder's guests."""
    table = law.summary(law.load(DATA / "law")).reset_index()
    table = table[table["technique"].isin(list(RULED if ruled else STATED))]
    shares = [name for name in table if name.endswith("%")]
    table[shares] = table[shares].map(short)
    return table.assign(
        **{n: table[n].map("{:.2f}".format) for n in ("half within", "nine of ten")}
    )


def law_windows() -> pd.DataFrame:
    """Return how far predictions are off for each T."""
    table = law.windows(DATA / "law")
    factors = [name for name in table if name.endswith((": half", ": nine of ten"))]
    return table.assign(**{name: table[name].map("{:.2f}".format) for name in factors})


def capped_table(name: str = "caps") -> pd.DataFrame:
    """Return the use of techniques to an operator, over all programs."""
    made = caps.summary(pd.read_csv(DATA / "caps" / f"{name}.csv"))
    worst = [f"{times:.2f}" for times in made["slowdown" if "slowdown" in made else "waiting"]]
    if "slowdown_pm" in made:
        worst = [
            f"{time} ± {half:.2f}" for time, half in zip(worst, made["slowdown_pm"], strict=True)
        ]
    return pd.DataFrame(
        {
            "technique": [title.partition(" (")[0] for title in made["title"]],
            f"slowed by more than {format_share(caps.HURT - 1)}": [
                f"{row.hurt} of {row.programs}" for row in made.itertuples()
            ],
            "slow-down, the worst (times)": worst,
            "pages back a second": [count(value) for value in made["swap_ins_per_s"]],
            "memory saved (% of the peak)": [count(value * 100) for value in made["saved"]],
            "MiB beyond the truth's cap": [f"{value:+.0f}" for value in made["beyond_mib"]],
        }
    )


def windows_table() -> pd.DataFrame:
    """Return the memory model's results with the true W(t, T) for several T."""
    table = pd.read_csv(DATA / "caps" / "windows.csv")
    return pd.DataFrame(
        {
            "program": table["program"],
            "T (s)": [f"{ns / 1e9:g}" for ns in table["window_ns"]],
            "size (MiB)": table["cap_mib"],
            "memory saved (% of the peak)": [count(share * 100) for share in table["saved"]],
            "pages back a second": [count(value) for value in table["swap_ins_per_s"]],
            "slow-down (times)": [f"{value:.2f}" for value in table["waiting"]],
        }
    )


def clock_table() -> pd.DataFrame:
    """Return, for each program and kind of T, the changes from 125 MIPS to 1,000."""
    table = pd.read_csv(DATA / "clock-sensitivity" / "agreement.csv")
    table = table[(table["ns_per_insn"] == 1) & (table["budget"] == 0.005)]
    return pd.DataFrame(
        {
            "program": table["program"],
            "T of the same": table["kind"],
            "techniques": table["techniques"],
            "correlation of errors": [f"{value:.2f}" for value in table["correlation"]],
            "error, over that at 125 MIPS": [f"{value:.2f}" for value in table["error_ratio"]],
            "best at 125 MIPS": table["first"],
            "best at 1,000": table["other"],
        }
    )


def recordings_table() -> pd.DataFrame:
    """Return what the bundled recordings took: guest time, QEMU's processor time, and space."""
    rows = []
    for path in sorted(DATA.glob("*.trace")):
        trace = pmlkit.open(path)
        if "qemu_cpu_s" in trace.meta.overheads:
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            cpu_s = trace.meta.overheads["qemu_cpu_s"]
            seconds = f"{trace.duration_ns / 1e9:.1f}"
            rows.append((path.stem, seconds, f"{cpu_s:.1f}", f"{size / 2**20:.1f}"))
    columns = ["recording", "guest time (s)", "processor time of QEMU (s)", "trace (MiB)"]
    return pd.DataFrame(rows, columns=columns)


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    **cost_tables.TABLES,
    "mrc-errors": mrc_table,
    "swap-model": swap_table,
    "equal-looks": equal_table,
    "ablation": ablation_table,
    "law": law_table,
    "law-ruled": lambda: law_table(ruled=True),
    "law-windows": law_windows,
    "caps": capped_table,
    "caps-model": lambda: capped_table("model"),
    "caps-windows": windows_table,
    "clock": clock_table,
    "recordings": recordings_table,
    "wss-statements": lambda: wss_bench.statement_table(HELD_OUT),
    "wss-cost": lambda: wss_bench.cost_table(HELD_OUT),
    "wss-chosen": lambda: wss_bench.chosen_table(HELD_OUT, DEVELOPMENT),
    "wss-chosen-5s": lambda: wss_bench.chosen_table(HELD_OUT, DEVELOPMENT, "5s"),
    "wss-cost-short": lambda: wss_bench.cost_table(SHORT_T, 100_000_000),
}
