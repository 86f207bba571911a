# SPDX-License-Identifier: Apache-2.0
"""The costs of collection: constants with their sources, from a trace or measured here.

Constants of an emulated processor (the lab counts instructions), of this machine and of a real Xen
host are not comparable: each `Constant` has its kind, and `Constants.kinds` lists them all.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import FileRefused, NeedsError, PmlkitError, UsageError
from pmlkit.files import read_regular, whole
from pmlkit.period.kvm import costs_for, is_emulated, is_kvms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pmlkit.sources.host.collection import CollectOptions
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


__all__ = [
    "Constant", "Constants", "assumed", "base_of", "from_trace", "load", "measure", "rounds",
    "save",
]  # fmt: skip

BUFFER_ENTRIES = 512
ENTRY_BYTES = 8
_LIMIT_BYTES = 1 << 20
# Instructions, which the lab counts. A log-full exit whose buffer waits for another processor to
# drain it, and a drained entry: hypervisor-patches/README.md. A round closed and a page re-armed:
# the walk of the guest's page tables (median), and re-arming with the bitmap (rounds that re-arm
# 1,000 pages or more), of data/rrww-lab.trace; a test holds these two to it.
LAB_INSN = {"exit": 782, "entry": 52, "round": 210_000, "rearm": 137}
# What no emulator can measure: options of `pmlkit period`, stated in its explanation.
NS_PER_INSN = 0.5
TRANSITION_NS = 1000.0
_POLL_NS = 13e6  # the agent on a 2 GHz EPYC with the tests' Xen, nearly nothing logged
_HARVEST_TICKS = ("guided_tsc", "scan_tsc", "tables_tsc")  # options, each with a cost of its own
_MEANINGS = {
    "exit": "a VM exit because a buffer is full, with the way out and in",
    "entry": "draining one logged entry in the hypervisor",
    "round": "the pause at the end of a round, whatever was logged",
    "rearm": "the same, for each page that is re-armed",
    "scan": "clearing and reading one page's bit of the log-dirty bitmap",
    "copy": "taking one entry from its buffer to the spool, on the host",
    "poll": "a second of the agent's looking at buffers, whatever is in them, on the host",
}


@dataclass(frozen=True)
class Constant:
    """The cost of one event.

    Attributes
    ----------
    ns : float
    kind : {"host", "emulated", "measured here", "assumed"}
        Of a real Xen host; of the lab's emulated processor; of this machine, without Xen; a
        number of instructions of an assumed length.
    """

    ns: float
    kind: str
    source: str


@dataclass(frozen=True)
class Constants:
    """The constants of `pmlkit.period`, ns; `lines` explains each."""

    exit: Constant
    entry: Constant
    round: Constant
    rearm: Constant
    scan: Constant
    copy: Constant
    poll: Constant

    @property
    def kinds(self) -> list[str]:
        """The kinds that occur, in order."""
        return sorted({constant.kind for constant in self.by_name().values()})

    def by_name(self) -> dict[str, Constant]:
        return {name: getattr(self, name) for name in _MEANINGS}

    def as_dict(self) -> dict[str, dict[str, float | str]]:
        """Return the constants for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield a line for each constant: its meaning, value and source."""
        for name, constant in self.by_name().items():
            yield f"{_MEANINGS[name]}: {_ns(constant.ns)} ({constant.kind}: {constant.source})"


def _ns(value: float) -> str:
    return f"{value:,.0f} ns" if value >= 100 else f"{value:.3g} ns"


def assumed(ns_per_insn: float = NS_PER_INSN, transition_ns: float = TRANSITION_NS) -> Constants:
    """Return constants without a measurement: the lab's instructions at an assumed speed.

    Parameters
    ----------
    ns_per_insn : float
        Time of an instruction of Xen.
    transition_ns : float
        Time of an exit and entry of the guest, without any instruction.
    """

    def of(name: str, more: float = 0.0, text: str = "") -> Constant:
        why = f"{LAB_INSN[name]:,} instructions in the lab, {ns_per_insn:g} ns each{text}"
        return Constant(LAB_INSN[name] * ns_per_insn + more, "assumed", why)

    far = f", and {transition_ns / 1000:g} us for the processor"
    per_page = Constant(0.02, "assumed", "1 bit of a bitmap read at 6 GB/s")
    copy = Constant(15.0, "assumed", "8 bytes checked and written at 0.5 GB/s")
    poll = Constant(_POLL_NS, "assumed", "as on a 2 GHz EPYC")
    return Constants(of("exit", transition_ns, far), of("entry"), of("round"), of("rearm"),
                     per_page, copy, poll)  # fmt: skip


def base_of(
    trace: Trace, ns_per_insn: float = NS_PER_INSN, transition_ns: float = TRANSITION_NS
) -> Constants:
    """Return constants without a measurement, for the hypervisor of a trace: Xen's, or KVM's."""
    if not is_kvms(trace):
        return assumed(ns_per_insn, transition_ns)
    costs, which = costs_for(trace)
    each = costs.log + costs.capture
    exit_ns = BUFFER_ENTRIES * each * ns_per_insn + transition_ns
    full = (
        f"{BUFFER_ENTRIES} pages of {each:,} instructions in the lab ({which}), {ns_per_insn:g} ns "
        f"each, and {transition_ns / 1000:g} us for the processor"
    )
    armed = f"{costs.rearm:,} instructions in the lab ({which}), {ns_per_insn:g} ns each"
    return Constants(
        exit=Constant(exit_ns, "assumed", full),
        entry=Constant(0.0, "assumed", "KVM drains in the exit, which has it"),
        round=Constant(0.0, "assumed", "KVM pauses no guest for a round"),
        rearm=Constant(costs.rearm * ns_per_insn, "assumed", armed),
        scan=Constant(0.0, "assumed", "the collector reads no bitmap"),
        copy=Constant(15.0, "assumed", "16 bytes copied to the spool at 1 GB/s"),
        poll=Constant(_POLL_NS, "assumed", "as the collector of Xen on a 2 GHz EPYC"),
    )


def from_trace(trace: Trace, base: Constants | None = None) -> Constants:
    """Return the constants that a trace has of its own cost, and the rest of `base`.

    Parameters
    ----------
    trace : Trace
        Of a Xen host or of the lab.
    base : Constants, optional
        Default: `base_of` the trace.

    Returns
    -------
    Constants
        An exit is ``exit_tsc / exits``, an entry ``drain_tsc / entries``, re-arming a page
        ``rearm_tsc / pages re-armed``, and a round what is left of its pause (and of harvests).
        An exit that finds all buffers full waits until one is drained: that is in its mean.

    Raises
    ------
    NeedsError
        If the trace counts exits or entries, but lacks their cost.
    """
    base = base or base_of(trace)
    log = trace.pml if trace.meta.kind == "pml" or trace.pml_is_nested else trace
    # What a collector spends on an emulated processor is not to be compared with 0.5 ns.
    if not log.meta.overheads.get("tsc_khz") and not (is_kvms(log) and not is_emulated(log)):
        return base
    kind, name = ("emulated" if log.meta.source == "lab" else "host"), Path(trace.path).name
    return replace(
        base,
        **{
            constant: Constant(float(ns), kind, f"{name}: {how}")
            for constant, ns, how in (
                *_of_exits(log),
                *_of_entries(log),
                *_of_polling(log, base.copy.ns),
                *_of_pauses(log),
            )
        },
    )


# A constant's name, its ns, and how they were measured.
Measured = tuple[str, float, str]


def _tick_ns(log: Trace) -> float:
    return 1e6 / log.meta.overheads["tsc_khz"]


def _mean_ns(log: Trace, cost: str, events: str) -> float:
    costs = log.meta.overheads
    if costs.get(cost) is None:
        what = f"{cost} beside its {costs[events]:,} {events}"
        raise NeedsError(log, what, "use one that says what they cost")
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


def _of_polling(log: Trace, copy_ns: float) -> Iterator[Measured]:
    costs = log.meta.overheads
    if costs.get("agent_cpu_ns") and log.duration_ns:
        # Only the sum is known: the time beyond that of the entries is polling.
        entries = costs.get("entries", log.meta.entries if is_kvms(log) else 0)
        rest = max(costs["agent_cpu_ns"] - entries * copy_ns, 0)
        yield "poll", rest * 1e9 / log.duration_ns, "the agent's CPU time, but for the entries'"


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
    """Measure what needs no Xen in about `seconds`: reading bitmaps, checking and writing a spool.

    Returns
    -------
    Constants
        `scan` and `copy` are measured, the others as in `assumed`.
    """
    share = seconds / 2
    scan, copy = _scan_ns(share), _copy_ns(share)
    here = "measured here"
    return replace(
        assumed(),
        scan=Constant(scan, here, "a bitmap of 2 GiB of memory, cleared and read"),
        copy=Constant(copy, here, "buffers of 512 entries, checked and written to a file"),
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
            file.seek(0)  # a disk is not what is measured

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
        If the file is something else.
    PmlkitError
        If it cannot be read.
    """
    try:
        values = json.loads(read_regular(path, _LIMIT_BYTES))
        return Constants(**{name: Constant(**values[name]) for name in _MEANINGS})
    except OSError as error:
        raise PmlkitError(f"cannot read {path} ({error.strerror})", "give another file") from error
    except (FileRefused, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no calibration: make one with `pmlkit calibrate`") from error
