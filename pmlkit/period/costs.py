# SPDX-License-Identifier: Apache-2.0
"""The costs of collection: constants with their sources, from a trace or measured on this machine.

A constant is a number of instructions, as in the table of prices and in an emulator's measurements,
or a time of one machine. Only `pmlkit.costs.Clock` converts between the two.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.costs import Clock, Cost, prices
from pmlkit.errors import ClocksDiffer, FileRefused, NeedsError, PmlkitError, UsageError
from pmlkit.files import read_regular, whole
from pmlkit.period.kvm import costs_for, is_kvms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pmlkit.sources.host.collection import CollectOptions
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike


__all__ = [
    "Constant", "Constants", "assumed", "base_of", "from_trace", "load", "measure", "rounds",
    "save",
]  # fmt: skip

BUFFER_ENTRIES = 512
ENTRY_BYTES = 8
_LIMIT_BYTES = 1 << 20
_HARVEST_TICKS = ("guided_tsc", "scan_tsc", "tables_tsc")  # options, each with a separate cost
# A constant's meaning, and its event in the table of prices.
_MEANINGS = {
    "exit": ("a VM exit because a buffer is full, with the way out and in", "spare_exits"),
    "entry": ("draining one logged entry in Xen", "drained_entries"),
    "round": ("the pause at the end of a round, independent of the log", "rounds"),
    "rearm": ("the same, for each page that is re-armed", "log_entries"),
    "scan": ("clearing and reading one page's bit of the log-dirty bitmap", "bitmap_pages"),
    "copy": ("moving one entry from the ring to the spool, in dom0", "copied_entries"),
    "poll": (
        "polling rings by the agent in dom0 for one second, independent of their contents",
        "polled_seconds",
    ),
}


@dataclass(frozen=True)
class Constant:
    """The cost of one event.

    Attributes
    ----------
    cost : pmlkit.costs.Cost
    kind : {"host", "emulated", "lab", "measured here", "published", "assumed"}
        Its source: a real host; the emulator that made the trace; the table of prices, measured in
        the lab, published or assumed; or this machine, without Xen.
    source : str
    """

    cost: Cost
    kind: str
    source: str

    def as_dict(self) -> Json:
        """Return the constant for JSON: ``amount``, and its machine, or None for instructions."""
        clock = self.cost.clock
        return {
            "amount": self.cost.amount,
            "machine": clock and clock.machine,
            "ns_per_insn": clock and clock.ns_per_insn,
            "kind": self.kind,
            "source": self.source,
        }

    @classmethod
    def from_dict(
        cls,
        amount: float,
        machine: str | None,
        ns_per_insn: float | None,
        kind: str,
        source: str,
    ) -> Constant:
        """Create a constant from the result of `as_dict`; ValueError for anything else."""
        if not 0 <= float(amount) < float("inf"):
            raise ValueError(f"the amount {amount}")
        if ns_per_insn is not None and not 0 < float(ns_per_insn) < float("inf"):
            raise ValueError(f"the length {ns_per_insn}")
        clock = None if machine is None else Clock(str(machine), ns_per_insn)
        return cls(Cost(float(amount), clock), str(kind), str(source))


@dataclass(frozen=True)
class Constants:
    """The constants of `pmlkit.period`; `lines` explains each."""

    exit: Constant
    entry: Constant
    round: Constant
    rearm: Constant
    scan: Constant
    copy: Constant
    poll: Constant

    @property
    def kinds(self) -> list[str]:
        """The kinds of constants that occur, in order."""
        return sorted({constant.kind for constant in self.by_name().values()})

    def by_name(self) -> dict[str, Constant]:
        return {name: getattr(self, name) for name in _MEANINGS}

    def given(self, ns_per_insn: float | None) -> Constants:
        """Return the constants with `ns_per_insn` where times lack it.

        If these are times of several machines, it applies to the host's.
        """
        named = self.by_name()
        clocks = {each.cost.clock for each in named.values() if each.cost.clock}
        several = len({clock.machine for clock in clocks if not clock.ns_per_insn}) > 1
        return Constants(
            **{
                name: each if several and each.kind != "host" else _given(each, ns_per_insn)
                for name, each in named.items()
            }
        )

    def as_dict(self) -> dict[str, Json]:
        """Return the constants for JSON."""
        return {name: constant.as_dict() for name, constant in self.by_name().items()}

    def lines(self) -> Iterator[str]:
        """Yield a line for each constant: its meaning, value and source."""
        for name, constant in self.by_name().items():
            what, _ = _MEANINGS[name]
            yield f"{what}: {constant.cost.text} ({constant.kind}: {constant.source})"


def _given(constant: Constant, ns_per_insn: float | None) -> Constant:
    cost = constant.cost
    clock = cost.clock and cost.clock.given(ns_per_insn)
    return replace(constant, cost=replace(cost, clock=clock))


def assumed(transition_insn: float | None = None) -> Constants:
    """Return constants without a local measurement: those of the table of prices.

    Parameters
    ----------
    transition_insn : float, optional
        The instructions that a processor could execute while it leaves and re-enters a guest;
        default: the table's.
    """
    transition = prices()["transition"].insn if transition_insn is None else transition_insn
    constants = {}
    for name, (_, event) in _MEANINGS.items():
        price = prices()[event]
        insn = price.cost.insn + (transition if price.leaves else 0)
        source = price.stated
        if price.leaves:
            source = f"{price.source}; and {transition:,.0f} for the processor (assumed)"
        kind = "lab" if price.kind == "measured" else price.kind
        constants[name] = Constant(Cost(insn), kind, source)
    return Constants(**constants)


def base_of(trace: Trace, transition_insn: float | None = None) -> Constants:
    """Return the default constants for the hypervisor of a trace: Xen's, or KVM's.

    Parameters
    ----------
    transition_insn : float, optional
        As in `assumed`.
    """
    base = assumed(transition_insn)
    if not is_kvms(trace):
        return base
    costs, which = costs_for(trace)
    transition = prices()["transition"].insn if transition_insn is None else transition_insn
    each = costs.log + costs.capture
    full = f"{BUFFER_ENTRIES} pages of {each:,} ({which}); and {transition:,.0f} for the processor"
    return replace(
        base,
        exit=Constant(Cost(BUFFER_ENTRIES * each + transition), "lab", f"{full} (assumed)"),
        entry=Constant(Cost(0), "lab", "KVM drains in the exit, which includes it"),
        round=Constant(Cost(0), "lab", "KVM pauses no guest for a round"),
        rearm=Constant(Cost(costs.rearm), "lab", which),
        scan=Constant(Cost(0), "lab", "the collector reads no bitmap"),
    )


def from_trace(trace: Trace, base: Constants | None = None) -> Constants:
    """Return the constants that a trace contains about its own cost, and the rest from `base`.

    Parameters
    ----------
    trace : Trace
        Trace of a Xen host or of the lab.
    base : Constants, optional
        Default: `base_of` the trace.

    Returns
    -------
    Constants
        An exit costs ``exit_tsc / exits``, an entry ``drain_tsc / entries``, and re-arming a page
        ``rearm_tsc / pages re-armed``. A round costs the remainder of its pause (and of harvests).
        An exit that finds all buffers full waits until one is drained; the mean includes this wait.
        The unit is instructions if the trace's clock counts them, otherwise its machine's time.

    Raises
    ------
    NeedsError
        If the trace counts exits or entries, but lacks their cost.
    """
    base = base or base_of(trace)
    log = trace.pml if trace.meta.kind == "pml" or trace.pml_is_nested else trace
    if not log.meta.overheads.get("tsc_khz") and not is_kvms(log):
        return base
    clock, name = log.meta.time, Path(trace.path).name
    kind = "host" if clock.ns_per_insn is None else "emulated"
    return replace(
        base,
        **{
            constant: Constant(_cost(ns, clock), kind, f"{name}: {how}")
            for constant, ns, how in (
                *_of_exits(log),
                *_of_entries(log),
                *_of_polling(log, base.copy.cost),
                *_of_pauses(log),
            )
        },
    )


def _cost(ns: float, clock: Clock) -> Cost:
    """Return a time as a cost: in instructions where the clock counts them."""
    cost = Cost(float(ns), clock)
    return Cost(cost.insn) if clock.ns_per_insn else cost


# A constant's name, its ns, and the method of its measurement.
Measured = tuple[str, float, str]


def _tick_ns(log: Trace) -> float:
    return 1e6 / log.meta.overheads["tsc_khz"]


def _mean_ns(log: Trace, cost: str, events: str) -> float:
    costs = log.meta.overheads
    if costs.get(cost) is None:
        what = f"{cost} beside its {costs[events]:,} {events}"
        raise NeedsError(log, what, "use one that states its costs")
    return costs[cost] * _tick_ns(log) / costs[events]


def _of_exits(log: Trace) -> Iterator[Measured]:
    costs = log.meta.overheads
    if costs.get("exits"):
        how = f"mean of {costs['exits']:,} exits"
        if costs.get("waited"):
            how += f", {costs['waited']:,} of which waited until a buffer was drained"
        yield "exit", _mean_ns(log, "exit_tsc", "exits"), how


def _of_entries(log: Trace) -> Iterator[Measured]:
    entries = log.meta.overheads.get("entries")
    if entries:
        yield "entry", _mean_ns(log, "drain_tsc", "entries"), f"mean of {entries:,} entries"


def _of_polling(log: Trace, copy: Cost) -> Iterator[Measured]:
    costs = log.meta.overheads
    if costs.get("agent_cpu_ns") and log.duration_ns:
        # Only the sum is known: the time that entries do not take is polling.
        how = "the agent's CPU time"
        try:
            entries_ns, how = costs.get("entries", 0) * log.meta.time.ns(copy), f"{how}, except for"
        except ClocksDiffer:
            entries_ns, how = 0.0, f"{how}, with"
        rest = max(costs["agent_cpu_ns"] - entries_ns, 0)
        yield "poll", rest * 1e9 / log.duration_ns, f"{how} the entries'"


def _of_pauses(log: Trace) -> Iterator[Measured]:
    paused = log.rounds[log.rounds["pause_ns"] > 0]
    if not len(paused):
        return
    # A trace with harvests has their cost and that of re-arming by round.
    costs, pages = log.meta.overheads, int(paused["rearmed"].sum())
    by_round = costs.get("rounds", [])
    harvests = sum(ticks.get(name, 0) for ticks in by_round for name in _HARVEST_TICKS)
    rearming = costs.get("rearm_tsc", sum(ticks.get("rearm_tsc", 0) for ticks in by_round))
    left = max(paused["pause_ns"].sum() - (rearming + harvests) * _tick_ns(log), 0)
    yield "round", left / len(paused), f"mean of {len(paused)} pauses, without harvests"
    if rearming and pages:
        yield "rearm", rearming * _tick_ns(log) / pages, f"mean of {pages:,} pages"


def measure(seconds: float = 5.0) -> Constants:
    """Measure costs without Xen, in about `seconds`: reading bitmaps, writing a spool.

    Returns
    -------
    Constants
        `scan` and `copy` are measured; the others are as in `assumed`.
    """
    share, here = seconds / 2, Clock(f"the host {platform.node()}")
    scan, copy = Cost(_scan_ns(share), here), Cost(_copy_ns(share), here)
    kind = "measured here"
    return replace(
        assumed(),
        scan=Constant(scan, kind, "a bitmap of 2 GiB of memory, cleared and read"),
        copy=Constant(copy, kind, "buffers of 512 entries, checked and written to a file"),
    )


def _repeat(work: Callable[[], object], seconds: float) -> float:
    """Run `work` for about `seconds`; return its shortest time, ns."""
    end, best = time.monotonic() + seconds, float("inf")
    while True:
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
        if time.monotonic() > end:
            return best


def _scan_ns(seconds: float) -> float:
    pages = 1 << 19
    bits, rng = np.zeros(pages // 8, np.uint8), np.random.default_rng(1)
    dirty = rng.integers(0, len(bits), len(bits) // 64)

    def work() -> None:
        bits[:] = 0
        bits[dirty] = 1
        np.flatnonzero(bits)

    return _repeat(work, seconds) / pages


def _copy_ns(seconds: float) -> float:
    from pmlkit.spool import SpoolWriter

    payload = np.random.default_rng(1).bytes(128 * BUFFER_ENTRIES * ENTRY_BYTES)
    with tempfile.TemporaryFile(buffering=0) as file, SpoolWriter("spool", {}, file) as writer:

        def work() -> None:
            writer.append(2, payload)
            file.seek(0)  # so that the disk is not measured

        return _repeat(work, seconds) / (128 * BUFFER_ENTRIES)


def rounds(seconds: float, state: str = "/run/pmlkit") -> CollectOptions:
    """Return options for logging a domain in short rounds, for half of `seconds`."""
    from pmlkit.sources.host.collection import CollectOptions

    return CollectOptions(rounds=20, period_s=max(seconds / 40, 0.01), mode="pml", state=state)


def save(constants: Constants, path: PathLike) -> None:
    """Write constants as JSON, for `pmlkit period --calibration`.

    Raises
    ------
    OutputError
    """
    with whole(path, overwrite=True) as partial:
        partial.write_text(json.dumps(constants.as_dict(), indent=2) + "\n")


def load(path: PathLike) -> Constants:
    """Read constants that `save` wrote.

    Raises
    ------
    UsageError
        If the file has other content.
    PmlkitError
        If it cannot be read.
    """
    try:
        values = json.loads(read_regular(path, _LIMIT_BYTES))
        return Constants(**{name: Constant.from_dict(**values[name]) for name in _MEANINGS})
    except OSError as error:
        raise PmlkitError(f"cannot read {path} ({error.strerror})", "give another file") from error
    except (FileRefused, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a calibration: make one with `pmlkit calibrate`"
        ) from error
