# SPDX-License-Identifier: Apache-2.0
"""The facts and phases of a trace as text, and both as HTML for notebooks.

Nothing here reads entries, so the result is immediate.
"""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pmlkit.errors import visible
from pmlkit.trace.schema import DRAWN, SAMPLED
from pmlkit.units import exact_ns, format_bytes, format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pmlkit.trace.schema import TraceMeta

__all__ = [
    "ORIGINS",
    "Phase",
    "answer",
    "clock_text",
    "contents_text",
    "facts",
    "origin_text",
    "phases",
    "source_text",
    "to_html",
]

# The real parts of a trace by `TraceMeta.source`.
ORIGINS = {
    "recorder": "real guest, emulated by QEMU",
    "lab": "real Xen, emulated PML (Bochs)",
    "xen": "Xen host",
    "simulator": "simulated PML",
    "kvm": "KVM host",
    "composed": "composed of recorded phases; no guest ran like this",
}
_CLOCKS = {
    "icount": "guest instructions (icount)",
    "host": "the host's wall clock: T is wall time",
}

# `trace` is a `Trace` throughout, whose module imports this one.


class Phase(NamedTuple):
    """A phase of a trace: its name, start and length in ns, first round and number of rounds."""

    name: str
    start_ns: int
    length_ns: int
    round: int
    rounds: int


def phases(trace: Any) -> list[Phase]:
    """Return the phases of a `Trace`; each lasts until the next one, or the end of the trace.

    Gaps between phases that the trace was given are left out.
    """
    starts = [*trace.phase_starts, {"t_ns": trace.duration_ns, "round": trace.n_rounds}]
    return [
        Phase(a["name"], a["t_ns"], b["t_ns"] - a["t_ns"], a["round"], b["round"] - a["round"])
        for a, b in itertools.pairwise(starts)
        if a["name"] or trace.phase_starts is trace.meta.phases
    ]


def facts(trace: Any, period: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield the facts of a `Trace`: pairs of a name and a text; ``"note"`` may occur repeatedly.

    Parameters
    ----------
    period : str, optional
        Text for the length of rounds (`pmlkit.timeline.period_text`); default: the requested one.
    """
    meta = trace.meta
    yield "trace", str(trace.path)
    yield "kind", f"{meta.kind}, by {meta.source}, {meta.created or ''}"
    yield "domain", f"{meta.domain['name']}, {format_bytes(meta.memory_bytes)}"
    yield "length", f"{format_ns(trace.duration_ns)} in {trace.n_rounds:,} rounds"
    yield "period", period or _requested_period(meta)
    yield "clock", clock_text(meta)
    base_ns = meta.clock.get("base_ns")
    if base_ns is not None:
        yield "begins at", str(np.datetime64(int(base_ns), "ns")) + "Z"
    yield "entries", f"{meta.entries:,}, {meta.lost_text}"
    if trace.sample is not None:
        options = trace.sample.meta.options
        again = ", drawn again in each round" if options.get(DRAWN) == "round" else ""
        yield "sample", f"accessed flags of one frame in {options[SAMPLED]}{again}"
    yield "complete", meta.complete_text
    yield from (("note", text) for text in meta.notes)


def answer(trace: Any, met: int = 0, known: int = 0, checked: bool = False) -> str:
    """Return what a `Trace` is and whether it is sound, in a sentence.

    Parameters
    ----------
    met, known : int
        How many of its known answers are met, of how many; 0 of 0: nothing is stated.
    checked : bool
        Whether `Trace.check` has compared its files with their checksums.
    """
    meta = trace.meta
    state = {True: "a complete recording", False: "an incomplete recording"}.get(
        meta.complete, "a recording"
    )
    lost = "no entries lost" if meta.lost == 0 else meta.lost_text
    sound = "undamaged: " * checked
    answers = f"; {met} of {known} known answers are met" * bool(known)
    length = f"{format_ns(trace.duration_ns)} in {trace.n_rounds:,} rounds"
    name = trace.path.name.removesuffix(".trace")
    return f"{name} is {sound}{state} of {length}, {lost}{answers}."


def origin_text(meta: TraceMeta) -> str:
    """Return the real parts of a trace, in words."""
    if meta.is_import:
        return f"imported from {meta.source.partition(':')[2]}"
    if meta.source == "kvm" and meta.clock["ns_per_insn"]:  # only an emulator counts instructions
        return "real KVM, emulated PML"
    if meta.source == "recorder" and meta.kind == "pml":
        return f"{ORIGINS['recorder']}; simulated PML"
    return ORIGINS.get(meta.source, meta.source)


def source_text(trace: Any) -> str:
    """Return one line on a source, for use below a number: origin, missing and lost parts."""
    if trace.meta.is_import:
        what = "the entries of that file"
    elif trace.meta.kind == "pml":
        what = "a log of writes, so reads are missing: this is not the whole working set"
    elif trace.is_harvest:
        what = "all frames touched in each round, by accessed flags"
    else:
        what = "all accesses are recorded"
    lost = trace.meta.loss_note
    return f"{origin_text(trace.meta)}; {what}{f'; {lost}' if lost else ''}"


def contents_text(trace: Any) -> str:
    """Return one line on the entries of a `Trace`: reads or writes, order, times."""
    times = "times per round" if trace.duration_ns else "no times"
    if trace.meta.is_import:
        return f"the content of the imported file; {times}"
    if trace.meta.kind == "pml":
        # Only stock log-dirty counts write faults. It returns a bitmap of each round.
        bitmap = "write_faults" in trace.meta.overheads
        order = "in no order" if bitmap else "in order of first write since the last re-arm"
        return f"writes only, {order}; {times}"
    if trace.is_harvest:
        return f"touched and written frames of each round, in no order; {times}"
    order = "in order of first use"
    return f"reads and writes of each round, {order}; executions, in no order; {times}"


def clock_text(meta: TraceMeta) -> str:
    """Return the clock of a trace's times, as text."""
    kind = meta.clock["kind"]
    if kind == "host" and meta.has_file_clock:
        return "the imported file's"
    return _CLOCKS.get(kind, str(kind))


def _requested_period(meta: TraceMeta) -> str:
    if meta.period["insn"]:
        return f"{meta.period['insn']:,} instructions"
    return "not stated" if meta.resolution_ns is None else exact_ns(meta.resolution_ns)


def _size_text(trace: Any) -> str:
    nested = trace.pml if trace.pml_is_nested else trace.sample
    size = trace.size_bytes + (nested.size_bytes if nested else 0)
    return format_bytes(size)


def to_html(trace: Any) -> str:
    """Return the answer, the facts and the phases of a `Trace` as HTML: a line and two tables."""
    rows = [
        (
            phase.name,
            f"{phase.start_ns / 1e9:.3f}",
            f"{phase.length_ns / 1e9:.3f}",
            f"{phase.rounds:,}",
        )
        for phase in phases(trace)
    ]
    meta = trace.meta
    more = [
        ("origin", origin_text(meta)),
        ("contents", contents_text(trace)),
        ("size", _size_text(trace)),
    ]
    tables = f"<p>{_escaped(answer(trace))}</p>" + _table((), [*facts(trace), *more])
    if rows:
        tables += _table(_PHASES, rows)
    return tables


def _table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [_row("th", header)] if header else []
    lines += [_row("td", row) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}{_LEFT}>{_escaped(cell)}</{tag}>' for cell in cells)}</tr>"


_PHASES = ("phase", "start (s)", "length (s)", "rounds")
_LEFT = ' style="text-align:left"'  # notebooks set tables flush right


def _escaped(text: str) -> str:
    return html.escape(visible(text))
