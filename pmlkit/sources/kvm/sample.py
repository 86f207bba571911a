# SPDX-License-Identifier: Apache-2.0
"""The sample of touched frames that a KVM host took, nested in the trace of its log.

This module is separate because the trace needs it last: the written frames are known only after the
log is written.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.pagetables import pack
from pmlkit.trace.kinds import Kind
from pmlkit.trace.schema import DRAWN, SAMPLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.sources.kvm.stream import Sample
    from pmlkit.trace.schema import TraceMeta
    from pmlkit.trace.writer import TraceWriter
    from pmlkit.types import Bools, Gfns, Ints


__all__ = ["Samples"]

_NOTE = (
    "idle flags of the host's pages show which frames of the sample were touched. They are "
    "examined shortly after a round's start and end. An access through a cached translation is not "
    "seen"
)


class Samples:
    """The samples of all rounds of a spool."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._keys: Gfns | None = None
        self._written: Bools = np.zeros(0, bool)

    def add(self, sample: Sample) -> None:
        """Add the touched frames of a round's sample."""
        self._samples.append(sample)

    def mark(self, rounds: Ints, gfns: Gfns) -> None:
        """Record that frames were logged."""
        if not self._samples:
            return
        if self._keys is None:
            parts = [pack(np.full(len(s.frames), s.round), s.frames) for s in self._samples]
            self._keys = np.concatenate(parts)
            self._written = np.zeros(len(self._keys), bool)
        if not len(self._keys):
            return
        low = np.flatnonzero(gfns >> np.uint64(40) == 0)
        keys = pack(rounds[low], gfns[low])
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        self._written[at[self._keys[at] == keys]] = True

    def write(self, writer: TraceWriter, meta: TraceMeta, rounds: pd.DataFrame) -> None:
        """Write the samples to the trace of the log.

        Parameters
        ----------
        meta : TraceMeta
            Of the log.
        rounds : DataFrame
            Its rounds.
        """
        if not self._samples:
            return
        job = meta.options["job"]
        options = {**meta.options, SAMPLED: job.get("one_in", 16), DRAWN: job.get("draw")}
        access = dataclasses.replace(meta, kind="access", options=options,
                                     notes=[*meta.notes, _NOTE])  # fmt: skip
        nested = writer.sample(access)
        first = 0
        for batch, sample in enumerate(self._samples):
            stop = first + len(sample.frames)
            written = self._written[first:stop] if len(self._written) else False
            kinds = np.where(written, int(Kind.WRITE), int(Kind.READ)).astype(np.uint8)
            if len(sample.frames):
                kinds = np.broadcast_to(kinds, len(sample.frames))
                nested.add_entries(sample.round, batch, 0, sample.frames, kinds)
            first = stop
        rounds = rounds.iloc[: self._samples[-1].round + 1]
        nested.set_rounds(rounds.assign(lost=0))
        # A round without a batch has no sample.
        sampled = rounds.iloc[[sample.round for sample in self._samples]]
        columns = {name: sampled[name].to_numpy() for name in ("round", "t_start_ns", "t_end_ns")}
        table = pd.DataFrame({"batch": np.arange(len(sampled)), **columns, "reason": "scan"})
        nested.set_batches(table)

    def notes(self) -> Iterator[str]:
        """Yield the notes about the samples."""
        if not self._samples:
            return
        missing = self._samples[-1].round + 1 - len(self._samples)
        if missing:
            yield f"{missing} rounds were too short for a sample, and have none"
