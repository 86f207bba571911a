# SPDX-License-Identifier: Apache-2.0
"""One clock: the prices of events, and the ratio of a cost to a duration.

The emulators of this project execute 100 or 125 million instructions per second of guest time; a
real processor executes some thousands of millions. Nanoseconds of the two are not comparable;
instructions are. An overhead is therefore a share of instructions in instructions, or of time in
time of the same machine. `Clock.share` refuses anything else.

`PRICES` is the only table of prices: ``prices.csv``, written by ``experiments/prices.py`` from the
measurements in ``data/``. A price that was published or is assumed in nanoseconds names its
processor, one of `PROCESSORS`, whose `Clock` converts it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import ClocksDiffer, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["INSTRUCTIONS", "NS_PER_INSN", "PROCESSORS", "Clock", "Cost", "Price",
           "check_ns_per_insn", "prices", "work"]  # fmt: skip

INSTRUCTIONS = "instructions"  # a unit of prices; the names of `PROCESSORS` are the others
NS_PER_INSN = (1e-3, 1e9)  # the least and the most of an instruction that is possible
_TABLE = Path(__file__).with_name("prices.csv")


def check_ns_per_insn(ns_per_insn: object) -> None:
    """Raise a `UsageError` unless a length of an instruction, ns, is None or possible."""
    least, most = NS_PER_INSN
    possible = isinstance(ns_per_insn, Real) and least <= float(ns_per_insn) <= most
    if ns_per_insn is not None and not possible:
        limits = f"give a number above 0: {least:g} to {most:g}"
        raise UsageError(f"an instruction takes {ns_per_insn!r} ns: {limits}")


@dataclass(frozen=True)
class Clock:
    """The clock of a time.

    Attributes
    ----------
    machine : str
        Whose time it is.
    ns_per_insn : float or None
        Length of an instruction on that machine, ns; None if unknown.

    Examples
    --------
    >>> from pmlkit.costs import Clock, Cost
    >>> recorder = Clock("QEMU", 8)  # 125 million instructions a second
    >>> recorder.share(Cost(1_250_000), 1e9)
    0.01
    """

    machine: str
    ns_per_insn: float | None = None

    def given(self, ns_per_insn: float | None) -> Clock:
        """Return the clock with `ns_per_insn`, unless it has one already."""
        check_ns_per_insn(ns_per_insn)
        return replace(self, ns_per_insn=self.ns_per_insn or ns_per_insn)

    @property
    def text(self) -> str:
        """The speed of the machine, as text."""
        if not self.ns_per_insn:
            return f"time of {self.machine}"
        return f"{1e3 / self.ns_per_insn:,.4g} M instructions a second"

    def ns(self, cost: Cost) -> float:
        """Convert a cost to time of this machine, ns.

        Raises
        ------
        ClocksDiffer
            If the length of an instruction is unknown.
        """
        if cost.clock is not None and cost.clock.machine == self.machine:
            return cost.amount
        if not self.ns_per_insn:
            raise ClocksDiffer(cost.unit, f"the time of {self.machine}")
        return cost.insn * self.ns_per_insn

    def share(self, cost: Cost, duration_ns: float) -> float:
        """Return a cost as a share of a duration of this machine's time.

        Raises
        ------
        ClocksDiffer
            If the two have different clocks.
        """
        return self.ns(cost) / max(duration_ns, 1)


@dataclass(frozen=True)
class Cost:
    """Work: a number of instructions, or a time of one machine.

    Attributes
    ----------
    amount : float
        Instructions; with a clock, ns.
    clock : Clock or None
        The clock of the amount; None: the amount is a number of instructions.
    """

    amount: float
    clock: Clock | None = None

    @property
    def insn(self) -> float:
        """The cost in instructions; raises `ClocksDiffer` if it is unknown."""
        if self.clock is None:
            return self.amount
        if not self.clock.ns_per_insn:
            raise ClocksDiffer(self.unit, INSTRUCTIONS)
        return self.amount / self.clock.ns_per_insn

    @property
    def unit(self) -> str:
        """The unit of the amount, as text."""
        return INSTRUCTIONS if self.clock is None else f"the time of {self.clock.machine}"

    @property
    def text(self) -> str:
        """The amount with its unit."""
        unit = "instructions" if self.clock is None else "ns"
        return f"{self.amount:,.0f} {unit}" if self.amount >= 100 else f"{self.amount:.3g} {unit}"


# The processors of prices in ns. One instruction per cycle is an assumption: it is the only
# constant that converts a published time to instructions.
PROCESSORS = {
    "ns at 3 GHz": Clock("a processor of 3 GHz, one instruction per cycle", 1 / 3),
    "ns at 2 GHz": Clock("a processor of 2 GHz, one instruction per cycle", 1 / 2),
}


@dataclass(frozen=True)
class Price:
    """The price of an event, and its source.

    Attributes
    ----------
    price : float
    unit : str
        "instructions", or one of `PROCESSORS`.
    leaves : bool
        Whether the event leaves and re-enters the guest, which costs an additional ``transition``.
    what : str
        A description of the event.
    kind : {"measured", "published", "assumed"}
    source : str
        For a measurement: the file, and the calculation.
    """

    event: str
    price: float
    unit: str
    leaves: bool
    what: str
    kind: str
    source: str

    @property
    def cost(self) -> Cost:
        """The price of the event alone, without a transition."""
        return Cost(self.price, PROCESSORS.get(self.unit))

    @property
    def stated(self) -> str:
        """The source, with the original value of a converted price, and the added transition."""
        original = "" if self.unit == INSTRUCTIONS else f"{self.price:,.10g} {self.unit}; "
        transition = "; and a transition" if self.leaves else ""
        return f"{original}{self.source}{transition}"

    @property
    def insn(self) -> float:
        """The price of one event in instructions, with the transition if it leaves the guest."""
        transition = prices()["transition"].cost.insn if self.leaves else 0.0
        return self.cost.insn + transition


@cache
def prices() -> Mapping[str, Price]:
    """Return the table of prices by event."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        return {
            row["event"]: Price(
                row["event"],
                float(row["price"]),
                row["unit"],
                row["leaves"] == "yes",
                row["what"],
                row["kind"],
                row["source"],
            )
            for row in csv.DictReader(lines)
        }


def work(events: Mapping[str, float], table: Mapping[str, Price] | None = None) -> Cost:
    """Return the cost of events.

    Parameters
    ----------
    events : mapping of str to number
        Count of each event; all must be in the table.
    table : mapping of str to Price, optional
        By default `prices`.
    """
    table = prices() if table is None else table
    return Cost(float(sum(table[name].insn * count for name, count in events.items())))
