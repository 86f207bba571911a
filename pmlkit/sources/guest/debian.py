# SPDX-License-Identifier: Apache-2.0
"""Fetch Debian packages and unpack them into a cache, without installing them and without root.

apt gets its own state, cache and empty package database. It reads the system's sources and keys,
and does not change the system. Packages of another release than the system's come from the same
mirrors, into a separate cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pmlkit.errors import GuestError, MissingTool, PmlkitError, output_error
from pmlkit.files import cache_folder
from pmlkit.progress import over, task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pmlkit.types import Json, PathLike, Tell


FRESH_S = 24 * 3600  # lifetime of the lists of packages, and of resolutions from them
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_APT = Path("/etc/apt")
_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)\s+\S+\s+.*\bmain\b", re.M)
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>(?P<name>[^_ ]+)_(?P<version>[^_ ]+)_\S+\.deb) ")
_CONFIG = """\
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""
_OF_RELEASE = """\
Dir::Etc::sourcelist "{folder}/release.list";
Dir::Etc::sourceparts "/dev/null";
"""


class PackageError(GuestError):
    """Debian packages cannot be fetched. Attributes: `packages` (tuple of str), `why`."""

    def __init__(
        self,
        packages: Iterable[str],
        why: str,
        hint: str = "check the network and /etc/apt/sources.list",
    ) -> None:
        self.packages = tuple(packages)
        self.why, self.console_tail = why, ""
        names = ", ".join(self.packages) or "the lists of packages"
        PmlkitError.__init__(self, f"Debian's {names} is not available ({why})", hint)


@dataclass(frozen=True)
class Packages:
    """Unpacked packages.

    Attributes
    ----------
    root : Path
        The folder that contains their files as in ``/``. It is shared: only read it.
    versions : dict of str to str
        Version of each package, dependencies included.
    """

    root: Path
    versions: Json


@dataclass(frozen=True)
class _Deb:
    name: str
    version: str
    file: str


def fetch(
    packages: Iterable[str],
    progress: Tell | None = None,
    dependencies: bool = True,
    skip: Iterable[str] = (),
    release: str = "",
) -> Packages:
    """Fetch and unpack packages with their dependencies.

    Parameters
    ----------
    packages : sequence of str
        Names as apt knows them.
    progress : callable, optional
        Called with a line of text before each slow step.
    dependencies : bool
        False: only these packages.
    skip : collection of str
        Dependencies to leave out.
    release : str
        Debian's release, such as ``"trixie"``; default: the system's sources.

    Returns
    -------
    Packages
        From the cache if they were fetched within a day, or without a network.

    Raises
    ------
    MissingTool
        If apt or dpkg is not installed.
    PackageError
        If a package is unknown or cannot be downloaded.
    OutputError
        If the cache cannot be written.
    """
    names = tuple(sorted(set(packages)))
    progress = progress or (lambda _: None)
    with cache(release) as folder:
        note = folder / "resolved" / f"{_digest(names, dependencies, sorted(skip))}.json"
        known = _remembered(folder, note)
        if known and time.time() - note.stat().st_mtime < FRESH_S:
            return known
        try:
            fetched = _fetch(folder, names, dependencies, skip, progress)
        except PackageError:
            if not known:
                raise
            return known  # older than a day, but available offline
        note.parent.mkdir(exist_ok=True)
        content = {"root": fetched.root.parent.name, "versions": fetched.versions}
        note.write_text(json.dumps(content))
        return fetched


def dependency(package: str, pattern: str, progress: Tell | None = None, release: str = "") -> str:
    """Return the first dependency of a package whose name matches a regular expression.

    Debian's ``linux-image-cloud-amd64`` is empty and depends on the current kernel; the
    parameters and errors are those of `fetch`.
    """
    with cache(release) as folder:
        _update(folder, progress or (lambda _: None))
        record = apt(folder, "apt-cache", "show", "--no-all-versions", package).stdout
    depends = " ".join(line for line in record.splitlines() if line.startswith("Depends:"))
    match = re.search(rf"(?<![\w.+-]){pattern}(?![\w.+-])", depends)
    if not match:
        why = (
            "it is not in the system's sources"
            if not record
            else f"it does not depend on {pattern}"
        )
        raise PackageError((package,), why, "add Debian 12's main to /etc/apt/sources.list")
    return match[0]


@contextmanager
def cache(release: str = "") -> Iterator[Path]:
    """Yield the folder of a release's cache, locked against other processes."""
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if not shutil.which(tool):
            raise MissingTool(tool, package)
    folder = cache_folder() / (f"debian-{release}" if release else "debian")
    try:
        for part in ("state/lists/partial", "cache/archives/partial", "archives", "roots"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "state" / "status").touch()
        config = _CONFIG.format(state=folder / "state", cache=folder / "cache")
        if release:
            (folder / "release.list").write_text(sources_list("deb", [release]))
            config += _OF_RELEASE.format(folder=folder)
        (folder / "apt.conf").write_text(config)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    except OSError as error:
        raise output_error(folder, error) from error


def mirrors(etc: Path = _APT) -> list[str]:
    """Return the URIs of Debian's main in the system's sources."""
    uris = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            uris += _LINE.findall(path.read_text(errors="replace"))
        elif path.suffix == ".sources":
            uris += _uris(path.read_text(errors="replace"))
    # Only the archive itself: no security updates, no third-party archives with a "main".
    return [uri for uri in dict.fromkeys(uris) if re.search(r"/debian/?$", uri)]


def _uris(text: str) -> Iterator[str]:
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", stanza, re.M))
        if "main" in fields.get("Components", "").split():
            yield from fields.get("URIs", "").split()


def sources_list(kind: str, releases: Iterable[str]) -> str:
    """Return a list of sources: Debian's main from the system's mirrors.

    Parameters
    ----------
    kind : {"deb", "deb-src"}
    """
    signed = f"[signed-by={_KEYRING}] " if Path(_KEYRING).exists() else ""
    lines = [f"{kind} {signed}{uri} {name} main" for uri in mirrors() for name in releases]
    return "\n".join(lines) + "\n"


def _remembered(folder: Path, note: Path) -> Packages | None:
    """Return the packages in an earlier call's note, if their files are still there."""
    try:
        content = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):  # ValueError: a write that was cut off
        return None
    root = folder / "roots" / content["root"] / "root"
    return Packages(root, content["versions"]) if root.is_dir() else None


def _fetch(
    folder: Path,
    names: Sequence[str],
    dependencies: bool,
    skip: Iterable[str],
    progress: Tell,
) -> Packages:
    try:
        return _fetch_listed(folder, names, dependencies, skip, progress)
    except PackageError:
        # Debian may have replaced a package since the lists were fetched: try once with new ones.
        if not _expire_lists(folder):
            raise
        return _fetch_listed(folder, names, dependencies, skip, progress)


def _fetch_listed(
    folder: Path,
    names: Sequence[str],
    dependencies: bool,
    skip: Iterable[str],
    progress: Tell,
) -> Packages:
    _update(folder, progress)
    debs = [deb for deb in _resolve(folder, names, dependencies) if deb.name not in skip]
    root = folder / "roots" / _digest(sorted(deb.file for deb in debs)) / "root"
    if not root.is_dir():
        _download(folder, debs, progress)
        _unpack(folder, debs, root, progress)
    return Packages(root, {deb.name: deb.version for deb in debs})


def _expire_lists(folder: Path) -> bool:
    """Mark lists older than ten minutes as expired; return whether there are any."""
    stamp = folder / "state" / "updated"
    old = stamp.exists() and time.time() - stamp.stat().st_mtime > 600
    if old:
        stamp.unlink()
    return old


def _update(folder: Path, progress: Tell) -> None:
    """Fetch the lists of packages if they are older than a day; offline, keep the old ones."""
    stamp = folder / "state" / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_S:
        return
    progress("fetching Debian's lists of packages")
    result = apt(folder, "apt-get", "-qq", "update")
    # A third-party source may fail if at least one list exists.
    if any((folder / "state" / "lists").glob("*_Packages*")):
        if not result.returncode:
            stamp.touch()
        return
    raise PackageError((), complaint(result, "no list was fetched"))


def _resolve(folder: Path, names: Sequence[str], dependencies: bool) -> list[_Deb]:
    """Ask apt which files it would download."""
    verb = "install" if dependencies else "download"
    result = apt(folder, "apt-get", "-qq", "--print-uris", verb, "--", *names)
    if result.returncode:
        hint = "check the packages' names (`apt-cache policy NAME`)"
        raise PackageError(names, complaint(result, "apt refused"), hint)
    matches = map(_URI.match, result.stdout.splitlines())
    return [_Deb(m["name"], unquote(m["version"]), m["file"]) for m in matches if m]


def _download(folder: Path, debs: Iterable[_Deb], progress: Tell) -> None:
    """Download missing files; apt verifies them against the signed lists."""
    missing = [deb for deb in debs if not (folder / "archives" / deb.file).exists()]
    if not missing:
        return
    progress(f"fetching {len(missing)} Debian packages")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = [f"{deb.name}={deb.version}" for deb in missing]
        with task(f"fetching {len(missing)} Debian packages"):
            result = apt(folder, "apt-get", "-qq", "download", "--", *wanted, cwd=scratch)
        if result.returncode:
            raise PackageError([deb.name for deb in missing], complaint(result, "apt failed"))
        for path in Path(scratch).iterdir():
            path.replace(folder / "archives" / path.name)


def _unpack(folder: Path, debs: Sequence[_Deb], root: Path, progress: Tell) -> None:
    progress(f"unpacking {len(debs)} Debian packages")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / "new" / "root"
        fresh.mkdir(parents=True)
        for deb in over(debs, "unpacking", lambda deb: deb.name):
            archive = folder / "archives" / deb.file
            result = _run(["dpkg-deb", "-x", str(archive), str(fresh)])
            if result.returncode:
                archive.unlink()  # damaged: the next call downloads it again
                why = complaint(result, "dpkg-deb failed")
                raise PackageError((deb.name,), why, "try again: it is downloaded again")
        fresh.parent.replace(root.parent)


def apt(
    folder: Path, tool: str, *arguments: str, cwd: PathLike | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of apt with the settings of a cache's folder."""
    return _run([tool, "-c", str(folder / "apt.conf"), *arguments], cwd)


def _run(command: Sequence[str], cwd: PathLike | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def complaint(result: subprocess.CompletedProcess[str], otherwise: str) -> str:
    """Return the first error of a program's output."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg-deb:"))]
    return lines[0].removeprefix("E:").strip() if lines else otherwise


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
