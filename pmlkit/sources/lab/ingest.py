# SPDX-License-Identifier: Apache-2.0
"""Convert a lab run's spool to a PML trace, with the regions and phases of its guest."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.sources.host.ingest import XenTrace, convert
from pmlkit.sources.host.spool import XenSpool, understood
from pmlkit.sources.lab.guests import known_of
from pmlkit.sources.recorder.ingest import COUNTERS, SIZES, Report, read_report, read_sample
from pmlkit.sources.spooling import read_text
from pmlkit.spool import FRAMES_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pmlkit.trace.reader import Trace
    from pmlkit.trace.schema import TraceMeta
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["LabTrace", "ingest"]

# libxl's place for a PVH guest's pages of console and Xenstore. The guest's map lacks them.
_SPECIAL = (0xFEFF8000, 0xFF000000, "Xen special pages")


def ingest(
    spool: PathLike, out: Path, overwrite: bool = False, heard: Tell = lambda line: None
) -> Trace:
    """Convert a lab run's spool folder to a trace.

    Parameters
    ----------
    heard : callable, optional
        Function that is called with the frame at which the conversion stopped, if that is not the
        end.

    Returns
    -------
    Trace
        The PML log. With a harvest of accessed flags, an access trace with the log nested in it.
    """
    spool = Path(spool)
    with understood(spool):
        frames = XenSpool(spool / FRAMES_FILE, ("lab",))
        trace = convert(LabTrace(frames, spool), out, overwrite)
    if frames.fault:
        heard(frames.fault)
    return trace


class LabTrace(XenTrace):
    """A trace to be written from a lab run's spool.

    `path` is the folder, whose ``guest.txt`` is the guest's console.
    """

    def __init__(self, spool: XenSpool, path: Path) -> None:
        super().__init__(spool, path)
        self.ns_per_insn = self.header.get("ns_per_insn")
        self.report = read_report(self._console(path / "guest.txt"))

    def _console(self, file: Path) -> str:
        """Return the guest's console; of a killed run, the lines that the agent read."""
        lines = "".join(line.line + "\n" for line in self.spool.lines)
        return read_text(file).replace("\r", "") or lines

    def meta(self) -> TraceMeta:
        """Return the description of the PML log."""
        return dataclasses.replace(super().meta(), host={"machine": "Bochs"})

    def domain(self) -> dict[str, int | str]:
        h = self.header
        return {"name": h["guest"], "memory_bytes": h["memory_bytes"], "vcpus": h["guest_vcpus"]}

    def memory_map(self) -> list[dict[str, int | str]]:
        """Return the memory that the guest reported, and the pages that it shares with Xen."""
        spans = [*self.report.memory, *([_SPECIAL] if self.report.memory else [])]
        return [{"start": start, "end": end, "type": kind} for start, end, kind in spans]

    def known(self) -> list[Json]:
        return known_answers(self.header["regions"], self.report)

    def regions(self) -> pd.DataFrame:
        return region_table(self.header["regions"], self.report)

    @cached_property
    def _marks(self) -> list[tuple[str, int]]:
        """The names of the guest's phases, and the times at which the agent read them, ns."""
        lines = [t for t in self.spool.lines if t.line.startswith("phase ")]
        return [(t.line[6:].strip(), t.ns) for t in lines]

    def phases(self) -> list[dict[str, int | str]]:
        """Return the phases at the times of the agent; a guest with a mailbox has only one phase.

        With ``phase_rounds`` the agent ends a round at each mark, and the phase starts at that end.
        The guest pauses around its mark, so the ended round belongs to the previous phase.
        """
        if not self._marks:
            return [{"name": "rounds", "round": 0, "t_ns": 0, "insn": -1}]
        ends = self.ends
        starts = [int(min(max(ns, 0), ends[-1])) for _, ns in self._marks]
        rounds = np.minimum(np.searchsorted(ends, starts, side="right"), len(ends) - 1)
        if self.header["job"].get("phase_rounds"):
            starts = [int(ends[r]) for r in rounds]
            rounds = rounds + 1
        return [
            {"name": name, "round": int(number), "t_ns": start, "insn": -1}
            for (name, _), start, number in zip(self._marks, starts, rounds, strict=True)
            if number < len(ends)
        ]

    def guest(self) -> list[dict[str, int]]:
        """Return the guest's reports of its memory, at the times at which dom0 read them."""
        samples = [t for t in self.spool.lines if t.line.startswith("sample ") and t.ns >= 0]
        return guest_rows((t.ns, t.line) for t in samples)


def known_answers(regions: Iterable[Json], report: Report) -> list[Json]:
    """Return the known answers of a guest, from its description and its own report."""
    names = ("phase", "region", "kind", "pages")
    known = [dict(zip(names, row, strict=True)) for row in report.expected]
    for region in regions:
        for kind, pages in known_of(region).items():
            known.append(dict(zip(names, ("rounds", region["name"], kind, pages), strict=True)))
    return known


def region_table(regions: Iterable[Json], report: Report) -> pd.DataFrame:
    """Return the regions of a guest's description and of its report."""
    rows = [(r["name"], r["gfn"], r["pages"]) for r in regions]
    return pd.DataFrame(rows + report.regions, columns=["name", "gfn", "pages"])


def guest_rows(samples: Iterable[tuple[int, str]]) -> list[dict[str, int]]:
    """Return the guest's reports of its memory; each is a time (ns) and a line."""
    rows = (_sample(read_sample(line.split()[1:]), ns) for ns, line in samples)
    return [row for row in rows if row]


def _sample(values: dict[str, int], ns: int) -> dict[str, int]:
    """Return a row of the guest's table; {} if the line is incomplete."""
    if not {*SIZES, *COUNTERS} <= values.keys():
        return {}
    sizes = {f"{name}_bytes": values[name] for name in SIZES}
    allocated = {"allocated_bytes": values["total"] - values["free"]}
    return {"t_ns": ns, **sizes, **allocated, **{name: values[name] for name in COUNTERS}}
