# SPDX-License-Identifier: Apache-2.0
"""From a spool to a trace, whichever source filled it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import NotATrace, TraceNotFound
from pmlkit.spool import FRAMES_FILE, read_spool

if TYPE_CHECKING:
    from pmlkit.trace import Trace
    from pmlkit.types import PathLike


_SOURCES = {
    "recorder": "pmlkit.sources.recorder_ingest",
    "lab": "pmlkit.sources.lab_ingest",
    "xen": "pmlkit.sources.xen_ingest",
}
_HINT = "give the folder NAME.trace.spool that an interrupted collection leaves"


def ingest(spool: PathLike, out: PathLike, overwrite: bool = False) -> Trace:
    """Turn what is in a spool into a trace, and note in the trace what is missing.

    Parameters
    ----------
    spool : path-like
        The folder ``NAME.trace.spool``.
    out : path-like
        The trace to be.
    overwrite : bool
        Replace what has that name.

    Returns
    -------
    Trace

    Raises
    ------
    TraceNotFound, NotATrace
        If the spool does not exist, or is none.
    OutputExists, OutputError
    """
    spool = Path(spool)
    if not spool.exists():
        raise TraceNotFound(spool)
    frames = spool / FRAMES_FILE
    if (spool / "out.img").is_file():  # the lab's machine was killed, and so were we
        import_module("pmlkit.sources.lab_disks").take_results(spool / "out.img", spool)
    if not frames.is_file():
        raise NotATrace(spool, "no spool either: it holds no frames.spool", _HINT)
    source = read_spool(frames).header.get("source")
    if source not in _SOURCES:
        raise NotATrace(spool, f"a spool of unknown source {source!r}", _HINT)
    return import_module(_SOURCES[source]).ingest(spool, Path(out), overwrite)
