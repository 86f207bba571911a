# SPDX-License-Identifier: Apache-2.0
"""The patched Xen: Debian's source with our series of patches, built for each version of both."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, MissingTool, output_error
from pmlkit.files import cache_folder
from pmlkit.recordings import CLONE, PATCHES
from pmlkit.sources.guest.debian_source import fetch_source
from pmlkit.sources.lab.bochs import run_step
from pmlkit.sources.lab.parts import XEN_VERSION, Xen, need, stock_xen, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pmlkit.types import Tell


SERIES = PATCHES / "series"
# Debian's patches that delete the configure scripts, which it generates again. We keep upstream's.
_NOT_APPLIED = ("0001-Delete", "0002-Delete", "0009-autoconf", "prefix-abiname")
_CONFIGURE = [
    "--disable-docs", "--disable-stubdom", "--disable-ocamltools", "--disable-golang",
    "--disable-pygrub", "--disable-qemu-traditional", "--with-system-qemu=/bin/true",
    "--with-system-seabios=/bin/true", "--with-system-ovmf=/bin/true",
    "--with-system-ipxe=/bin/true", "--disable-pvshim", "--disable-rombios", "--disable-systemd",
    "--prefix=/usr", "--libdir=/usr/lib/x86_64-linux-gnu",
]  # fmt: skip
_TOOLS = ("include", "libs", "xl")  # xenstored and xenconsoled are Debian's
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


def patches(series: Path = SERIES) -> list[Path]:
    """Return the series' patches in order.

    Raises
    ------
    GuestError
        If there is no series, or one of its files is missing.
    """
    if not series.exists():
        raise GuestError("there is no patch series for Xen", hint=CLONE)
    lines = [line.partition("#")[0].strip() for line in series.read_text().splitlines()]
    paths = [series.parent / line.split()[0] for line in lines if line]
    for path in paths:
        if not path.is_file():
            raise GuestError(f"the series names {path.name}, and there is no such file")
    return paths


def patched(debug: bool = False, progress: Tell | None = None) -> Xen:
    """Return the patched Xen with its tools, built at the first call (5 minutes on two cores).

    A `debug` build has Xen's assertions (``debug=y``).

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    progress = progress or (lambda _: None)
    series = patches()
    digest = recipe_digest(series)
    folder = cache_folder() / "lab" / f"xen-{digest}"
    name = "xen-debug" if debug else "xen"
    if not (folder / name).exists():
        _build(folder, series, debug, progress)
    stock = stock_xen(progress)
    versions = {"xen": XEN_VERSION, "series": digest}
    tools = folder / "tools"
    return Xen(folder / name, (tools, *stock.roots), versions, f"patched{'-debug' * debug}")


def recipe_digest(series: Iterable[Path]) -> str:
    """Return a hash of the series and of this recipe, which names a build in the cache."""
    parts = [XEN_VERSION, "config", *_CONFIGURE, *_TOOLS, *_NOT_APPLIED]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in series]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def check_tools() -> None:
    """Raise `MissingTool` for the first tool or header that a build needs and is not here."""
    for tool, package in _NEEDED:
        need(tool, package)
    places = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
    for header, package in _HEADERS:
        if not any((place / header).exists() for place in places):
            raise MissingTool(header, package)


def _build(folder: Path, series: Sequence[Path], debug: bool, progress: Tell) -> None:
    check_tools()
    with tempfile.TemporaryDirectory(prefix="pmlkit-xen-") as scratch:
        source = Path(scratch) / "xen"
        source.mkdir()
        fetch_source("xen", XEN_VERSION, source, progress)
        environment = _environment()
        for patch in [*_debian_patches(source), *series]:
            _apply(patch, source, environment)
        progress("building Xen (about 3 minutes)")
        # Xen 4.17 takes debug=y from its configuration only, not from make's command line.
        write(source / "xen" / ".config", f"CONFIG_DEBUG={'y' if debug else 'n'}\n".encode())
        run_step(["make", "-C", "xen", "olddefconfig"], source, environment, "Xen")
        jobs = f"-j{os.cpu_count() or 1}"
        run_step(["make", "-C", "xen", jobs], source, environment, "Xen")
        packed = source / "xen" / "xen"
        write(folder / ("xen-debug" if debug else "xen"), packed.read_bytes())
        if not (folder / "tools").exists():
            _build_tools(source, folder, environment, progress)


def _environment() -> dict[str, str]:
    """Return an environment in which a build has the same result for every user."""
    flags = ("CFLAGS", "LDFLAGS", "MAKEFLAGS")  # Xen's makefiles would use the user's
    environment = {name: value for name, value in os.environ.items() if name not in flags}
    facts = {"XEN_BUILD_DATE": "2025-01-01", "XEN_BUILD_TIME": "00:00:00", "LC_ALL": "C.UTF-8"}
    return environment | facts | {"XEN_WHOAMI": "pmlkit", "XEN_DOMAIN": "lab"}


def _debian_patches(source: Path) -> list[Path]:
    folder = source / "debian" / "patches"
    names = (folder / "series").read_text().split("\n")
    kept = [n.strip() for n in names if n.strip() and not n.startswith(("#", *_NOT_APPLIED))]
    return [folder / name for name in kept]


def _apply(patch: Path, source: Path, environment: Mapping[str, str]) -> None:
    command = ["patch", "-s", "-p1", "--no-backup-if-mismatch", "-i", str(patch)]
    try:
        run_step(command, source, environment, patch.name)
    except GuestError as error:
        raise GuestError(f"{patch.name} does not apply to Xen {XEN_VERSION}") from error


def _build_tools(
    source: Path, folder: Path, environment: Mapping[str, str], progress: Tell
) -> None:
    progress("building Xen's tools (about 2 minutes)")
    fresh = source / "installed"
    run_step(["./configure", *_CONFIGURE], source, environment, "Xen's tools")
    for part in _TOOLS:
        command = ["make", "-C", f"tools/{part}", f"-j{os.cpu_count() or 1}"]
        command += ["install", f"DESTDIR={fresh}"]
        run_step(command, source, environment, f"Xen's tools/{part}")
    for path in [*fresh.rglob("*.a"), *fresh.rglob("*.pc")]:
        path.unlink()
    try:
        shutil.move(fresh, folder / "tools")
    except OSError as error:
        raise output_error(folder, error) from error
