# SPDX-License-Identifier: Apache-2.0
"""Convert a spool of any source to a trace."""

from __future__ import annotations

import reprlib
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import NotATrace, PmlkitError, SpoolDamaged, TraceNotFound
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike, Tell


_SOURCES = {
    "recorder": "pmlkit.sources.recorder.ingest",
    "lab": "pmlkit.sources.lab.ingest",
    "xen": "pmlkit.sources.host.ingest",
    "kvm": "pmlkit.sources.kvm.ingest",
    "lab-kvm": "pmlkit.sources.lab.kvm.ingest",
}
_KEEP = "it is kept; collect again"
_HINT = "give the folder NAME.trace.spool that an interrupted collection leaves"


def ingest(
    spool: PathLike,
    out: PathLike,
    overwrite: bool = False,
    heard: Tell = lambda line: None,
    source: str | None = None,
) -> Trace:
    """Convert a spool to a trace, and record in the trace what is missing.

    Parameters
    ----------
    spool : path-like
        The folder ``NAME.trace.spool``.
    out : path-like
        The trace to write.
    overwrite : bool
        Replace an existing trace.
    heard : callable, optional
        Function that is called with one line (which frame and why) if a frame was damaged or
        unknown. The trace ends before that frame; keep the spool.
    source : str, optional
        Refuse a spool of another source.

    Raises
    ------
    TraceNotFound, NotATrace
        If the spool does not exist, or is not a spool.
    OutputExists, OutputError
    """
    spool = Path(spool)
    if not spool.exists():
        raise TraceNotFound(spool)
    frames = spool / FRAMES_FILE
    if (spool / "out.img").is_file():  # a spool of an interrupted run of the lab
        import_module("pmlkit.sources.lab.disks").take_results(spool / "out.img", spool)
    if not frames.is_file():
        raise NotATrace(spool, "not a spool either: it contains no frames.spool", _HINT)
    with read_spool(frames) as opened:
        name = opened.header.get("source")
    if not isinstance(name, str) or name not in _SOURCES:
        raise NotATrace(spool, f"a spool of unknown source {reprlib.repr(name)}", _HINT)
    if source not in (None, name):
        raise SpoolDamaged(frames, 0, f"it comes from the {name}, not from {source}", _KEEP)
    return import_module(_SOURCES[name]).ingest(spool, Path(out), overwrite, heard)


def finish(
    spool: Path,
    out: Path,
    overwrite: bool = False,
    keep: bool = False,
    heard: Tell | None = None,
) -> Trace:
    """Convert a spool with `ingest`, and remove the spool if the trace contains all of it.

    Parameters
    ----------
    keep : bool
        Keep the spool in all cases.
    heard : callable, optional
        Called as by `ingest`: an incomplete last frame is then not an error.

    Raises
    ------
    PmlkitError
        If a frame was unknown and `heard` is None. The trace ends before that frame, and the spool
        is kept.
    """
    faults: list[str] = []
    trace = ingest(spool, out, overwrite, faults.append)
    if faults and heard:
        heard(faults[0])
        return trace
    if faults:
        raise PmlkitError(f"the part before it is in {out}, but {faults[0]}", kept_hint(spool, out))
    if not keep:
        shutil.rmtree(spool)
    return trace


def ingest_command(spool: PathLike, out: PathLike, *options: str) -> str:
    """Return the command that converts a spool to a trace, to be copied from a message."""
    return f"`{shlex.join(['pmlkit', 'ingest', str(spool), '-o', str(out), *options])}`"


def kept_hint(spool: PathLike, out: PathLike) -> str:
    """Return the hint of an error about a spool that could not be read to its end."""
    again = ingest_command(spool, out, "--overwrite")
    return f"the spool is kept: after an update of pmlkit, {again}"
