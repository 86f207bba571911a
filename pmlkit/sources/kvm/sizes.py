# SPDX-License-Identifier: Apache-2.0
"""Collect sizes without frames, by the aging of MGLRU, into a table.

A trace consists of frames and cannot store sizes alone, so they have a separate module.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pmlkit.errors import OutputExists, UsageError
from pmlkit.files import refuse_inside_trace, whole
from pmlkit.sources.host.collection import CollectError, Collection
from pmlkit.sources.kvm.stream import KvmStream, Round
from pmlkit.spool import FRAMES_FILE, folder_of
from pmlkit.spool_reader import new_folder, read_spool
from pmlkit.trace.schema import PAGE_SIZE

__all__ = ["Sizes"]


class Sizes(Collection):
    """A collection whose result is a table, ``NAME.csv``; see `Collection`.

    Attributes
    ----------
    table : DataFrame or None
        One row per round, after its end: t_ns (its end, since the first one's start), length_ns,
        pages and bytes touched in it, agent_cpu_ns, and clock_ns (its end on the host's monotonic
        clock, which a trace of the same host also has).
    """

    table: pd.DataFrame | None = None

    def _claim_output(self) -> tuple[Path, Path]:
        out = Path(self.out)
        if out.suffix != ".csv":
            raise UsageError(f"the result is a table of sizes: name the output NAME.csv, not {out}")
        refuse_inside_trace(out)
        if out.exists() and not self.overwrite:
            raise OutputExists(out)
        spool = folder_of(out)
        new_folder(spool)
        return out, spool

    def _write(self, status: int, quietly: bool) -> None:
        why = self._reason(status) or self._follower.fault
        if self.seen:
            ends = _ends(self.folder / FRAMES_FILE)
            rows = [
                {"t_ns": s.t_ns, "length_ns": s.length_ns, "pages": s.pages,
                 "bytes": s.pages * PAGE_SIZE, "agent_cpu_ns": s.agent_cpu_ns, "clock_ns": end}
                for s, end in zip(self.seen, ends, strict=False)
            ]  # fmt: skip
            self.table = pd.DataFrame(rows)
            with whole(self.out, self.overwrite) as partial, open(partial, "wb") as file:
                self.table.to_csv(file, index=False)
        self._discard()
        if quietly:
            return
        if why or not self.seen:
            kept = str(self.out) if self.seen else None
            raise CollectError(self.domain, why or "no round was complete", kept)


def _ends(path: Path) -> list[int]:
    """Return the ends of a spool's rounds on the host's clock, ns."""
    with read_spool(path) as spool:
        stream = KvmStream(spool.header)
        return [frame.end_ns for frame in spool.understand(spool, stream.take)
                if isinstance(frame, Round)]  # fmt: skip
