# SPDX-License-Identifier: Apache-2.0
"""What this machine can do with pmlkit, and what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import recordings
from pmlkit.errors import PmlkitError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pmlkit.types import Json, PathLike

__all__ = ["CAPABILITIES", "Capability", "examine"]


# ------------------------------------------------------------------------------
# The checks of `pmlkit.doctor`: each probes one thing and says what would mend it.
#
# They probe what is needed (can it be imported, does the file exist, has QEMU the option), not what
# the machine calls itself.


OK, WARNING, MISSING = "ok", "warning", "missing"
# Import names, where they differ from the names that pip installs.
IMPORTS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
IMPORTS_S = 60.0  # for all of them
CACHE_GIB = 1.0  # the Debian packages of every workload, unpacked, with room to spare
RESULTS_GIB = 0.2
_INSTALL = "pip install -e ." if recordings.IS_CLONE else "pip install --force-reinstall pmlkit"


@dataclass(frozen=True)
class Check:
    """One thing that a capability needs.

    Attributes
    ----------
    name, purpose : str
        What it is, and what it is for.
    state : {"ok", "warning", "missing"}
        A warning does not keep the capability from working.
    found : str
        What was found.
    mend : str
        What to do if it is not ok; a command where there is one.
    root : bool
        Whether that needs root.
    """

    name: str
    purpose: str
    state: str
    found: str
    mend: str = ""
    root: bool = False


def python() -> Check:
    """Say which Python this is (pip has seen to its version)."""
    return Check("Python", "3.11 or later runs pmlkit", OK, platform.python_version())


def packages() -> Check:
    """Check that every dependency that pmlkit declares can be imported.

    A first import compiles, and on a busy machine all of them take minutes: what is left after
    `IMPORTS_S` seconds is only looked for.
    """
    names = [_distribution(text) for text in _requirements()]
    until, broken = time.monotonic() + IMPORTS_S, {}
    for name in names:
        in_time = time.monotonic() < until
        if why := _import_problem(name) if in_time else _absence(name):
            broken[name] = why
    said = f"all {len(names)} {'import' if time.monotonic() < until else 'are there'}"
    check = Check("Python packages", "what pmlkit stands on", OK, said)
    if names and not broken:
        return check
    why = "; ".join(f"{name}: {why}" for name, why in broken.items()) or "pmlkit is not installed"
    return replace(check, state=MISSING, found=why, mend=_INSTALL)


def _requirements() -> list[str]:
    try:
        return [text for text in metadata.requires("pmlkit") or [] if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        return []


def _distribution(requirement: str) -> str:
    """Take the name off a requirement such as ``numpy>=2.0``."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()  # type: ignore[index]


def _import_problem(name: str) -> str | None:
    try:
        importlib.import_module(IMPORTS.get(name, name))
    except Exception as error:  # a broken extension module may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _absence(name: str) -> str | None:
    return None if importlib.util.find_spec(IMPORTS.get(name, name)) else "not installed"


def bundled() -> Check:
    """Check that the bundled recordings are there and as they were recorded."""
    folder = _project() / "data"
    check = Check("recordings", "the demo shows data/", OK, "")
    mend = "git checkout -- data" if recordings.IS_CLONE else _INSTALL
    try:
        found = recordings.problems(folder)
        commands = recordings.read(folder).commands
    except PmlkitError as error:
        return replace(check, state=MISSING, found=error.problem, mend=mend)
    if found or not commands:
        what = found[0] if found else "the MANIFEST names no recording"
        return replace(check, state=MISSING, found=what, mend=mend)
    return replace(check, found=f"{len(commands)} as their MANIFEST says")


def notebooks() -> Check:
    """Check that the notebooks are there."""
    found = sorted(path.stem for path in (_project() / "notebooks").glob("*.ipynb"))
    check = Check("notebooks", "the demo runs them", OK, ", ".join(found))
    if found:
        return check
    mend = f"{recordings.CLONE}: git checkout -- notebooks"
    return replace(check, state=MISSING, found="none", mend=mend)


def fonts() -> Check:
    """Check that matplotlib has the figures' font."""
    check = Check("font", "figures look the same everywhere", OK, "DejaVu Sans")
    try:
        from matplotlib.font_manager import findfont

        findfont("DejaVu Sans", fallback_to_default=False)
    except (ImportError, ValueError) as error:
        mend = "pip install --force-reinstall matplotlib"
        return replace(check, state=WARNING, found=str(error).splitlines()[0], mend=mend)
    return check


def program(name: str, package: str, purpose: str) -> Check:
    """Check that a program is on the path."""
    where = shutil.which(name)
    if where:
        return Check(name, purpose, OK, where)
    return Check(name, purpose, MISSING, "not found", f"apt-get install {package}", root=True)


def optional(name: str, package: str, purpose: str) -> Check:
    """Check a program without which the rest works."""
    found = program(name, package, purpose)
    return found if found.state == OK else replace(found, state=WARNING)


def static_libc() -> Check:
    """Check that gcc can link statically: guest programs run without any library."""
    check = Check("static libc", "guest programs are linked statically", OK, "")
    mend = "apt-get install libc6-dev"
    if not shutil.which("gcc"):
        return replace(check, state=MISSING, found="no gcc", mend=mend, root=True)
    where = _run("gcc", "-print-file-name=libc.a").strip()
    if os.path.isabs(where):
        return replace(check, found=os.path.normpath(where))
    return replace(check, state=MISSING, found="no libc.a", mend=mend, root=True)


def qemu() -> Check:
    """Check QEMU's version and that it takes plugins."""
    from pmlkit.sources.recorder import qemu

    check = Check("QEMU", "emulates the guest", OK, "")
    mend = "apt-get install qemu-system-x86"
    try:
        version = qemu.version()
    except PmlkitError as error:
        return replace(check, state=MISSING, found=error.problem, mend=mend, root=True)
    if "-plugin" not in _run(qemu.QEMU, "-help"):
        found = f"{version} without TCG plugins"
        return replace(check, state=MISSING, found=found, mend=f"{mend} (Debian's)", root=True)
    return replace(check, found=f"{version}, with plugins")


def workloads() -> Check:
    """Check that the guests' programs are there."""
    found = list((_project() / "experiments" / "workloads").glob("*/workload.yaml"))
    check = Check("workloads", "what guests run", OK, f"{len(found)}")
    if found:
        return check
    mend = f"{recordings.CLONE}: git checkout -- experiments"
    return replace(check, state=MISSING, found="none", mend=mend)


def cache() -> Check:
    """Check that the cache can be written and has room."""
    from pmlkit.files import cache_folder

    purpose = "keeps the built plugin and fetched Debian packages"
    return _folder("cache", purpose, cache_folder(), CACHE_GIB, "set PMLKIT_CACHE to a folder")


def results() -> Check:
    """Check that results can be written here."""
    return _folder(
        "results", "what the demo writes", Path("results"), RESULTS_GIB, "go to a folder"
    )


def _folder(name: str, purpose: str, folder: Path, gib: float, mend: str) -> Check:
    """Check that a folder, or the nearest one above it, can be written and has `gib` free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    check = Check(name, purpose, OK, "", f"{mend} with {gib:g} GiB free that you may write to")
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / 2**30
    except OSError as error:
        return replace(check, state=MISSING, found=f"{folder}: {error.strerror}")
    if free < gib:
        return replace(check, state=WARNING, found=f"{folder}: {free:.1f} GiB free")
    return replace(check, found=f"{folder}: {free:.1f} GiB free", mend="")


def processor() -> Check:
    """Check that the CPU has PML (a Linux kernel on bare metal says so)."""
    flags = _read("/proc/cpuinfo").partition("vmx flags")[2].partition("\n")[0].split()
    check = Check("Intel PML", "the processor logs written pages", OK, "yes")
    if "pml" in flags:
        return check
    found = "not to be seen: no Intel VT-x here, or hidden by a hypervisor"
    mend = "use an Intel server CPU of Broadwell or later, on bare metal"
    return replace(check, state=WARNING, found=found, mend=mend)


def dom0() -> Check:
    """Check that this is Xen's control domain."""
    check = Check("Xen dom0", "collects from its guests", OK, "yes")
    if "control_d" in _read("/proc/xen/capabilities"):
        return check
    mend = "apt-get install xen-system-amd64, and reboot into Xen"
    return replace(check, state=MISSING, found="no", mend=mend, root=True)


def lab_build() -> Check:
    """Check that Xen can be built: the lab fetches the rest itself."""
    from pmlkit.sources.lab import xen as lab_xen

    check = Check("build tools", "build the patched Xen and a fast Bochs", OK, "complete")
    try:
        lab_xen.check_tools()
    except PmlkitError as error:
        mend = f"apt-get install g++ {' '.join(lab_xen.PACKAGES)}"
        return replace(check, state=MISSING, found=error.problem, mend=mend, root=True)
    return check


def series() -> Check:
    """Check that the patch series is there."""
    from pmlkit.sources.lab import xen as lab_xen

    check = Check("patch series", "makes Xen hand out its PML log", OK, "")
    try:
        return replace(check, found=f"{len(lab_xen.patches())} patches for {lab_xen.XEN_VERSION}")  # type: ignore[attr-defined]
    except PmlkitError as error:
        mend = f"{recordings.CLONE}: git checkout -- hypervisor-patches"
        return replace(check, state=MISSING, found=error.problem, mend=mend)


def xen_interface() -> Check:
    """Check that Xen hands out its PML log; stock log-dirty does on any other."""
    from pmlkit.xen import pml
    from pmlkit.xen.binding import XenError

    check = Check("Xen's PML log", "which page, in which order, how often", OK, "handed out")
    found = "no: stock log-dirty gives the distinct pages of each round"
    mend = "build and boot the patched Xen: hypervisor-patches/README.md"
    try:
        if pml.available():
            return check
    except XenError as error:
        found = f"cannot be asked: {error.why}"
    return replace(check, state=WARNING, found=found, mend=mend, root=True)


def xen_tools() -> Check:
    """Check that libxenctrl is there, of this Xen's version, and laid out as we know it."""
    from pmlkit.xen.binding import MissingLibrary, XenError
    from pmlkit.xen.xenctrl import Control, running_version

    check = Check("Xen's tools", "stock log-dirty, and what becomes of a domain", OK, "")
    try:
        with Control():
            return replace(check, found=f"libxenctrl of Xen {running_version()}, tested")
    except (MissingLibrary, XenError) as error:
        mend = "in dom0: apt-get install xen-utils (of the Xen that runs)"
        return replace(check, state=MISSING, found=error.problem, mend=mend, root=True)


def _project() -> Path:
    """The folder that holds data/, notebooks/ and experiments/."""
    return recordings.ROOT


def _read(path: PathLike) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _run(*command: object) -> str:
    """Return what a program prints; nothing if it takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30)  # type: ignore[arg-type]
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


@dataclass(frozen=True)
class Capability:
    """Something that pmlkit can do where all its checks hold.

    Attributes
    ----------
    name, purpose : str
    checks : tuple of Check
    """

    name: str
    purpose: str
    checks: tuple[Any, ...]

    @property
    def ready(self) -> bool:
        return all(check.state != MISSING for check in self.checks)

    def as_dict(self) -> Json:
        """Return the fields and `ready`, for JSON."""
        return {**asdict(self), "ready": self.ready}


def examine(names: Sequence[Any] = ()) -> list[Capability]:
    """Check capabilities.

    Parameters
    ----------
    names : sequence of str
        Of `CAPABILITIES`; none: all.

    Returns
    -------
    list of Capability

    Raises
    ------
    UsageError
        If a name is not known.
    """
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown:
        raise UnknownName("capability", unknown[0], CAPABILITIES)
    chosen = list(dict.fromkeys(names)) or list(CAPABILITIES)
    return [_examine(name, *CAPABILITIES[name]) for name in chosen]


def _examine(name: str, purpose: str, probes: Iterable[Callable[[], Check]]) -> Capability:
    return Capability(name, purpose, tuple(check() for check in probes))


_BASE = (python, packages)
_FETCHING = (
    partial(program, "apt-get", "apt", "fetches Debian's kernels, programs and sources"),
    partial(program, "dpkg-deb", "dpkg", "unpacks them"),
)
CAPABILITIES = {
    "demo": (
        "notebooks on the bundled recordings",
        (*_BASE, bundled, notebooks, fonts, results),
    ),
    "recorder": (
        "record a real Linux guest under QEMU",
        (
            *_BASE,
            partial(program, "gcc", "gcc", "builds the recorder's plugin and guest programs"),
            static_libc,
            qemu,
            *_FETCHING,
            workloads,
            cache,
        ),
    ),
    "lab": (
        "patched Xen on an emulated PML",
        (*_BASE, series, lab_build, *_FETCHING, cache),
    ),
    "xen": (
        "collect on a Xen host",
        (
            dom0,
            xen_tools,
            xen_interface,
            processor,
            partial(optional, "ssh", "openssh-client", "collects from another dom0"),
        ),
    ),
}
