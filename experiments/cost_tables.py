# SPDX-License-Identifier: Apache-2.0
"""The tables of costs in `hypervisor-patches/README.md` and in the how-to for a KVM host.

They are computed from the tables in `data`; `experiments.quoted` writes them into the texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from experiments import pieces
from pmlkit.recordings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TABLES", "markdown"]


def exits() -> pd.DataFrame:
    """Return the cost of a log-full exit, by design of the log."""
    return pd.read_csv(ROOT / "data" / "exit-costs" / "exits.csv")


def stock() -> pd.DataFrame:
    """Return the cost of a log-full exit in stock log-dirty, by version of Xen."""
    table = pd.read_csv(ROOT / "data" / "exit-costs" / "stock.csv")
    version = table.pop("xen").str.split("+").str[0]
    table.insert(0, "Xen", version)
    return table


def exits_off() -> pd.DataFrame:
    """Return the costs of exits of a domain that is not logged."""
    table = pd.read_csv(ROOT / "data" / "exit-off" / "exits-off.csv")
    without = table.loc[table["Xen"] == "without the series", "cpuid"].item()
    table["more"] = table["cpuid"] - without
    return table.rename(columns={"cpuid": "CPUID", "hypercall": "a hypercall"})


def longest_pieces() -> pd.DataFrame:
    """Return the longest piece of each operation, by guest and memory."""
    found = pieces.longest(pd.read_csv(ROOT / "data" / "pieces" / "pieces.csv"))
    names = {64: "64 MiB", 512: "512 MiB", 4096: "4 GiB", pieces.TIB_MIB: "1 TiB (model)"}
    found.columns = pd.Index([f"{guest}, {names[mib]}" for guest, mib in found.columns])
    return found.reset_index().rename(columns={"what": "operation"})


def closing() -> pd.DataFrame:
    """Return the cost of closing a round, before and now."""
    table = pd.read_csv(ROOT / "data" / "closing-costs" / "closing.csv")
    series = table["series"].map({"before": "of 23 November", "now": "now"})
    return pd.DataFrame(
        {
            "guest": table["guest"],
            "memory": [f"{mib} MiB" for mib in table["MiB"]],
            "series": series,
            "walk": table["walk_tsc"],
            "snapshots": _of(table["tables_tsc"], table["snapshots"]),
            "drain": table["drain_tsc"],
            "bitmap, re-arm": _of(table["rearm_tsc"], table["logged"]),
            "paused, two harvests included": table["pause_tsc"],
        }
    )


def _of(costs: pd.Series, counts: pd.Series) -> list[str]:
    return [f"{cost:,} ({count:,})" for cost, count in zip(costs, counts, strict=True)]


def plain() -> pd.DataFrame:
    """Return the median cost of a round that does not distinguish page tables, by guest."""
    rounds = pd.read_csv(ROOT / "data" / "plain-rounds" / "rounds.csv")
    table = rounds.groupby(["guest", "MiB"], sort=False)[["rearmed", "pause_tsc"]].median()
    return table.reset_index().rename(columns={"rearmed": "pages re-armed", "pause_tsc": "paused"})


def harvests() -> pd.DataFrame:
    """Return the cost of a round of each harvest, and the frames that a later scan found."""
    table = pd.read_csv(ROOT / "data" / "harvests" / "guests.csv").drop(columns="group")
    return table.rename(columns={"memory_mib": "MiB"})


_CAPTURES = {
    "tracepoint": "the tracepoint kvm_dirty_ring_push and ftrace",
    "ftrace": "a kprobe and ftrace",
    "kprobe": "a kprobe and BPF",
    "fentry": "the function's entry and BPF",
    "fentry-unmarked": "the same, with --no-marks",
    "ringbuf": "the same, with --no-marks, into the kernel's ring buffer of BPF",
}


def kvm() -> pd.DataFrame:
    """Return the costs of a page under KVM: to log, to capture, to re-arm."""
    table = pd.read_csv(ROOT / "data" / "kvm-costs" / "costs.csv", dtype={"kernel": str})
    return pd.DataFrame(
        {
            "Linux": table["kernel"],
            "log": table["log"],
            "captured by": table["capture"].map(_CAPTURES),
            "to log a page": table["log a page"],
            "to capture it": table["capture it"],
            "to arm it again": table["re-arm it"],
        }
    )


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "exits": exits,
    "stock": stock,
    "exits-off": exits_off,
    "pieces": longest_pieces,
    "plain": plain,
    "closing": closing,
    "harvests": harvests,
    "kvm": kvm,
}


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers with separators of thousands."""
    lines = [list(table.columns), ["---"] * len(table.columns)]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    number = float(str(value))
    if number != number:
        return ""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"
