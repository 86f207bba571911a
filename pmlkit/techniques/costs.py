# SPDX-License-Identifier: Apache-2.0
"""The costs of the events that a technique causes, and the source of each.

They are measured in this project's lab where possible, otherwise published elsewhere, otherwise
assumptions, marked as such. The lab's TSC counts instructions; `NS_PER_INSN` converts them to
time. `overhead_ns` takes another table for other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["COSTS", "NS_PER_INSN", "Cost", "overhead_ns"]

NS_PER_INSN = 1 / 3  # an assumption: 3 GHz, an instruction per cycle
_LAB = "measured in the lab, in instructions (hypervisor-patches/README.md)"
_OOH = "published: OoH (SC'22)"
_GUESS = "an assumption: nobody has published it for this use"


@dataclass(frozen=True)
class Cost:
    """The cost of one event (`ns`), what the event is, and where the number comes from."""

    ns: float
    what: str
    source: str


def _insn(count: float, what: str) -> Cost:
    return Cost(count * NS_PER_INSN, what, f"{_LAB}: {count:g}")


COSTS = {
    # The exit includes its drain, by the exit's 512 entries.
    "pml_exits": _insn(14_480, "PML's log-full exit: 512 entries drained, one buffer"),
    "log_entries": _insn(60, "re-arming a page that was logged, at the end of a round"),
    "rounds": _insn(12_000, "pausing the VM to end a round, and the INVEPT"),
    "pages_scanned": _insn(7.5, "reading and clearing an accessed flag of the EPT, in a scan"),
    "flags_read": _insn(50, "the same of single pages, with finding where it is"),
    "entries_read": Cost(2, "reading an entry of a logged page table of the guest",
                         f"{_GUESS}: 4 KiB out of memory per 1 us"),
    "faults": Cost(2_140, "an EPT violation to see one access: exit, map, resume",
                   f"{_OOH}: VMREAD 940 ns; and {_GUESS}: 1,200 ns to leave and enter the guest"),
    "write_faults": _insn(2_736, "a logged page of stock log-dirty, all its work"),
    "pages_hashed": Cost(1_000, "hashing 4 KiB", f"{_GUESS}: 4 GB/s"),
    "hypercalls": Cost(1_200, "a message between guest and host", f"{_GUESS}: a VM exit"),
    "disk_requests": Cost(200, "looking at a disk request on its way", _GUESS),
    "balloon_pages": Cost(500, "a page that the balloon gives or takes", _GUESS),
    "cache_copies": Cost(500, "copying a page into or out of the hypervisor's cache", _GUESS),
    "swap_ins": Cost(100_000, "a page that has to be read from the disk again",
                     f"{_GUESS}: an SSD's read"),
    "swap_outs": Cost(2_000, "a page written to the disk, beside the guest's own work", _GUESS),
}  # fmt: skip


def overhead_ns(events: Mapping[str, int], costs: Mapping[str, Cost] | None = None) -> float:
    """Return the cost of events, ns.

    Parameters
    ----------
    events : mapping of str to int
        How often each event happened; all named in `costs`.
    costs : mapping of str to Cost, optional
        By default `COSTS`.
    """
    costs = COSTS if costs is None else costs
    return float(sum(costs[name].ns * count for name, count in events.items()))
