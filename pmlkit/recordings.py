# SPDX-License-Identifier: Apache-2.0
"""The files that pmlkit ships in addition to its modules, and their locations.

In a clone of the repository, recordings (``data/``), workloads and experiments (``experiments/``)
and ``notebooks/`` are next to the package. An installed wheel contains them in the package, in
``share/``. The patches for Xen and the lab's guests (``hypervisor-patches/``) exist only in a
clone, because they have another licence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from pmlkit.errors import NotATrace, PmlkitError, TraceNotFound, UsageError, closest
from pmlkit.files import whole

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike


_SHARE = Path(__file__).resolve().with_name("share")
IS_CLONE = not _SHARE.is_dir()
ROOT = _SHARE.parents[1] if IS_CLONE else _SHARE
PATCHES = ROOT / "hypervisor-patches"
CLONE = "run pmlkit from a clone of its repository"


def located(path: PathLike, *folders: str) -> Path:
    """Find a relative path in the working directory, in `ROOT`, then in `folders` of `ROOT`.

    Returns
    -------
    Path
        `path` itself if it exists nowhere.
    """
    places = (Path(path), *(ROOT / folder / path for folder in ("", *folders)))
    return next((place for place in places if place.exists()), Path(path))


def workplace() -> Path:
    """Return the folder for relative results: the clone, or the working directory without one."""
    return ROOT if IS_CLONE else Path.cwd()


def need_clone(what: str) -> None:
    """Raise a `PmlkitError` in an installed wheel, which lacks `PATCHES`."""
    if not PATCHES.is_dir():
        raise PmlkitError(f"{what} is not part of an installed pmlkit", CLONE)


# ------------------------------------------------------------------------------
# data/MANIFEST: the SHA-256 of every bundled file, and the command that made each recording.
#
# In addition to traces there may be folders of tables, which ``made.json`` describes:
# ``{"created": TIME, "provenance": {"command": ..., "versions": {...}}}``.
#
# `sha256sum -c MANIFEST` reads it as well: all lines but checksums are comments. ``make manifest``
# (or ``python -m pmlkit.recordings data``) writes it.


NAME = "MANIFEST"
HEAD = """\
# The bundled recordings: SHA-256 of every file, for `sha256sum -c MANIFEST`, and how each was made.
# Written by `make manifest`.
"""
_DESCRIPTIONS = ("trace.json", "made.json")
_TOOLS = ("linux", "qemu", "xen", "bochs")
_MADE_BY = re.compile(r"# (?P<name>\S+): made by `(?P<command>.*)`(?P<rest>.*)")


def name_of(trace: PathLike) -> str:
    """Return the name of a recording, by its folder's path: without ``.trace``."""
    return Path(trace).name.removesuffix(".trace")


@dataclass(frozen=True)
class Manifest:
    """The content of a MANIFEST.

    Attributes
    ----------
    sha256 : dict of str to str
        Checksum of each file, by its path relative to the MANIFEST's folder.
    commands : dict of str to str
        The command that made each recording, by the recording's name.
    """

    sha256: dict[str, str]
    commands: dict[str, str]


def read(folder: Path) -> Manifest:
    """Read ``folder/MANIFEST``.

    Raises
    ------
    PmlkitError
        If it does not exist, or a line is neither a comment nor a checksum.
    """
    path = Path(folder) / NAME
    sha256, commands = {}, {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PmlkitError(f"{path} cannot be read", "restore it from git") from error
    for number, line in enumerate(lines, start=1):
        if made := _MADE_BY.fullmatch(line):
            commands[made["name"]] = made["command"]
        elif match := re.fullmatch(r"([0-9a-f]{64})  (.+)", line):
            sha256[match[2]] = match[1]
        elif line and not line.startswith("#"):
            raise PmlkitError(f"line {number} of {path} is not a checksum", "run `make manifest`")
    return Manifest(sha256, commands)


def problems(folder: Path) -> list[str]:
    """Compare a folder with its MANIFEST; return a line for each difference."""
    listed, present = read(folder).sha256, set(_files(folder))
    both = sorted(listed.keys() & present)
    lines = [f"{name} is missing" for name in sorted(listed.keys() - present)]
    lines += [f"{name} is not in the MANIFEST" for name in sorted(present - listed.keys())]
    return lines + [f"{name} has changed" for name in both if _sha256(folder, name) != listed[name]]


def write(folder: PathLike) -> Path:
    """Write ``folder/MANIFEST`` from the folder's traces; return its path.

    Raises
    ------
    NotATrace
        If the folder has something without a description of how it was made.
    OutputError
    """
    path = Path(folder) / NAME
    blocks: dict[str, list[str]] = {}
    for name in _files(folder):
        blocks.setdefault(name.split("/")[0], []).append(f"{_sha256(folder, name)}  {name}\n")
    text = "".join(f"\n{_made_by(folder, top)}{''.join(lines)}" for top, lines in blocks.items())
    with whole(path, overwrite=True) as partial:
        partial.write_text(HEAD + text)
    return path


def _made_by(folder: PathLike, name: str) -> str:
    paths = (Path(folder) / name / file for file in _DESCRIPTIONS)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        why = f"it contains no {' and no '.join(_DESCRIPTIONS)}"
        raise NotATrace(Path(folder) / name, why, "keep only traces and described tables in data/")
    meta = json.loads(path.read_text())
    provenance = meta.get("provenance", {})
    versions = provenance.get("versions", {})
    tools = ", ".join(f"{tool} {versions[tool]}" for tool in _TOOLS if tool in versions)
    made_by = f"# {name}: made by `{provenance.get('command', '')}`"
    return f"{made_by} on {meta['created'][:10]} ({tools}; the rest is in {path.name})\n"


def _files(folder: PathLike) -> list[str]:
    """Return the sorted relative paths of all files in a folder, without its MANIFEST."""
    folder = Path(folder)
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name != NAME)


def _sha256(folder: PathLike, name: str) -> str:
    with open(Path(folder) / name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------
# Finding a trace


def folder() -> Path:
    """Return the folder of the bundled recordings and tables, or ``$PMLKIT_DATA``."""
    return Path(os.environ.get("PMLKIT_DATA") or ROOT / "data")


@overload
def bundled() -> list[str]: ...
@overload
def bundled(name: str) -> Path: ...
def bundled(name: str | None = None) -> Path | list[str]:
    """Find the bundled recordings, or those in ``$PMLKIT_DATA``.

    Parameters
    ----------
    name : str, optional
        Name of a recording, with or without ``.trace``.

    Returns
    -------
    Path or list of str
        The path of the recording of that name; without `name`, all names.

    Raises
    ------
    TraceNotFound
        If there is no recording of that name.

    Examples
    --------
    >>> import pmlkit
    >>> "hotcold" in pmlkit.bundled()
    True
    """
    paths = {path.stem: path for path in sorted(folder().glob("*.trace")) if path.is_dir()}
    if name is None:
        return sorted(paths)
    stem = str(name).removesuffix(".trace")
    if stem not in paths:
        names = ", ".join(paths) or "none; set PMLKIT_DATA to a folder with recordings"
        raise TraceNotFound(folder() / f"{stem}.trace", f"the recordings there are {names}")
    return paths[stem]


# The purpose of each recording; `overview` lists it.
GOOD_FOR = {
    "gcc-jobs": "forecasts: compilations that begin when commits come in",
    "hotcold": "known answers: 300 hot pages all the time, 1,500 cold ones in one phase",
    "log-archive": "forecasts: lines in waves, searches, sorting and packing",
    "numpy-jobs": "forecasts: jobs of very different sizes, in bursts",
    "pressure": "swapping: a large working set between two small ones, with too little memory",
    "pressure-roomy": "the same work with enough memory, to compare with pressure",
    "redis": "a first look: a key-value store loads, reads all keys, then few, then idles",
    "redis-tides": "forecasts: a load that rises and falls, with bursts and flushes",
    "rrww": "known answers: a published benchmark that reads twice, then writes twice",
    "rrww-lab": "estimates of reads: the same benchmark on a real Xen, with page tables",
    "sqlite": "a database in phases: load, look-ups, a report, updates",
    "sqlite-batches": "forecasts: quiet look-ups, batches, purges, pauses",
    "sqlite-lab": "estimates of reads: the database on a real Xen, with page tables",
    "touch-lab": "known answers on a real Xen: a bare-metal guest of eight rounds",
}


def overview() -> list[Json]:
    """Describe the bundled recordings, or those in ``$PMLKIT_DATA``.

    Only descriptions are read, so this is fast.

    Returns
    -------
    list of dict
        ``name``, ``seconds`` (its length), ``workload`` (what the guest ran), ``kind``,
        ``contents`` (accesses, touched frames or writes, and whether a PML log is in it),
        ``good_for`` (empty if it is not one of ours).

    Examples
    --------
    >>> from pmlkit import recordings
    >>> [one["kind"] for one in recordings.overview() if one["name"] == "hotcold"]
    ['access']
    """
    return [_described(name) for name in bundled()]


def _described(name: str) -> Json:
    trace = open_trace(name)
    contents = "touched" if trace.is_harvest else "accesses"
    contents = (
        "writes" if trace.meta.kind == "pml" else f"{contents}{' + log' * trace.pml_is_nested}"
    )
    return {
        "name": name,
        "seconds": trace.duration_ns / 1e9,
        "workload": trace.meta.domain["name"],
        "kind": trace.meta.kind,
        "contents": contents,
        "good_for": GOOD_FOR.get(name, ""),
    }


def find(trace: PathLike) -> Path:
    """Find a trace: an existing path, the name of a bundled recording, or a path in `ROOT`.

    Returns
    -------
    Path
        `trace` itself if it exists nowhere.

    Raises
    ------
    UsageError
        If it is no path.
    """
    if not isinstance(trace, str | os.PathLike):
        raise UsageError(f"{reprlib.repr(trace)} is no trace: give a Trace, its path, or its name")
    if Path(trace).exists():
        return Path(trace)
    return bundled(str(trace)) if str(trace) in bundled() else located(trace)


def open_trace(trace: PathLike) -> Trace:
    """Open a trace by path or by name (`find`); errors as of `Trace.open`."""
    from pmlkit.trace.reader import Trace

    path = find(trace)
    if not os.path.lexists(path) and (near := closest(os.fspath(trace), bundled())):
        raise TraceNotFound(trace, f"do you mean the bundled {near!r}?")
    return Trace.open(path)


def opened(trace: Trace | PathLike) -> Trace:
    """Open a path or a name; a trace stays as it is."""
    from pmlkit.trace.reader import Trace

    # A trace is path-like, too. Reopening it would lose its settings, such as phases.
    if isinstance(trace, Trace):
        return trace
    return open_trace(trace)


if __name__ == "__main__":
    print(write(sys.argv[1]))
