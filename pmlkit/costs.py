# SPDX-License-Identifier: Apache-2.0
"""One clock: the prices of events, and how a cost is held against a duration.

The emulators that this project measures with execute 100 or 125 million instructions in a second of
their guests' time, a real processor some thousands of millions. Nanoseconds of the one say nothing
of nanoseconds of the other; instructions are what both have. So an overhead is a share of
instructions in instructions, or of time in time of one machine, and `Clock.share` refuses the rest.

`PRICES` is the only table of prices: ``prices.csv``, written by ``experiments/prices.py`` from the
measurements in ``data/``. A price that was published or is assumed in nanoseconds names the
processor that it is of, one of `PROCESSORS`, whose `Clock` converts it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import ClocksDiffer

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["INSTRUCTIONS", "PROCESSORS", "Clock", "Cost", "Price", "prices", "work"]

INSTRUCTIONS = "instructions"  # the unit of a price, beside the names of `PROCESSORS`
_TABLE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True)
class Clock:
    """The clock that times are of.

    Attributes
    ----------
    machine : str
        Whose time it is.
    ns_per_insn : float or None
        How long that machine takes for an instruction; None if it is not known.

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
        """Return the clock with the length of an instruction, ns, unless it is known."""
        return replace(self, ns_per_insn=self.ns_per_insn or ns_per_insn)

    @property
    def text(self) -> str:
        """How fast the machine is, in words."""
        if not self.ns_per_insn:
            return f"time of {self.machine}"
        return f"{1e3 / self.ns_per_insn:,.4g} M instructions a second"

    def ns(self, cost: Cost) -> float:
        """Convert a cost to time of this machine, ns.

        Raises
        ------
        ClocksDiffer
            If it is not known how long an instruction takes.
        """
        if cost.clock is not None and cost.clock.machine == self.machine:
            return cost.amount
        if not self.ns_per_insn:
            raise ClocksDiffer(cost.unit, f"the time of {self.machine}")
        return cost.insn * self.ns_per_insn

    def share(self, cost: Cost, duration_ns: float) -> float:
        """Return the share that a cost is of a duration of this machine's time.

        Raises
        ------
        ClocksDiffer
            If the two are of unlike clocks.
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
        Whose time the amount is; None: it is a number of instructions.
    """

    amount: float
    clock: Clock | None = None

    @property
    def insn(self) -> float:
        """The cost in instructions; raises `ClocksDiffer` if that is not known."""
        if self.clock is None:
            return self.amount
        if not self.clock.ns_per_insn:
            raise ClocksDiffer(self.unit, INSTRUCTIONS)
        return self.amount / self.clock.ns_per_insn

    @property
    def unit(self) -> str:
        """What the amount counts, in words."""
        return INSTRUCTIONS if self.clock is None else f"the time of {self.clock.machine}"

    @property
    def text(self) -> str:
        """The amount with its unit."""
        unit = "instructions" if self.clock is None else "ns"
        return f"{self.amount:,.0f} {unit}" if self.amount >= 100 else f"{self.amount:.3g} {unit}"


# What prices in ns are of. An instruction per cycle is an assumption: the one constant that
# converts a published time to instructions.
PROCESSORS = {
    "ns at 3 GHz": Clock("a processor of 3 GHz, an instruction a cycle", 1 / 3),
    "ns at 2 GHz": Clock("a processor of 2 GHz, an instruction a cycle", 1 / 2),
}


@dataclass(frozen=True)
class Price:
    """The price of an event, and where it is from.

    Attributes
    ----------
    price : float
    unit : str
        "instructions", or one of `PROCESSORS`.
    leaves : bool
        Whether the guest is left and entered again, which costs a ``transition`` more.
    what : str
        What the event is.
    kind : {"measured", "published", "assumed"}
    source : str
        For a measurement: of which file, and how it was computed.
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
        """The source, with what a converted price was, and the transition that is added."""
        was = "" if self.unit == INSTRUCTIONS else f"{self.price:,.10g} {self.unit}; "
        more = "; and a transition" if self.leaves else ""
        return f"{was}{self.source}{more}"

    @property
    def insn(self) -> float:
        """The price of one event in instructions, with the transition if the guest is left."""
        more = prices()["transition"].cost.insn if self.leaves else 0.0
        return self.cost.insn + more


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
        How often each event happened; all named in the table.
    table : mapping of str to Price, optional
        By default `prices`.
    """
    table = prices() if table is None else table
    return Cost(float(sum(table[name].insn * count for name, count in events.items())))
