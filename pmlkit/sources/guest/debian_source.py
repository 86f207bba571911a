# SPDX-License-Identifier: Apache-2.0
"""Debian's source packages: fetched, verified and unpacked without root.

As `pmlkit.sources.guest.debian`, with lists of sources of its own, made from the system's.
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
from pmlkit.sources.guest.debian import PackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from pmlkit.types import PathLike, Tell


_HINT = "check the network, and that /etc/apt names a mirror of Debian"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SUITES = ("bookworm", "trixie")
_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)\s+\S+\s+.*\bmain\b", re.M)
_APT = Path("/etc/apt")


def fetch_source(
    package: str, version: str, target: Path, progress: Callable[..., Any] | None = None
) -> None:
    """Fetch a source package and unpack it: the original, and ``debian/`` over it.

    Debian's patches are not applied.

    Parameters
    ----------
    package, version : str
    target : Path
        An empty folder.
    progress : callable, optional

    Raises
    ------
    MissingTool, PackageError, OutputError
    """
    with debian._cache((package,)) as folder:
        _update(folder, progress or (lambda _: None))
        wanted = _files(folder, package, version)
        kept = folder / "sources"
        kept.mkdir(exist_ok=True)
        if not all((kept / name).exists() for name in wanted):
            _download(folder, package, version, wanted, kept)
        _unpack(kept, wanted, target)


def mirrors(etc: Path = _APT) -> list[str]:
    """Return the addresses that the system's sources have Debian's main from."""
    found = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += _LINE.findall(path.read_text(errors="replace"))
        elif path.suffix == ".sources":
            found += _from_stanzas(path.read_text(errors="replace"))
    unique = dict.fromkeys(found)
    # The archive itself, and not its security updates, nor foreign archives that have a "main".
    return [u for u in unique if re.search(r"/debian/?$", u)]


def _from_stanzas(text: str) -> Iterator[str]:
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", stanza, re.M))
        if "main" in fields.get("Components", "").split():
            yield from fields.get("URIs", "").split()


def _update(folder: Path, progress: Tell) -> None:
    lists = folder / "source-lists"
    stamp = folder / "source-lists.updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < debian.FRESH_S:
        return
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    progress("fetching Debian's lists of sources")
    signed = f"[signed-by={_KEYRING}] " if Path(_KEYRING).exists() else ""
    lines = [f"deb-src {signed}{uri} {suite} main" for uri in mirrors() for suite in _SUITES]
    _sources_list(folder).write_text("\n".join(lines) + "\n")
    done = _apt(folder, "apt-get", "-qq", "update")
    if not any(lists.glob("*_Sources*")):
        raise PackageError((), debian._complaint(done, "no list of sources came"), _HINT)
    stamp.touch()


def _sources_list(folder: Path) -> Path:
    return folder / "source.list"  # not among the lists: apt removes there what it does not know


def _apt(folder: Path, tool: str, *arguments: str, cwd: PathLike | None = None) -> Any:
    lists = folder / "source-lists"
    options = {
        "Dir::State::lists": f"{lists}/",
        "Dir::Etc::sourcelist": str(_sources_list(folder)),
        "Dir::Etc::sourceparts": "/dev/null",
    }
    told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return debian._apt(folder, tool, *told, *arguments, cwd=cwd)


def _files(folder: Any, package: str, version: str) -> dict[str, str]:
    """Return the archives of a source package and their SHA-256, as the signed list has them."""
    told = _apt(folder, "apt-cache", "showsrc", package).stdout
    for stanza in told.split("\n\n"):
        if f"\nVersion: {version}\n" in f"\n{stanza}\n":
            sums = stanza.partition("Checksums-Sha256:")[2]
            rows = re.findall(r"^ ([0-9a-f]{64}) \d+ (\S+)$", sums, re.M)
            return {
                name: digest for digest, name in rows if ".tar." in name and name[-4:] != ".asc"
            }
    why = f"its source {version} is in none of {', '.join(_SUITES)}"
    raise PackageError((package,), why, _HINT)


def _download(
    folder: Path, package: str, version: str, wanted: Mapping[str, str], kept: Path
) -> None:
    """Download; a mirror may lack the .dsc, which is not needed: the list is signed, too."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        asked = ("--download-only", "source", f"{package}={version}")
        done = _apt(folder, "apt-get", "-qq", *asked, cwd=scratch)
        for name, digest in wanted.items():
            path = Path(scratch) / name
            if not path.exists():
                raise PackageError((name,), debian._complaint(done, "it did not come"), _HINT)
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise PackageError((name,), "it is not what Debian signed", "try again")
            path.replace(kept / name)


def _unpack(kept: Path, wanted: Mapping[str, str], target: Path) -> None:
    originals = [name for name in wanted if ".orig.tar." in name]
    for name in originals:
        with tarfile.open(kept / name) as tar:
            _extract(tar, target, strip=True)
    for name in set(wanted) - set(originals):
        with tarfile.open(kept / name) as tar:
            _extract(tar, target, strip=False)


def _extract(tar: tarfile.TarFile, target: Path, strip: int) -> None:
    for member in tar:
        parts = Path(member.name).parts[1:] if strip else Path(member.name).parts
        if not parts or ".." in parts:
            continue
        member.name = str(Path(*parts))
        if member.islnk() and strip:
            member.linkname = str(Path(*Path(member.linkname).parts[1:]))
        tar.extract(member, target, set_attrs=True)
