# SPDX-License-Identifier: Apache-2.0
"""What a size costs: the pages that would return from a swap disk, by the memory model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.costs import PROCESSORS, Cost
from pmlkit.techniques.memory import peak_pages, returned_pages
from pmlkit.trace.schema import MIB_PAGES, PAGE_SIZE
from pmlkit.units import format_bytes, format_share

if TYPE_CHECKING:
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Json

__all__ = ["DISK", "HURT", "Swapping", "swapping_at"]

# Assumed: the time in which a solid-state disk reads a page.
DISK = Cost(100_000, PROCESSORS["ns at 3 GHz"])
HURT = 1.05  # a longer duration, relative to that with enough memory, is too slow


@dataclass(frozen=True)
class Swapping:
    """A replay of the recording in a VM with less memory (`pmlkit.techniques.memory`).

    Attributes
    ----------
    vm_bytes : int
        The size of the VM.
    returns_per_s : float
        Pages that return from the swap disk, for each second of the recording.
    slowdown : float
        The duration, relative to that with enough memory. The VM waits `DISK` for each page. It
        may lose less if it idles at times, and more by the kernel's work for these pages.
    enough_bytes : int or None
        The least size with which `slowdown` is at most `HURT`, in whole MiB, and at least
        `vm_bytes`. None if it is more than the recorded VM has.
    """

    vm_bytes: int
    returns_per_s: float
    slowdown: float
    enough_bytes: int | None

    @property
    def text(self) -> str:
        """The result in one or two sentences."""
        answer = (
            f"By the memory model (simulated), {self._returns} from a swap disk with "
            f"{format_bytes(self.vm_bytes)}"
        )
        waiting = f"waiting for them makes the work take about {self.slowdown:.3g} times as long"
        if self.slowdown <= HURT:
            return f"{answer}, and {waiting}." if self.returns_per_s else f"{answer}."
        limit = format_share(HURT - 1)
        if self.enough_bytes is None:
            most = f"No size up to that of the recorded VM keeps the waiting within {limit}."
        else:
            most = f"With {format_bytes(self.enough_bytes)}, waiting adds {limit} at most."
        return f"{answer}: {waiting}. {most}"

    @property
    def _returns(self) -> str:
        if not self.returns_per_s:
            return "no page returns"
        digits = ",.0f" if self.returns_per_s >= 10 else ".2g"
        return f"{self.returns_per_s:{digits}} pages a second return"

    def as_dict(self) -> Json:
        """Return the numbers for JSON."""
        return {
            "returns_per_s": self.returns_per_s,
            "slowdown": self.slowdown,
            "enough_bytes": self.enough_bytes,
        }


def swapping_at(recorded: Recorded, vm_bytes: int) -> Swapping | None:
    """Replay a recording in a VM of a size, and find the size that is enough.

    Parameters
    ----------
    recorded : Recorded
        With the samples of the guest's kernel.
    vm_bytes : int

    Returns
    -------
    Swapping or None
        None if the recording does not state how long an instruction takes, or if the recorded VM
        is smaller: it cannot be replayed in a larger one.
    """
    if not recorded.time.ns_per_insn or vm_bytes > recorded.known_memory_pages * PAGE_SIZE:
        return None
    returned = returned_pages(recorded, vm_bytes // PAGE_SIZE)
    slowdown = _slowdown(recorded, returned)
    enough = vm_bytes if slowdown <= HURT else _enough(recorded, vm_bytes // PAGE_SIZE)
    return Swapping(vm_bytes, returned / (recorded.duration_ns / 1e9), slowdown, enough)


def _slowdown(recorded: Recorded, returned: int) -> float:
    return 1 + recorded.time.share(DISK, recorded.duration_ns) * returned


def _enough(recorded: Recorded, too_few: int) -> int | None:
    """Return the least whole MiB, in bytes, of at most `HURT`, by bisection."""

    def is_enough(mib: int) -> bool:
        return _slowdown(recorded, returned_pages(recorded, mib * MIB_PAGES)) <= HURT

    low = too_few // MIB_PAGES
    high = -(-min(peak_pages(recorded), recorded.known_memory_pages) // MIB_PAGES)
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high << 20
