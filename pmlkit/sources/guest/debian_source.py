# SPDX-License-Identifier: Apache-2.0
"""Fetch, verify and unpack Debian's source packages without root.

Like `pmlkit.sources.guest.debian`, with its own lists of sources, derived from the system's.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.sources.guest import debian
from pmlkit.sources.guest.debian import PackageError, sources_list

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping

    from pmlkit.types import PathLike, Tell


_HINT = "check the network, and that /etc/apt names a mirror of Debian"
_SUITES = ("bookworm", "trixie")


def fetch_source(package: str, version: str, target: Path, progress: Tell | None = None) -> None:
    """Fetch a source package and unpack it to an empty folder: the original, then ``debian/``.

    Debian's patches are not applied.

    Raises
    ------
    MissingTool, PackageError, OutputError
    """
    with debian.cache() as folder:
        _update(folder, progress or (lambda _: None))
        digests = _digests(folder, package, version)
        archives = folder / "sources"
        archives.mkdir(exist_ok=True)
        if not all((archives / name).exists() for name in digests):
            _download(folder, package, version, digests, archives)
        _unpack([archives / name for name in digests], target)


def _update(folder: Path, progress: Tell) -> None:
    lists = folder / "source-lists"
    stamp = folder / "source-lists.updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < debian.FRESH_S:
        return
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    progress("fetching Debian's lists of sources")
    _sources_list(folder).write_text(sources_list("deb-src", _SUITES))
    result = _apt(folder, "apt-get", "-qq", "update")
    if not any(lists.glob("*_Sources*")):
        raise PackageError((), debian.complaint(result, "the list of sources is missing"), _HINT)
    stamp.touch()


def _sources_list(folder: Path) -> Path:
    return folder / "source.list"  # outside of source-lists: apt removes unknown files there


def _apt(
    folder: Path, tool: str, *arguments: str, cwd: PathLike | None = None
) -> subprocess.CompletedProcess[str]:
    lists = folder / "source-lists"
    options = {
        "Dir::State::lists": f"{lists}/",
        "Dir::Etc::sourcelist": str(_sources_list(folder)),
        "Dir::Etc::sourceparts": "/dev/null",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return debian.apt(folder, tool, *words, *arguments, cwd=cwd)


def _digests(folder: Path, package: str, version: str) -> dict[str, str]:
    """Return the SHA-256 of a source package's archives by name, from the signed list."""
    stanzas = _apt(folder, "apt-cache", "showsrc", package).stdout
    for stanza in stanzas.split("\n\n"):
        if f"\nVersion: {version}\n" in f"\n{stanza}\n":
            sums = stanza.partition("Checksums-Sha256:")[2]
            rows = re.findall(r"^ ([0-9a-f]{64}) \d+ (\S+)$", sums, re.M)
            return {
                name: digest for digest, name in rows if ".tar." in name and name[-4:] != ".asc"
            }
    why = f"its source {version} is in none of {', '.join(_SUITES)}"
    raise PackageError((package,), why, _HINT)


def _download(
    folder: Path, package: str, version: str, digests: Mapping[str, str], archives: Path
) -> None:
    """Download the archives. A mirror may lack the .dsc: the signed list replaces it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        arguments = ("--download-only", "source", f"{package}={version}")
        result = _apt(folder, "apt-get", "-qq", *arguments, cwd=scratch)
        for name, digest in digests.items():
            path = Path(scratch) / name
            if not path.exists():
                raise PackageError(
                    (name,), debian.complaint(result, "it was not downloaded"), _HINT
                )
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise PackageError(
                    (name,), "its digest differs from the one that Debian signed", "try again"
                )
            path.replace(archives / name)


def _unpack(archives: Iterable[Path], target: Path) -> None:
    """Unpack the originals first, without their top folder, and ``debian/`` over them."""
    for path in sorted(archives, key=lambda path: ".orig.tar." not in path.name):
        with tarfile.open(path) as tar:
            _extract(tar, target, strip=".orig.tar." in path.name)


def _extract(tar: tarfile.TarFile, target: Path, strip: bool) -> None:
    for member in tar:
        parts = Path(member.name).parts[1:] if strip else Path(member.name).parts
        if not parts or ".." in parts:
            continue
        member.name = str(Path(*parts))
        if member.islnk() and strip:
            member.linkname = str(Path(*Path(member.linkname).parts[1:]))
        tar.extract(member, target, set_attrs=True)
