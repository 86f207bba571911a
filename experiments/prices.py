# SPDX-License-Identifier: Apache-2.0
"""The table of prices, ``pmlkit/prices.csv``: from measurements in the lab, and from assumptions.

Emulated time counts instructions, so the lab's measurements are in instructions. Other prices are
published or assumed, in ns of a processor that the row names (`pmlkit.costs.PROCESSORS`).

    python -m experiments.prices
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments.harvests import steady
from pmlkit.costs import INSTRUCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(pmlkit.bundled("redis")).parent
TABLE = ROOT / "pmlkit" / "prices.csv"
COLUMNS = ["event", "price", "unit", "leaves", "what", "kind", "source"]
_HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Written by `python -m experiments.prices`.\n"
_TABLE_ENTRIES = 512  # entries of a page table
_REGION_MIB, _AREA_MIB, _PAGES_OF_MIB = 2, 1024, 256  # pages under an entry of the upper levels


# ------------------------------------------------------------------------------
# Measured: each function returns a price in instructions.


def full_exit(design: str = "one buffer, re-arm per round") -> float:
    """Return the price of an exit for a full buffer."""
    exits = pd.read_csv(DATA / "exit-costs" / "exits.csv").set_index("design")
    return float(exits.loc[design, "instructions per exit"])


def drained_entry() -> float:
    """Return the price of draining an entry by an otherwise idle processor."""
    exits = pd.read_csv(DATA / "exit-costs" / "exits.csv").set_index("design")
    return float(exits.loc["four buffers, re-arm per round", "per entry drained"])


def stock_entry() -> float:
    """Return the price of a logged page in stock log-dirty."""
    stock = pd.read_csv(DATA / "exit-costs" / "stock.csv")
    return float(stock.loc[stock["xen"].str.startswith("4.17"), "per entry"].item())


def hypercall() -> float:
    """Return the price of an empty hypercall of a domain that is not logged."""
    exits = pd.read_csv(DATA / "exit-off" / "exits-off.csv")
    rows = (exits["Xen"] == "with it") & (exits["logged"] == "no domain is logged")
    return float(exits.loc[rows, "hypercall"].item())


def plain_round() -> tuple[float, float]:
    """Return the prices of a round, and of each re-armed page.

    The slope is common to the guests (least squares), the rest a guest's own, as it grows with the
    memory: of that, the median over the guests.
    """
    rounds = pd.read_csv(DATA / "plain-rounds" / "rounds.csv")
    guests = rounds.groupby("guest")
    pages = rounds["rearmed"] - guests["rearmed"].transform("mean")
    paused = rounds["pause_tsc"] - guests["pause_tsc"].transform("mean")
    each = float((pages * paused).sum() / (pages**2).sum())
    rest = rounds["pause_tsc"] - each * rounds["rearmed"]
    return float(rest.groupby(rounds["guest"]).median().median()), each


def _closing() -> pd.DataFrame:
    closing = pd.read_csv(DATA / "closing-costs" / "closing.csv")
    return closing[closing["series"] == "now"]


def marked_entry() -> float:
    """Return the price of re-arming a page if page tables are distinguished: a slope."""
    closing = _closing()
    return float(np.polyfit(closing["logged"].astype(float), closing["rearm_tsc"], 1)[0])


def found_table() -> float:
    """Return the price of finding a logged page table: the walk, per found table."""
    closing = _closing()
    return float(closing["walk_tsc"].sum() / closing["snapshots"].sum())


def read_entry() -> float:
    """Return the price of an entry of a page table in a snapshot."""
    closing = _closing()
    return float(closing["tables_tsc"].sum() / closing["snapshots"].sum() / _TABLE_ENTRIES)


def scan() -> tuple[float, float]:
    """Return the prices of a flag in a scan of all flags, and of each set flag in addition.

    Least squares of the relative error.
    """
    rows = steady(pd.read_csv(DATA / "harvests" / "rounds.csv"))
    rows = rows[rows["harvest"] == "scan"]
    scaled = rows[["looked", "found"]].to_numpy() / rows["harvest_insn"].to_numpy()[:, None]
    looked, found = np.linalg.lstsq(scaled, np.ones(len(rows)), rcond=None)[0]
    return float(looked), float(found)


def single_flags() -> tuple[float, float]:
    """Return the prices of a look at a sample of flags, and of each of its flags.

    Least squares of the relative error. The guided harvest takes as much a flag, within a factor of
    two in guests under Linux.
    """
    rows = steady(pd.read_csv(DATA / "harvests" / "rounds.csv"))
    rows = rows[rows["harvest"] == "sampled, fixed"]
    ones = np.ones(len(rows))
    scaled = np.column_stack([ones, rows["looked"]]) / rows["harvest_insn"].to_numpy()[:, None]
    look, each = np.linalg.lstsq(scaled, ones, rcond=None)[0]
    return float(look), float(each)


def pruned_region() -> float:
    """Return the price of a region of 2 MiB whose entry is read: the slope over the memory.

    Of a guest that is the same in 64 MiB to 1 GiB: beyond, the levels above leave regions out.
    """
    rows = steady(pd.read_csv(DATA / "harvests" / "rounds.csv"))
    rows = rows[(rows["harvest"] == "pruned") & rows["guest"].str.startswith("memory-")]
    rows = rows[rows["memory_mib"] <= _AREA_MIB]
    return float(np.polyfit(rows["memory_mib"] / _REGION_MIB, rows["harvest_insn"], 1)[0])


def pruned() -> tuple[float, float, float]:
    """Return the prices of a pruned harvest: per look, per flag, and per set flag in addition.

    Least squares of the relative error, of what is left without the regions.
    """
    rows = steady(pd.read_csv(DATA / "harvests" / "rounds.csv"))
    rows = rows[rows["harvest"] == "pruned"]
    # A guest of several GiB uses one of them, or as many as it touches.
    used = np.maximum(rows["memory_mib"].clip(upper=_AREA_MIB), rows["looked"] / _PAGES_OF_MIB)
    rest = rows["harvest_insn"] - pruned_region() * used / _REGION_MIB
    insn = rows["harvest_insn"].to_numpy()
    parts = np.column_stack([np.ones(len(rows)), rows[["looked", "found"]].to_numpy()])
    look, looked, found = np.linalg.lstsq(parts / insn[:, None], rest / insn, rcond=None)[0]
    return float(look), float(looked), float(found)


def _host(kernel: str = "6.12") -> pd.DataFrame:
    """Return the cheapest rounds, by guest and memory: the others contain a tick of a timer."""
    rounds = pd.read_csv(DATA / "host-costs" / "rounds.csv", dtype={"kernel": str})
    rounds = rounds[rounds["kernel"] == kernel].drop(columns=["kernel", "round"])
    return rounds.groupby(["guest", "memory_mib"]).min().reset_index()


def _page_of_memory(kernel: str, *times: str) -> float:
    """Return the price of an additional page of memory, the mean over the guests."""
    sizes = _host(kernel).set_index(["guest", "memory_mib"])[list(times)].sum(axis=1).unstack()
    small, large = sizes.columns
    return float((sizes[large] - sizes[small]).mean() / ((large - small) * _PAGES_OF_MIB))


def aged_page() -> float:
    """Return the price of an untouched page in an aging that asks KVM."""
    return _page_of_memory("6.12", "idle")


def young_page() -> float:
    """Return the additional price of a touched page in such an aging."""
    host = _host("6.12")
    return float(((host["young"] - host["idle"]) / (host["written"] + host["read"])).mean())


def walked_page() -> float:
    """Return the price of a page in an aging that reads the VMM's own tables."""
    return _page_of_memory("6.1", "idle")


def unmapped_page() -> float:
    """Return the price of changing the protection of a page of memory, including KVM's."""
    return _page_of_memory("6.12", "clear")


def soft_dirty_page() -> float:
    """Return the price of clearing and reading the soft-dirty bit of a page of memory."""
    return _page_of_memory("6.12", "clear", "pagemap")


def soft_dirty_touches() -> tuple[float, float]:
    """Return the prices of a written and of a read page after its soft-dirty bit was cleared."""
    host = _host()
    host = host[host["memory_mib"] == host["memory_mib"].max()]  # `known` needs more than 32 MiB
    more = host["dirty"] - host["plain"]
    pages = host[["written", "read"]].to_numpy(float)
    written, read = np.linalg.lstsq(pages, more, rcond=None)[0]
    return float(written), float(read)


# Event: (price, digits after the point, whether the guest exits, description, source).
_Measured = tuple["Callable[[], float]", int, bool, str, str]
MEASURED: dict[str, _Measured] = {
    "pml_exits": (full_exit, 0, True, "PML's log-full exit: 512 entries drained, one buffer",
                  "exit-costs/exits.csv: one buffer, re-arm per round"),
    "spare_exits": (lambda: full_exit("four buffers, re-arm per round"), 0, True,
                    "the same with a buffer to spare, which another processor drains",
                    "exit-costs/exits.csv: four buffers, re-arm per round"),
    "drained_entries": (drained_entry, 0, False, "draining an entry of such a buffer",
                        "exit-costs/exits.csv: four buffers, re-arm per round"),
    "log_entries": (lambda: plain_round()[1], 1, False,
                    "re-arming a page that was logged, at the end of a round",
                    "plain-rounds/rounds.csv: slope of the pause over the pages"),
    "rounds": (lambda: plain_round()[0], 0, False,
               "pausing the VM to end a round, reading the bitmap, and the INVEPT",
               "plain-rounds/rounds.csv: the pause without its pages, median of the guests"),
    "marked_entries": (marked_entry, 1, False,
                       "re-arming a page that was logged, where page tables are told apart",
                       "closing-costs/closing.csv: slope over the pages logged"),
    "tables_found": (found_table, 0, False, "finding a page table that was logged, by walks",
                     "closing-costs/closing.csv: the walk, by tables"),
    "entries_read": (read_entry, 1, False, "reading an entry of a logged page table of the guest",
                     "closing-costs/closing.csv: snapshots, by 512 entries a table"),
    "pages_scanned": (lambda: scan()[0], 2, False,
                      "looking at an accessed flag of the EPT, in a scan",
                      "harvests/rounds.csv: scan, least squares over flags and set flags"),
    "flags_cleared": (lambda: scan()[1], 1, False, "clearing one that is set, in a scan",
                      "harvests/rounds.csv: scan, least squares over flags and set flags"),
    "flags_read": (lambda: single_flags()[1], 1, False,
                   "reading and clearing the flag of a single page, with finding where it is",
                   "harvests/rounds.csv: a fixed sample, least squares over looks and flags"),
    "flag_looks": (lambda: single_flags()[0], 0, False,
                   "a look at such flags: going through the regions in use",
                   "harvests/rounds.csv: a fixed sample, least squares over looks and flags"),
    "pruned_looks": (lambda: pruned()[0], 0, False,
                     "a look at flags under the upper entries that are set",
                     "harvests/rounds.csv: pruned, least squares over flags and set flags"),
    "regions_read": (pruned_region, 1, False, "reading the upper entry of 2 MiB in such a look",
                     "harvests/rounds.csv: pruned, slope over the memory up to 1 GiB"),
    "pruned_flags": (lambda: pruned()[1], 2, False, "looking at a flag in such a look",
                     "harvests/rounds.csv: pruned, least squares over flags and set flags"),
    "pruned_set": (lambda: pruned()[2], 1, False, "clearing one that is set, in such a look",
                   "harvests/rounds.csv: pruned, least squares over flags and set flags"),
    "write_faults": (stock_entry, 0, False, "a logged page of stock log-dirty, all its work",
                     "exit-costs/stock.csv: 4.17.5, per entry"),
    "pages_aged": (aged_page, 0, False,
                   "asking KVM of a page's accessed flag, in an aging of MGLRU",
                   "host-costs/rounds.csv: Linux 6.12, aging again at once, slope over the memory"),
    "pages_young": (young_page, 0, False, "a page more that was touched, in such an aging",
                    "host-costs/rounds.csv: Linux 6.12, by the pages touched"),
    "pages_walked": (walked_page, 1, False,
                     "a page of the VMM's own tables, in an aging of MGLRU",
                     "host-costs/rounds.csv: Linux 6.1, aging again at once, slope over memory"),
    "pages_unmapped": (unmapped_page, 0, False,
                       "making a page inaccessible, in a scan of the VMM's tables",
                       "host-costs/rounds.csv: Linux 6.12, clear_refs, slope over the memory"),
    "soft_dirty_pages": (soft_dirty_page, 1, False,
                         "a page of memory, to clear its soft-dirty bit and read it",
                         "host-costs/rounds.csv: Linux 6.12, slope over the memory"),
    "soft_dirty_writes": (lambda: soft_dirty_touches()[0], 0, True,
                          "a page written between two looks at soft-dirty bits, all its work",
                          "host-costs/rounds.csv: Linux 6.12, least squares over written and read"),
    "soft_dirty_reads": (lambda: soft_dirty_touches()[1], 0, True,
                         "a page only read between two such looks, all its work",
                         "host-costs/rounds.csv: Linux 6.12, least squares over written and read"),
    "hypercalls": (hypercall, 0, True, "a message between guest and host",
                   "exit-off/exits-off.csv: with the series, no domain logged, a hypercall"),
}  # fmt: skip
_AT_3, _AT_2 = "ns at 3 GHz", "ns at 2 GHz"
_NOBODY = "nobody has published it for this use"
# Event: (price, unit, whether the guest exits, description, kind, source).
STATED: dict[str, tuple[float, str, bool, str, str, str]] = {
    "transition": (1000, _AT_3, False, "a processor's way out of a guest and back in",
                   "assumed", "the emulator's exits take no time beside their instructions"),
    "faults": (940, _AT_3, True, "an EPT violation to see one access: map the page",
               "published", "OoH (SC'22): VMREAD, of their processor, taken for one of 3 GHz"),
    "access_samples": (250, _AT_3, False, "a sampled access: a record of PEBS", "published",
                       "Akiyama and Hirofuchi, ROSS'17: 200 to 300 ns, of their processor, taken "
                       "for one of 3 GHz; without the work of the program that reads it"),
    "stalled_us": (1000, _AT_3, False, "a microsecond that the guest waits for its swap device",
                   "assumed", "the wait counts in full, in the instructions of that time"),
    "pages_hashed": (1000, _AT_3, False, "hashing 4 KiB", "assumed", f"4 GB/s; {_NOBODY}"),
    "disk_requests": (200, _AT_3, False, "looking at a disk request on its way", "assumed",
                      _NOBODY),
    "balloon_pages": (500, _AT_3, False, "a page that the balloon gives or takes", "assumed",
                      _NOBODY),
    "cache_copies": (500, _AT_3, False, "copying a page into or out of the hypervisor's cache",
                     "assumed", _NOBODY),
    "swap_ins": (100_000, _AT_3, False, "a page that has to be read from the disk again",
                 "assumed", "an SSD's read, in the instructions of that time"),
    "swap_outs": (2000, _AT_3, False, "a page written to the disk, beside the guest's own work",
                  "assumed", _NOBODY),
    "bitmap_pages": (0.02, _AT_3, False, "clearing and reading a page's bit of a bitmap",
                     "assumed", "6 GB/s"),
    "copied_entries": (15, _AT_3, False, "taking an entry from the ring to the spool, in dom0",
                       "assumed", "8 bytes checked and written at 0.5 GB/s"),
    "polled_seconds": (13e6, _AT_2, False, "a second of the agent's looking at rings, in dom0",
                       "assumed", "as on a 2 GHz EPYC with the tests' Xen, nearly nothing logged; "
                       "no data of it is kept"),
}  # fmt: skip


def table() -> pd.DataFrame:
    """Return the table of prices; those from ``data/`` are computed again."""
    rows: list[tuple[str, float, str, str, str, str, str]] = []
    for event, (price, digits, leaves, what, source) in MEASURED.items():
        rounded = round(price(), digits)
        left = "yes" if leaves else ""
        rows.append((event, rounded, INSTRUCTIONS, left, what, "measured", f"data/{source}"))
    for event, (amount, unit, leaves, what, kind, source) in STATED.items():
        rows.append((event, amount, unit, "yes" if leaves else "", what, kind, source))
    return pd.DataFrame(rows, columns=COLUMNS)


def text() -> str:
    """Return the content of ``prices.csv``."""
    prices = table()
    prices["price"] = [f"{price:.10g}" for price in prices["price"]]
    return _HEAD + prices.to_csv(index=False)


if __name__ == "__main__":
    TABLE.write_text(text())
