# SPDX-License-Identifier: Apache-2.0
"""Recordings side by side: what each is, how long, how large, and how many pages it touches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit import known, views, workingset
from pmlkit.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.trace import Trace

__all__ = ["ORIGINS", "overview"]

# `TraceMeta.source`, in words that say what is real about it.
ORIGINS = {
    "recorder": "real guest, emulated by QEMU",
    "lab": "real Xen, emulated PML (Bochs)",
    "xen": "Xen host",
    "simulator": "simulated PML",
}
_MIB = 1 << 20


def overview(names: Sequence[str]) -> pd.DataFrame:
    """Describe recordings, a row each.

    Parameters
    ----------
    names : sequence of str
        As `pmlkit.views.load` takes them.

    Returns
    -------
    pandas.DataFrame
        ``recording``; ``origin`` (`ORIGINS`); ``holds``: accesses or a PML log; ``seconds`` of
        guest time; ``rounds``; ``entries`` and how many were ``lost`` (none: not counted);
        ``RAM`` and what was ``touched`` of it at any time, in MiB; ``known``: the known answers
        that are met, of how many.
    """
    table = pd.DataFrame([_row(views.load(name)) for name in names])
    if table["lost"].isna().any():  # not known, and a number beside others all the same
        table["lost"] = table["lost"].astype("Int64")
    return table


def _row(trace: Trace) -> dict[str, object]:
    meta = trace.meta
    answers = known.measure(trace)
    met = sum(answer.as_dict()["met"] for answer in answers)
    return {
        "recording": Path(trace.path).name.removesuffix(".trace"),
        "origin": ORIGINS.get(meta.source, meta.source),
        "holds": "accesses" if trace.meta.kind == "access" else "PML log",
        "seconds": round(trace.duration_ns / 1e9, 2),
        "rounds": trace.n_rounds,
        "entries": meta.entries,
        "lost": meta.lost,
        "RAM": meta.memory_bytes // _MIB,
        "touched": round(_pages(trace) * PAGE_SIZE / _MIB, 1),
        "known": f"{met} of {len(answers)}" if answers else "",
    }


def _pages(trace: Trace) -> int:
    """Count the distinct frames of a trace: its working set in a window as long as it is."""
    table = workingset.estimate(trace, f"{trace.n_rounds}r", page_tables="keep")
    return int(table["pages"].max())
