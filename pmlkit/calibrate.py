# SPDX-License-Identifier: Apache-2.0
"""What collecting costs: constants, each with its source, out of a trace or measured here.

Constants of an emulated processor (the lab counts instructions), of this machine and of a real Xen
host are different things: each `Constant` says which it is, and `Constants.kinds` names them all.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pmlkit.errors import PmlkitError, UsageError, output_error

__all__ = ["Constant", "Constants", "assumed", "from_trace", "load", "measure", "save"]

BUFFER = 512
# Of the lab (Bochs counts instructions): a log-full exit whose buffer is drained later, a drained
# entry, and a round closed, without and per re-armed page: hypervisor-patches/README.md and the
# lab's traces. At one instruction per 0.5 ns, and 1 us for the processor's own way out of the guest
# and back in (not counted by an emulator; an assumption).
_LAB_INSN = {"exit": 900, "entry": 75, "round": 100_000, "rearm": 20}
_NS_PER_INSN = 0.5
_TRANSITION_NS = 1000.0
_MEANINGS = {
    "exit": "a VM exit because a buffer is full, with the way out and in",
    "entry": "draining one logged entry in Xen",
    "round": "the pause at the end of a round, whatever was logged",
    "rearm": "the same, for each page that is re-armed",
    "scan": "clearing and reading one page's bit of the log-dirty bitmap",
    "copy": "taking one entry from the ring to the spool, in dom0",
}


@dataclass(frozen=True)
class Constant:
    """The cost of one thing.

    Attributes
    ----------
    ns : float
    kind : {"host", "emulated", "measured here", "assumed"}
        Of a real Xen host; of the lab's emulated processor; of this machine, without Xen; a
        number of instructions taken to be of a certain length.
    source : str
    """

    ns: float
    kind: str
    source: str


@dataclass(frozen=True)
class Constants:
    """All that `pmlkit.period` has to know, ns: see ``MEANINGS`` for what each is of."""

    exit: Constant
    entry: Constant
    round: Constant
    rearm: Constant
    scan: Constant
    copy: Constant

    @property
    def kinds(self):
        """The kinds that occur, in order."""
        return sorted({constant.kind for constant in self.by_name().values()})

    def by_name(self):
        return {name: getattr(self, name) for name in _MEANINGS}

    def as_dict(self):
        """Return what JSON can hold."""
        return asdict(self)

    def lines(self):
        """Yield a line for each constant: what, how long, where from."""
        for name, constant in self.by_name().items():
            yield f"{_MEANINGS[name]}: {_ns(constant.ns)} ({constant.kind}: {constant.source})"


def _ns(value):
    return f"{value:,.0f} ns" if value >= 100 else f"{value:.3g} ns"


def assumed():
    """Return constants for where nothing was measured: the lab's instructions, at a guessed speed.

    Returns
    -------
    Constants
    """

    def of(name, more=0.0, text=""):
        ns = _LAB_INSN[name] * _NS_PER_INSN + more
        why = f"{_LAB_INSN[name]:,} instructions in the lab, {_NS_PER_INSN:g} ns each{text}"
        return Constant(ns, "assumed", why)

    far = f", and {_TRANSITION_NS / 1000:g} us for the processor"
    per_page = Constant(0.02, "assumed", "1 bit of a bitmap read at 6 GB/s")
    copy = Constant(15.0, "assumed", "8 bytes checked and written at 0.5 GB/s")
    return Constants(of("exit", _TRANSITION_NS, far), of("entry"), of("round"), of("rearm"),
                     per_page, copy)  # fmt: skip


def from_trace(trace, base=None):
    """Take what a trace says of its own cost; the rest is of `base`.

    Parameters
    ----------
    trace : Trace
        Of a Xen host or of the lab.
    base : Constants, optional
        Default: `assumed`.

    Returns
    -------
    Constants
        An exit is ``exit_tsc / exits``, an entry ``drain_tsc / entries``; the pause at the end of
        a round is fitted by ``round + rearm * pages re-armed`` (least squares, none below 0).
    """
    base = base or assumed()
    pml = trace.pml if trace.meta.kind == "pml" or trace.pml_is_nested else trace
    told, found = pml.meta.overheads, {}
    if not told.get("tsc_khz"):
        return base
    lab = pml.meta.source == "lab"
    kind, name = ("emulated" if lab else "host"), Path(pml.path).name
    ns = 1e6 / told["tsc_khz"]

    def keep(what, value, how):
        found[what] = Constant(float(value), kind, f"{name}: {how}")

    if told.get("exits"):
        keep("exit", told["exit_tsc"] * ns / told["exits"], f"mean of {told['exits']:,} exits")
    if told.get("entries"):
        value = told["drain_tsc"] * ns / told["entries"]
        keep("entry", value, f"mean of {told['entries']:,} entries")
        if told.get("agent_cpu_ns"):
            keep("copy", told["agent_cpu_ns"] / told["entries"], "the agent's CPU time")
    rounds = pml.rounds[pml.rounds.pause_ns > 0]
    if len(rounds):
        fixed, each = _fit(rounds.rearmed.to_numpy(float), rounds.pause_ns.to_numpy(float))
        keep("round", fixed, f"fit over {len(rounds)} pauses")
        keep("rearm", each, f"fit over {len(rounds)} pauses")
    return replace(base, **found)


def _fit(pages, pauses):
    """Fit pauses by a constant and a cost per page, both 0 or more."""
    if np.ptp(pages) == 0:
        return float(pauses.mean()), 0.0
    slope, constant = np.polyfit(pages, pauses, 1)
    if slope < 0:
        return float(pauses.mean()), 0.0
    if constant < 0:
        return 0.0, float((pauses * pages).sum() / (pages * pages).sum())
    return float(constant), float(slope)


def measure(seconds=5.0):
    """Measure what this machine can do without Xen: reading bitmaps, checking and writing a spool.

    Parameters
    ----------
    seconds : float
        In all, about.

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


def _repeat(work, seconds):
    """Run `work` for about so many seconds; return the shortest of its times, ns."""
    end, best = time.monotonic() + seconds, float("inf")
    while True:
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
        if time.monotonic() > end:
            return best


def _scan_ns(seconds):
    pages = 1 << 19
    bits, rng = np.zeros(pages // 8, np.uint8), np.random.default_rng(1)
    dirty = rng.integers(0, len(bits), len(bits) // 64)

    def work():
        bits[:] = 0
        bits[dirty] = 1
        np.flatnonzero(bits)

    return _repeat(work, seconds) / pages


def _copy_ns(seconds):
    from pmlkit.spool import SpoolWriter

    payload = np.random.default_rng(1).bytes(128 * BUFFER * 8)
    with tempfile.TemporaryFile(buffering=0) as file, SpoolWriter("spool", {}, file) as writer:

        def work():
            writer.append(2, payload)
            file.seek(0)  # a disk is not what is measured

        return _repeat(work, seconds) / (128 * BUFFER)


def save(constants, path):
    """Write constants as JSON, to be used by `pmlkit period --calibration`.

    Raises
    ------
    OutputError
    """
    try:
        Path(path).write_text(json.dumps(constants.as_dict(), indent=2) + "\n")
    except OSError as error:
        raise output_error(path, error) from error


def load(path):
    """Read what `save` wrote.

    Raises
    ------
    UsageError
        If it is something else.
    PmlkitError
        If it cannot be read.
    """
    try:
        told = json.loads(Path(path).read_text())
        return Constants(**{name: Constant(**told[name]) for name in _MEANINGS})
    except OSError as error:
        raise PmlkitError(f"cannot read {path} ({error.strerror})", "give another file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no calibration: make one with `pmlkit calibrate`") from error
