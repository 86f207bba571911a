# SPDX-License-Identifier: Apache-2.0
"""data/MANIFEST: the SHA-256 of every bundled file, and the command that made each recording.

Besides traces there may be folders of tables; what trace.json says of a trace, ``made.json`` says
of them: ``{"created": TIME, "provenance": {"command": ..., "versions": {...}}}``.

`sha256sum -c MANIFEST` reads it, too: what is not a checksum is a comment. ``make manifest`` (or
``python -m pmlkit.bundle data``) writes it anew from what the traces say of themselves.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import NotATrace, PmlkitError
from pmlkit.files import whole

if TYPE_CHECKING:
    from pmlkit.types import Json, PathLike


__all__ = ["NAME", "Manifest", "problems", "read", "write"]

NAME = "MANIFEST"
HEAD = """\
# The bundled recordings: SHA-256 of every file, for `sha256sum -c MANIFEST`, and how each was made.
# Written by `make manifest`.
"""
_DESCRIPTIONS = ("trace.json", "made.json")
_TOOLS = ("linux", "qemu", "xen", "bochs")
_MADE_BY = re.compile(r"# (?P<name>\S+): made by `(?P<command>.*)`(?P<rest>.*)")


@dataclass(frozen=True)
class Manifest:
    """What a MANIFEST says.

    Attributes
    ----------
    sha256 : dict of str to str
        Checksum of each file, by its path relative to the MANIFEST's folder.
    commands : dict of str to str
        The command that made each recording, by the recording's name.
    """

    sha256: Json
    commands: Json


def read(folder: Path) -> Manifest:
    """Read ``folder/MANIFEST``.

    Raises
    ------
    PmlkitError
        If there is none, or a line is neither a comment nor a checksum.
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
            raise PmlkitError(f"line {number} of {path} is no checksum", "run `make manifest`")
    return Manifest(sha256, commands)


def problems(folder: Path) -> list[str]:
    """Compare a folder with its MANIFEST.

    Returns
    -------
    list of str
        What differs, a line each; empty if all is as it was written.
    """
    listed, there = read(folder).sha256, set(_files(folder))
    both = sorted(listed.keys() & there)
    found = [f"{name} is missing" for name in sorted(listed.keys() - there)]
    found += [f"{name} is not in the MANIFEST" for name in sorted(there - listed.keys())]
    return found + [f"{name} has changed" for name in both if _sha256(folder, name) != listed[name]]


def write(folder: PathLike) -> Path:
    """Write ``folder/MANIFEST`` from the traces that are there.

    Returns
    -------
    Path

    Raises
    ------
    NotATrace
        If something is in the folder that does not say how it was made.
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
    found = [Path(folder) / name / file for file in _DESCRIPTIONS]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        why = f"it holds no {' and no '.join(_DESCRIPTIONS)}"
        raise NotATrace(Path(folder) / name, why, "keep only traces and described tables in data/")
    meta = json.loads(path.read_text())
    provenance = meta.get("provenance", {})
    versions = provenance.get("versions", {})
    tools = ", ".join(f"{tool} {versions[tool]}" for tool in _TOOLS if tool in versions)
    made = f"# {name}: made by `{provenance.get('command', '')}`"
    return f"{made} on {meta['created'][:10]} ({tools}; the rest is in {path.name})\n"


def _files(folder: PathLike) -> list[str]:
    """Return the paths of all files below a folder but its MANIFEST, relative, sorted."""
    folder = Path(folder)
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name != NAME)


def _sha256(folder: PathLike, name: str) -> str:
    with open(Path(folder) / name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    print(write(sys.argv[1]))
