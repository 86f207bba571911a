# SPDX-License-Identifier: Apache-2.0
"""A software PML applied to a recorded access trace.

It logs like the hardware (Intel SDM, Page-Modification Logging; see `pmlkit.kernels.pml`), and adds
the costs of exits, drains and re-arms. With the defaults its log equals that of the recorder's
emulated PML, entry by entry.

An access trace contains only the first write of each window (the trace's round). A page that is
re-armed in the middle of a window and written again in it is not logged again. With
``rearm="flush"``, the counts are therefore a lower bound. It is tight if a window is short compared
with the time to fill a buffer.

The log contains the processor's own writes to page tables only if the recorder saw them. Entries do
not depend on the costs, because the guest does not run slower here. For a part of the recording,
PML is on from the part's start to its end. Rounds are counted from there; times stay the
recording's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.costs import PROCESSORS, Cost
from pmlkit.errors import NeedsError, UsageError
from pmlkit.kernels.pml import REARM, pml_log
from pmlkit.selection import check_page_size, rounds_of, times_ns
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import MEMORY_GUESSED
from pmlkit.trace.writer import TraceWriter
from pmlkit.units import check_count, exact_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pmlkit.costs import Clock
    from pmlkit.kernels.pml import PmlLog
    from pmlkit.trace.schema import TraceMeta
    from pmlkit.types import Array, Json, PathLike


__all__ = ["PmlModel", "simulate"]


OF = PROCESSORS["ns at 3 GHz"]  # the processor of a model's costs in ns


@dataclass(frozen=True)
class PmlModel:
    """Behaviour and costs of PML.

    Costs are ns of a processor of 3 GHz that executes one instruction per cycle. The log converts
    them to the time of the access trace's machine, if that contains the length of an instruction
    (`on`).

    Parameters
    ----------
    buffer_entries : int
        Entries of a buffer; 512 in hardware (4 KiB of 8 bytes).
    buffers : {1, 2}
        With two, a full buffer is exchanged for the other (two VMWRITEs) and drained while the
        guest runs. Exits become shorter, not fewer. Assumption: it is drained before the other is
        full.
    rearm : {"round", "flush", "never"}
        When a logged page is re-armed: at the end of the round; when its buffer is drained (at the
        end of the round at the latest); or never.
    rounds_per_round : int
        Rounds of the access trace that form one round of the log: T in units of the resolution.
    exit_ns : int
        A VM exit and entry, with the VMREAD of the index. 940 ns for the VMREAD (OoH, SC'22), and
        1200 ns, an assumption, for leaving the guest and entering it.
    reset_ns : int
        Resetting the index: a VMWRITE of 800 ns (OoH, SC'22).
    switch_ns : int
        Exchanging the buffer instead: two VMWRITEs, address and index (OoH, SC'22).
    drain_ns_per_entry : int
        Reading an entry and setting its bit: an assumption.
    rearm_ns_per_entry : int
        Finding the page in the EPT and clearing its dirty flag: an assumption.
    invept_ns : int
        The INVEPT after a re-arm, without the TLB misses that follow: an assumption.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    buffer_entries: int = 512
    buffers: int = 1
    rearm: str = "round"
    rounds_per_round: int = 1
    exit_ns: int = 2_140
    reset_ns: int = 800
    switch_ns: int = 1_600
    drain_ns_per_entry: int = 50
    rearm_ns_per_entry: int = 50
    invept_ns: int = 500

    def __post_init__(self) -> None:
        check_count("buffer_entries", self.buffer_entries, "entries")
        check_count("rounds_per_round", self.rounds_per_round, "rounds")
        if self.buffers not in (1, 2):
            raise UsageError(f"buffers is {self.buffers!r}: give 1 or 2")
        if self.rearm not in REARM:
            raise UsageError(f"rearm is {self.rearm!r}: use one of {', '.join(REARM)}")
        for name, value in asdict(self).items():
            if "_ns" in name and (not isinstance(value, int) or value < 0):
                raise UsageError(f"{name} is {value!r}: give whole nanoseconds, 0 or more")

    def on(self, time: Clock) -> PmlModel:
        """Return the model with its costs converted to a machine's time, by instructions."""
        each = time.ns(Cost(1, OF))
        costs = {name: value for name, value in asdict(self).items() if "_ns" in name}
        return replace(self, **{name: round(value * each) for name, value in costs.items()})


def simulate(
    access: Trace | PathLike,
    out: PathLike,
    model: PmlModel | None = None,
    overwrite: bool = False,
    start: str | int | None = None,
    end: str | int | None = None,
) -> Trace:
    """Write the PML trace that a machine like `model` would have logged.

    Parameters
    ----------
    access : Trace or path-like
        An access trace.
    out : path-like
        The trace to write.
    model : PmlModel, optional
        Default: hardware's, re-armed each round.
    overwrite : bool
        Replace `out`.
    start, end : str, int or None
        Log only the rounds between these times (``"2s"`` or nanoseconds): PML is off before and
        after. `known` answers are kept for phases that lie completely between them.

    Returns
    -------
    Trace
        Of kind "pml". A batch's entries and its drain lie between its ``t_start_ns`` and
        ``t_end_ns``, at the resolution of the access trace's batches. The last batch has the reason
        "stop". ``pause_ns`` of a round is the time for which its guest would have been paused;
        ``meta.overheads`` has its parts.

    Raises
    ------
    NeedsError
        If `access` is a PML trace, or has pages of another size than PML's.
    UsageError
        If there is no round between `start` and `end`.
    OutputExists, OutputError
    """
    model = model or PmlModel()
    access = access if isinstance(access, Trace) else Trace.open(access)
    if access.meta.kind != "access":
        raise NeedsError(access, "accesses", "give an access trace, such as `pmlkit record` writes")
    check_page_size(access)
    span = times_ns(access, start, end)
    first, stop = rounds_of(access, *span)
    window, source_batch, vcpu, gfn = _writes(access, span)
    window = window.astype(np.int64) - first
    log = pml_log(window, gfn, vcpu, model.buffer_entries, model.rearm, model.rounds_per_round)
    source = access.rounds.iloc[first:stop]
    one_clock = access.meta.time.ns_per_insn is not None
    costs = model.on(access.meta.time) if one_clock else model
    rounds = _rounds(access, source, log, costs)
    batches = _batches(access, log, source_batch, rounds, costs)
    overheads = _overheads(rounds, batches, access.meta.domain["vcpus"], costs)
    if not one_clock:
        del overheads["pause_share"]  # from time of a processor of 3 GHz to time of this machine
    meta = _meta(access, model, overheads)
    if stop - first < access.n_rounds:
        meta = _of_part(meta, access, source, model.rounds_per_round)
    with TraceWriter(out, meta, overwrite=overwrite) as writer:
        columns = (log.round[log.batch], log.batch, vcpu[log.order], gfn[log.order])
        writer.add_entries(*columns, Kind.WRITE)
        writer.set_rounds(rounds)
        writer.set_batches(batches)
        writer.set_regions(access.regions)
        if access.guest is not None:
            writer.set_guest(_between(access.guest, span))
    return Trace.open(out)


def _between(table: pd.DataFrame, span: tuple[int | None, int | None]) -> pd.DataFrame:
    start, end = span
    t_ns = table["t_ns"]
    kept = (t_ns >= (t_ns.min() if start is None else start)) & (end is None or t_ns < end)
    return table[kept].reset_index(drop=True)


def _writes(access: Trace, span: tuple[int | None, int | None]) -> list[Array]:
    columns = ["round", "batch", "vcpu", "gfn"]
    table = access.entries(columns, *span, kinds=Kind.WRITE)
    return [table.column(name).to_numpy() for name in columns]


def _rounds(access: Trace, source: pd.DataFrame, log: PmlLog, model: PmlModel) -> pd.DataFrame:
    """Make the table of rounds: each is `rounds_per_round` of the access trace's."""
    count = model.rounds_per_round
    number = np.arange(len(source)) // count
    grouped = source.groupby(number)
    rounds = pd.DataFrame({"round": np.arange(grouped.ngroups)})
    for name in ("t_start_ns", "insn_start"):
        rounds[name] = grouped[name].first()
    for name in ("t_end_ns", "insn_end"):
        rounds[name] = grouped[name].last()
    for name in ("asked_ns", "asked_insn"):
        asked = grouped[name].first().to_numpy()
        rounds[name] = np.where(asked > 0, asked * count, -1)
    entries = np.bincount(log.round, weights=log.entries, minlength=len(rounds)).astype(np.int64)
    rounds["entries"] = entries
    rounds["rearmed"] = 0 if model.rearm == "never" else entries
    rounds["exits"] = np.bincount(log.round[log.full], minlength=len(rounds))
    rounds["lost"] = grouped["lost"].sum()
    rounds["pause_ns"] = _pauses(rounds, access.meta.domain["vcpus"], model)
    return rounds


def _batches(
    access: Trace,
    log: PmlLog,
    source_batch: NDArray[np.uint32],
    rounds: pd.DataFrame,
    model: PmlModel,
) -> pd.DataFrame:
    """Make the table of batches, timed by the access trace's."""
    source = access.batches.iloc[source_batch[log.first]]
    batches = pd.DataFrame({"batch": np.arange(len(log.round)), "round": log.round})
    batches["vcpu"] = log.vcpu
    batches["entries"] = log.entries
    for name in ("t_start_ns", "insn_start"):
        batches[name] = source[name].to_numpy()
    at_exit = access.batches.iloc[source_batch[log.trigger[log.full]]]
    for name in ("t_end_ns", "insn_end"):
        end = rounds[name].to_numpy()[log.round]
        end[log.full] = at_exit[name]
        batches[name] = end
    last = log.round == len(rounds) - 1
    batches["reason"] = np.where(log.full, "full", np.where(last, "stop", "round"))
    # Losses of the access trace in a round belong to the round's last batch, or an earlier one.
    losing, lost = np.flatnonzero(rounds["lost"]), np.zeros(len(batches), np.int64)
    place = np.maximum(np.searchsorted(log.round, losing, "right") - 1, 0)
    np.add.at(lost, place, rounds["lost"].to_numpy()[losing])
    batches["lost"] = lost
    batches["drain_ns"] = log.entries * model.drain_ns_per_entry
    return batches


def _pauses(rounds: pd.DataFrame, vcpus: int, model: PmlModel) -> pd.Series[int]:
    """Return the time for which the guest is stopped in each round, ns.

    A full exit drains its buffer, or exchanges it. The end of a round forces every vCPU to exit,
    drains the rest and re-arms, whether there are one or two buffers.
    """
    full, pages = rounds["exits"], rounds["entries"]
    in_full = full * model.buffer_entries
    at_end = pages - in_full
    pause = vcpus * (model.exit_ns + model.reset_ns) + at_end * model.drain_ns_per_entry
    if model.buffers == 1:
        pause += full * (model.exit_ns + model.reset_ns) + in_full * model.drain_ns_per_entry
    else:
        pause += full * (model.exit_ns + model.switch_ns)
    if model.rearm == "never":
        return pause
    pause += model.invept_ns * (1 + (full if model.rearm == "flush" else 0))
    # A full buffer that is drained while the guest runs is also re-armed then.
    beside = in_full if model.rearm == "flush" and model.buffers == 2 else 0
    return pause + (pages - beside) * model.rearm_ns_per_entry


def _overheads(
    rounds: pd.DataFrame, batches: pd.DataFrame, vcpus: int, model: PmlModel
) -> dict[str, float]:
    """Sum the costs of collection, ns, including those that do not stop the guest."""
    exits, ends = int(rounds["exits"].sum()), len(rounds) * vcpus
    invepts = exits + len(rounds) if model.rearm == "flush" else len(rounds)
    change_ns = model.switch_ns if model.buffers == 2 else model.reset_ns
    parts = {
        "exit_ns": (exits + ends) * model.exit_ns,
        "reset_or_switch_ns": exits * change_ns + ends * model.reset_ns,
        "drain_ns": int(batches["drain_ns"].sum()),
        "rearm_ns": int(rounds["rearmed"].sum()) * model.rearm_ns_per_entry,
        "invept_ns": 0 if model.rearm == "never" else invepts * model.invept_ns,
    }
    pause = int(rounds["pause_ns"].sum())
    duration = int(rounds["t_end_ns"].max() - rounds["t_start_ns"].min()) if len(rounds) else 0
    totals = {"full_exits": exits, "pause_ns": pause, "beside_ns": sum(parts.values()) - pause}
    return {**totals, **parts, "pause_share": pause / duration if duration else 0.0}


def _meta(access: Trace, model: PmlModel, overheads: Json) -> TraceMeta:
    meta, count = access.meta, model.rounds_per_round
    recording = {"name": access.path.name, "created": meta.created, "entries": meta.entries}
    recording["source"] = meta.source
    guessed = {name: meta.options[name] for name in (MEMORY_GUESSED,) if name in meta.options}
    notes = [
        (
            "simulated from the first writes of each window: repeated writes within a window are "
            "missing"
        ),
        "costs without a published value are assumptions: see pmlkit.sources.simulator.PmlModel",
    ]
    period = {name: value and value * count for name, value in meta.period.items()}
    return replace(
        meta,
        kind="pml",
        source="simulator",
        created=None,
        period=period,
        phases=[{**phase, "round": phase["round"] // count} for phase in meta.phases],
        options={**asdict(model), **guessed, "recorded": meta.options},
        provenance={**meta.provenance, "simulated_from": recording},
        overheads=overheads,
        notes=[*meta.notes, *notes],
        lost=0,
        entries=0,
    )


def _of_part(meta: TraceMeta, access: Trace, source: pd.DataFrame, count: int) -> TraceMeta:
    """Restrict the phases to the rounds `source`, and the known answers to complete phases."""
    first, stop = int(source.index[0]), int(source.index[-1]) + 1
    edge = {"t_ns": int(source["t_start_ns"].iloc[0]), "insn": int(source["insn_start"].iloc[0])}
    ends = [phase["round"] for phase in access.meta.phases[1:]] + [access.n_rounds]
    phases, cut = [], set()
    for phase, end in zip(access.meta.phases, ends, strict=False):
        begin = phase["round"]
        if not (first <= begin and end <= stop):
            cut.add(phase["name"])
        if first <= begin < stop:
            phases.append({**phase, "round": (begin - first) // count})
        elif begin < first < end:
            phases.append({**phase, **edge, "round": 0})
    known = [answer for answer in meta.known if answer["phase"] not in cut]
    start, end = exact_ns(edge["t_ns"]), exact_ns(int(source["t_end_ns"].iloc[-1]))
    note = f"the part from {start} to {end} of the recording: PML was off before and after"
    return replace(meta, phases=phases, known=known, notes=[*meta.notes, note])
