# SPDX-License-Identifier: Apache-2.0
"""Convert a spool of the KVM lab to a trace: as for any KVM host, with the guest's reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.sources.host.spool import understood
from pmlkit.sources.kvm.ingest import KvmTrace
from pmlkit.sources.lab.ingest import guest_rows, known_answers, region_table
from pmlkit.sources.recorder.ingest import read_report
from pmlkit.sources.spooling import read_text

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.trace.schema import TraceMeta
    from pmlkit.trace.writer import TraceWriter
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["LabKvmTrace", "ingest"]


def ingest(
    spool: PathLike, out: Path, overwrite: bool = False, heard: Tell = lambda line: None
) -> Trace:
    """Convert a KVM lab's spool folder to a trace.

    Parameters
    ----------
    heard : callable, optional
        Function that is called with a message if the conversion stopped at a frame before the end.
    """
    with understood(Path(spool)):
        source = LabKvmTrace(Path(spool))
        trace = source.write(out, overwrite)
    if source.fault:
        heard(source.fault)
    return trace


class LabKvmTrace(KvmTrace):
    """A trace to be written from a KVM lab's spool.

    ``report.txt`` in its folder has the lines that the guest reported, each after its time, ns.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        pairs = [line.partition(" ") for line in read_text(folder / "report.txt").splitlines()]
        self.lines = [(int(time), text) for time, _, text in pairs if time.isdigit()]
        self.report = read_report("".join(text + "\n" for _, text in self.lines))

    def meta(self, highest: int, vcpus: int, notes: list[str]) -> TraceMeta:
        meta = super().meta(highest, vcpus, notes)
        options = {**self.header["options"], **meta.options}
        return dataclasses.replace(meta, options=options, host={**meta.host, "machine": "Bochs"})

    def memory_map(self) -> list[Json]:
        """Return the memory that the guest reported; otherwise the memory of its slots."""
        spans = self.report.memory
        reported = [{"start": start, "end": end, "type": kind} for start, end, kind in spans]
        return reported or super().memory_map()

    def known(self) -> list[Json]:
        return known_answers(self.header["regions"], self.report)

    def phases(self) -> list[Json]:
        """Return the phases. Each starts with a round: the monitor ends a round at a mark."""
        marks = [(ns, text[6:].strip()) for ns, text in self.lines if text.startswith("phase ")]
        if not marks:
            return [{"name": "rounds", "round": 0, "t_ns": 0, "insn": -1}]
        starts = np.array([one.start_ns for one in self.rounds], np.int64)
        first = np.searchsorted(starts, [ns for ns, _ in marks], "left")
        return [
            {"name": name, "round": int(r), "t_ns": int(self.starts[r]), "insn": -1}
            for (_, name), r in zip(marks, first, strict=True)
            if r < len(starts)
        ]

    def add_more(self, writer: TraceWriter) -> None:
        writer.set_regions(region_table(self.header["regions"], self.report))
        begin, end = self.rounds[0].start_ns, self.rounds[-1].end_ns
        samples = [
            (ns - begin, text)
            for ns, text in self.lines
            if text.startswith("sample ") and begin <= ns <= end
        ]
        if rows := guest_rows(samples):
            writer.set_guest(pd.DataFrame(rows))
