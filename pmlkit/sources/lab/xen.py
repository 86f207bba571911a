# SPDX-License-Identifier: Apache-2.0
"""The patched Xen: Debian's source with our series of patches, built for each version of both."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, MissingTool, output_error
from pmlkit.files import cache_folder, scratch_folder
from pmlkit.recordings import CLONE, PATCHES
from pmlkit.sources.guest.debian_source import fetch_source
from pmlkit.sources.lab.bochs import run_step
from pmlkit.sources.lab.parts import XEN_VERSION, Xen, need, stock_xen, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pmlkit.types import Tell


APPLY = PATCHES / "apply"
COMMON = PATCHES / "common"
# Debian's patches that delete the configure scripts, to generate them again. We keep upstream's
# scripts.
_NOT_APPLIED = ("0001-Delete", "0002-Delete", "0009-autoconf", "prefix-abiname")
_CONFIGURE = [
    "--disable-docs", "--disable-stubdom", "--disable-ocamltools", "--disable-golang",
    "--disable-pygrub", "--disable-qemu-traditional", "--with-system-qemu=/bin/true",
    "--with-system-seabios=/bin/true", "--with-system-ovmf=/bin/true",
    "--with-system-ipxe=/bin/true", "--disable-pvshim", "--disable-rombios", "--disable-systemd",
    "--prefix=/usr", "--libdir=/usr/lib/x86_64-linux-gnu",
]  # fmt: skip
_TOOLS = ("include", "libs", "xl")  # without xenstored and xenconsoled, which are Debian's
# Further tools of another version, which use its own interfaces; their folders were renamed.
_MORE_TOOLS = ("xenstored", "xenstore", "xs-clients", "console", "helpers")
_DEBUG = "CONFIG_DEBUG=y\nCONFIG_UBSAN=y\n"
# Builds that differ by Xen's configuration. "preempt": operations of the series are interrupted
# wherever they can be.
_CONFIG = {
    "xen": "CONFIG_DEBUG=n\n",
    "xen-debug": _DEBUG,
    "xen-preempt": f"{_DEBUG}CONFIG_DEBUG_PML_PREEMPT=y\n",
}
_BUILT = ("*.o", "*.a", "*.so", "*.so.*", ".*.d", ".git", ".config*")
_NEEDED = (
    ("gcc", "gcc"),
    ("make", "make"),
    ("patch", "patch"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("iasl", "acpica-tools"),
    ("msgfmt", "gettext"),
    ("pkg-config", "pkg-config"),
    ("python3-config", "python3-dev"),
)
_HEADERS = (
    ("yajl/yajl_parse.h", "libyajl-dev"),
    ("uuid/uuid.h", "uuid-dev"),
    ("zlib.h", "zlib1g-dev"),
    ("ncurses.h", "libncurses-dev"),
)
PACKAGES = tuple(package for _, package in (*_NEEDED, *_HEADERS))


def hooks(version: str = XEN_VERSION) -> list[Path]:
    """Return the patches of existing files of a version of Xen, in order.

    Parameters
    ----------
    version : str
        Such as ``"4.17.5"``.

    Raises
    ------
    GuestError
        If there are none.
    """
    if not APPLY.exists():
        raise GuestError("there is no patch series for Xen", hint=CLONE)
    done = subprocess.run([APPLY, "--hooks", version], capture_output=True, text=True)
    if done.returncode:
        raise _refused(done.stderr)
    return sorted(Path(done.stdout.strip()).glob("*.patch"))


def patched(
    build: str = "release", source: Path | None = None, progress: Tell | None = None
) -> Xen:
    """Return the patched Xen with its tools, built at the first call (5 minutes on two cores).

    Parameters
    ----------
    build : {"release", "debug", "preempt"}
        "debug": with Xen's assertions (``debug=y``) and its sanitizer of undefined behaviour.
        "preempt": the same, and operations of the series are interrupted at each possible point.
    source : Path, optional
        A source tree of Xen: it is copied, and the series is applied unless it is already there.
        Default: Debian's source of `XEN_VERSION`.
    progress : callable, optional

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    return built(Debian() if source is None else Tree(source), build, progress)


def built(tree: Debian | Tree, build: str = "release", progress: Tell | None = None) -> Xen:
    """Return the Xen of a source tree with its tools, as `patched` does.

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    progress = progress or (lambda _: None)
    digest = recipe_digest(tree.identity())
    folder = cache_folder() / "lab" / f"xen-{digest}"
    name = "xen" if build == "release" else f"xen-{build}"
    if not (folder / name).exists():
        _build(folder, name, tree, progress)
    stock = stock_xen(progress)
    versions = {"xen": tree.version, "series": digest}
    tools = folder / "tools"
    kind = "patched" if build == "release" else f"patched-{build}"
    return Xen(folder / name, (tools, *stock.roots), versions, kind)


class Debian:
    """Debian's source of Xen, with Debian's patches: the version that CI builds.

    Parameters
    ----------
    series : bool
        Whether the series is applied. Builds without it, or with one of the other options, are for
        measurements.
    config : str
        Lines that are added to Xen's configuration.
    patches : sequence of Path
        Applied after the series.
    """

    version = XEN_VERSION
    tools = _TOOLS

    def __init__(self, series: bool = True, config: str = "", patches: Sequence[Path] = ()) -> None:
        self.series, self.config, self.patches = series, config, tuple(patches)

    def identity(self) -> list[str]:
        """Return the properties that distinguish this source from others."""
        series = _digests(COMMON, *hooks(), APPLY) if self.series else ["no series"]
        more = [*([self.config] if self.config else []), *_digests(*self.patches)]
        return [XEN_VERSION, *_NOT_APPLIED, *series, *more]

    def unpack(self, where: Path, progress: Tell) -> None:
        """Fetch the source and apply Debian's patches and the series."""
        fetch_source("xen", XEN_VERSION, where, progress)
        for patch in _debian_patches(where):
            _patch(where, patch)
        if self.series:
            _apply(where)
        for patch in self.patches:
            _patch(where, patch)


class Tree:
    """A user's source tree of Xen, which stays unchanged.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    GuestError
        If it is not one.
    """

    tools = (*_TOOLS, *_MORE_TOOLS)
    config = ""

    def __init__(self, folder: Path) -> None:
        makefile = folder / "xen" / "Makefile"
        if not makefile.is_file():
            raise GuestError(f"{folder} is not a source tree of Xen: it has no xen/Makefile")
        self.folder = folder
        self.has_series = (folder / "xen/arch/x86/mm/pml").is_dir()
        self.version = _version(makefile.read_text())

    def identity(self) -> list[str]:
        """Return the digest of all files of the tree, which identifies it."""
        # With their paths, because many files of a tree have the same name.
        files = {name: self.folder / name for name in self._files()}
        parts = [f"{name} {_digest(path)}" for name, path in files.items() if path.is_file()]
        if not self.has_series:
            parts += _digests(COMMON, *hooks(self.version), APPLY)
        return [self.version, *parts]

    def unpack(self, where: Path, progress: Tell) -> None:
        """Copy the tree without its build results, and apply the series if it lacks it."""
        progress(f"copying Xen {self.version}")
        for name in self._files():
            if (self.folder / name).is_symlink() or (self.folder / name).is_file():
                (where / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / name, where / name, follow_symlinks=False)
        if not self.has_series:
            _apply(where)

    def _files(self) -> list[str]:
        """List the files: for a checkout by git, so that build results are excluded."""
        if (self.folder / ".git").exists():
            command = ["git", "-C", str(self.folder), "ls-files", "-z", "-co", "--exclude-standard"]
            listed = subprocess.run(command, capture_output=True, text=True)
            if listed.returncode == 0:
                return sorted({name for name in listed.stdout.split("\0") if name})
        names = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        return sorted(str(n) for n in names if not any(n.match(built) for built in _BUILT))


def _version(makefile: str) -> str:
    """Return the version that xen/Makefile states, such as ``"4.20.4"``."""
    stated = {}
    for name in ("XEN_VERSION", "XEN_SUBVERSION", "XEN_EXTRAVERSION"):
        match = re.search(rf"^(?:export )?{name}\s*[?:]?=\s*([^\s$]*)", makefile, re.M)
        stated[name] = match[1] if match else ""
    version, subversion, extra = stated.values()
    return f"{version}.{subversion}{extra}"


def recipe_digest(parts: Iterable[str]) -> str:
    """Return the name of a build in the cache: a hash of the source and of this recipe."""
    recipe = ["config", *_CONFIG.values(), *_CONFIGURE, *_TOOLS, *_MORE_TOOLS, *parts]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:16]


def _digests(*paths: Path) -> list[str]:
    """Hash files, and all files of folders, each with its name."""
    digests = []
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digests.append(f"{file.name} {_digest(file)}")
    return digests


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_tools() -> None:
    """Raise `MissingTool` for the first missing tool or header that a build needs."""
    for tool, package in _NEEDED:
        need(tool, package)
    places = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
    for header, package in _HEADERS:
        if not any((place / header).exists() for place in places):
            raise MissingTool(header, package)


def _build(folder: Path, name: str, tree: Debian | Tree, progress: Tell) -> None:
    check_tools()
    with scratch_folder("pmlkit-xen-") as scratch:
        source = Path(scratch) / "xen"
        source.mkdir()
        environment = _environment()
        tree.unpack(source, progress)
        if not (source / "configure").exists():
            raise GuestError("the source of Xen has no configure", hint="run ./autogen.sh in it")
        progress(f"building Xen {tree.version} (about 3 minutes)")
        # Xen takes debug=y from its configuration only, not from make's command line.
        write(source / "xen" / ".config", (_CONFIG[name] + tree.config).encode())
        run_step(["make", "-C", "xen", "olddefconfig"], source, environment, "Xen")
        jobs = f"-j{os.cpu_count() or 1}"
        run_step(["make", "-C", "xen", jobs], source, environment, "Xen")
        packed = source / "xen" / "xen"
        write(folder / name, packed.read_bytes())
        if not (folder / "tools").exists():
            _build_tools(source, folder, tree.tools, progress)


def _apply(tree: Path) -> None:
    done = subprocess.run([APPLY, tree], env=_environment(), capture_output=True, text=True)
    if done.returncode:
        raise _refused(done.stderr)


def _refused(output: str) -> GuestError:
    """Return the error from the last line of `apply`: the fault, and perhaps the choices."""
    last_line = output.strip().splitlines()[-1].removeprefix("apply: ")
    problem, _, hint = last_line.partition("; ")
    return GuestError(problem, hint=hint) if hint else GuestError(problem)


def _patch(where: Path, patch: Path) -> None:
    command = ["patch", "-s", "-p1", "--no-backup-if-mismatch", "-i", str(patch.absolute())]
    run_step(command, where, _environment(), patch.name)


def _environment() -> dict[str, str]:
    """Return an environment in which a build has the same result for every user."""
    flags = ("CFLAGS", "LDFLAGS", "MAKEFLAGS")  # Xen's makefiles would use the user's variables
    environment = {name: value for name, value in os.environ.items() if name not in flags}
    facts = {"XEN_BUILD_DATE": "2025-01-01", "XEN_BUILD_TIME": "00:00:00", "LC_ALL": "C.UTF-8"}
    return environment | facts | {"XEN_WHOAMI": "pmlkit", "XEN_DOMAIN": "lab"}


def _debian_patches(source: Path) -> list[Path]:
    folder = source / "debian" / "patches"
    names = (folder / "series").read_text().split("\n")
    kept = [n.strip() for n in names if n.strip() and not n.startswith(("#", *_NOT_APPLIED))]
    return [folder / name for name in kept]


def _build_tools(source: Path, folder: Path, tools: Iterable[str], progress: Tell) -> None:
    progress("building Xen's tools (about 2 minutes)")
    fresh = source / "installed"
    environment = _environment()
    run_step(["./configure", *_CONFIGURE], source, environment, "Xen's tools")
    for part in tools:
        if not (source / "tools" / part).is_dir():
            continue
        command = ["make", "-C", f"tools/{part}", f"-j{os.cpu_count() or 1}"]
        command += ["install", f"DESTDIR={fresh}"]
        run_step(command, source, environment, f"Xen's tools/{part}")
    for path in [*fresh.rglob("*.a"), *fresh.rglob("*.pc")]:
        path.unlink()
    try:
        shutil.move(fresh, folder / "tools")
    except OSError as error:
        raise output_error(folder, error) from error
