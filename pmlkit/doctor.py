# SPDX-License-Identifier: Apache-2.0
"""Check which capabilities of pmlkit work on this machine, and how to add the others.

Checks probe what is needed (an import, a file, an option of QEMU), not the name of the system.
"""

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

from pmlkit import progress, recordings
from pmlkit.errors import PmlkitError, UnknownName
from pmlkit.files import cache_folder
from pmlkit.kvm import bpf, find
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pmlkit.types import Json, PathLike

__all__ = ["CAPABILITIES", "Capability", "examine"]


OK, WARNING, MISSING = "ok", "warning", "missing"
# Import names that differ from the names of the distributions.
IMPORTS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
IMPORTS_S = 60.0  # time limit for all imports
CACHE_GIB = 1.0  # for the unpacked Debian packages of all workloads, with a margin
RESULTS_GIB = 0.2
_INSTALL = "pip install -e ." if recordings.IS_CLONE else "pip install --force-reinstall pmlkit"


@dataclass(frozen=True)
class Check:
    """The result of checking one requirement of a capability.

    Attributes
    ----------
    state : {"ok", "warning", "missing"}
        With a warning the capability still works.
    found : str
        The result of the check, such as a version.
    mend : str
        What to do if the state is not ok; a command if possible.
    root : bool
        Whether `mend` needs root.
    """

    name: str
    purpose: str
    state: str = OK
    found: str = ""
    mend: str = ""
    root: bool = False

    def ok(self, found: str) -> Check:
        return replace(self, state=OK, found=found)

    def warning(self, found: str, mend: str, root: bool = False) -> Check:
        return replace(self, state=WARNING, found=found, mend=mend, root=root)

    def missing(self, found: str, mend: str, root: bool = False) -> Check:
        return replace(self, state=MISSING, found=found, mend=mend, root=root)


def python() -> Check:
    """Report the version of Python (pip has checked it)."""
    return Check("Python", "pmlkit needs 3.11 or later", OK, platform.python_version())


def packages() -> Check:
    """Check that all dependencies of pmlkit can be imported.

    First imports compile and may take minutes: those that are left after `IMPORTS_S` seconds are
    only searched for.
    """
    names = [_distribution(text) for text in _requirements()]
    deadline, broken = time.monotonic() + IMPORTS_S, {}
    for name in names:
        in_time = time.monotonic() < deadline
        if why := _import_problem(name) if in_time else _absence(name):
            broken[name] = why
    result = f"all {len(names)} {'import' if time.monotonic() < deadline else 'are there'}"
    check = Check("Python packages", "the packages that pmlkit needs", OK, result)
    if names and not broken:
        return check
    why = "; ".join(f"{name}: {why}" for name, why in broken.items()) or "pmlkit is not installed"
    return check.missing(why, _INSTALL)


def _requirements() -> list[str]:
    try:
        return [text for text in metadata.requires("pmlkit") or [] if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        return []


def _distribution(requirement: str) -> str:
    """Return the name in a requirement such as ``numpy>=2.0``."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()


def _import_problem(name: str) -> str | None:
    try:
        importlib.import_module(IMPORTS.get(name, name))
    except Exception as error:  # a broken extension module may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _absence(name: str) -> str | None:
    return None if importlib.util.find_spec(IMPORTS.get(name, name)) else "not installed"


def bundled() -> Check:
    """Check that the bundled recordings exist and are unchanged."""
    folder = recordings.ROOT / "data"
    check = Check("recordings", "the demo shows data/")
    checkout = "git checkout -- data; if that changes nothing, git pull"
    mend = checkout if recordings.IS_CLONE else _INSTALL
    try:
        problems = recordings.problems(folder)
        commands = recordings.read(folder).commands
    except PmlkitError as error:
        return check.missing(error.problem, mend)
    if problems or not commands:
        return check.missing((*problems, "the MANIFEST names no recording")[0], mend)
    return check.ok(f"{len(commands)} as their MANIFEST says")


def notebooks() -> Check:
    """Check that the notebooks exist."""
    names = sorted(path.stem for path in (recordings.ROOT / "notebooks").glob("*.ipynb"))
    check = Check("notebooks", "the demo runs them")
    if names:
        return check.ok(", ".join(names))
    return check.missing("none", f"{recordings.CLONE}: git checkout -- notebooks")


def fonts() -> Check:
    """Check that matplotlib has the figures' font."""
    check = Check("font", "the same look of figures everywhere", OK, "DejaVu Sans")
    try:
        from matplotlib.font_manager import findfont

        findfont("DejaVu Sans", fallback_to_default=False)
    except (ImportError, ValueError) as error:
        mend = "pip install --force-reinstall matplotlib"
        return check.warning(str(error).splitlines()[0], mend)
    return check


def program(name: str, package: str, purpose: str) -> Check:
    """Check that a program is on the path."""
    check = Check(name, purpose)
    if path := shutil.which(name):
        return check.ok(path)
    return check.missing("not found", f"apt-get install {package}", root=True)


def optional(name: str, package: str, purpose: str) -> Check:
    """Check for a program that the capability works without."""
    check = program(name, package, purpose)
    return check if check.state == OK else replace(check, state=WARNING)


def static_libc() -> Check:
    """Check that gcc can link statically, as guest programs need."""
    check = Check("static libc", "guest programs are linked statically")
    mend = "apt-get install libc6-dev"
    if not shutil.which("gcc"):
        return check.missing("no gcc", mend, root=True)
    # gcc prints the name as it is if there is no such file.
    path = _run("gcc", "-print-file-name=libc.a").strip()
    if os.path.isabs(path):
        return check.ok(os.path.normpath(path))
    return check.missing("no libc.a", mend, root=True)


def qemu() -> Check:
    """Check that QEMU is installed and supports plugins."""
    from pmlkit.sources.recorder import qemu

    check = Check("QEMU", "emulates the guest")
    mend = "apt-get install qemu-system-x86"
    try:
        version = qemu.version()
    except PmlkitError as error:
        return check.missing(error.problem, mend, root=True)
    if "-plugin" not in _run(qemu.QEMU, "-help"):
        return check.missing(f"{version} without TCG plugins", f"{mend} (Debian's)", root=True)
    return check.ok(f"{version}, with plugins")


def workloads() -> Check:
    """Check that the workloads of guests exist."""
    folder = recordings.ROOT / "experiments" / "workloads"
    descriptions = list(folder.glob("*/workload.yaml"))
    check = Check("workloads", "what guests run")
    if descriptions:
        return check.ok(f"{len(descriptions)}")
    return check.missing("none", f"{recordings.CLONE}: git checkout -- experiments")


def cache() -> Check:
    """Check that the cache is writable and has free space."""
    purpose = "stores the built plugin and downloaded Debian packages"
    return _folder("cache", purpose, cache_folder(), CACHE_GIB, "set PMLKIT_CACHE to a folder")


def results() -> Check:
    """Check that results can be written to the working directory."""
    return _folder(
        "results", "the output folder of the demo", Path("results"), RESULTS_GIB, "work in a folder"
    )


def _folder(name: str, purpose: str, folder: Path, gib: float, mend: str) -> Check:
    """Check that a folder, or its nearest existing parent, is writable and has `gib` GiB free."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    check = Check(name, purpose)
    mend = f"{mend} with {gib:g} GiB free that you may write to"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free / 2**30
    except OSError as error:
        return check.missing(f"{folder}: {error.strerror}", mend)
    space = f"{folder}: {free:.1f} GiB free"
    return check.ok(space) if free >= gib else check.warning(space, mend)


def processor() -> Check:
    """Check that the CPU has PML, which Linux reports on bare metal."""
    flags = _read("/proc/cpuinfo").partition("vmx flags")[2].partition("\n")[0].split()
    check = Check("Intel PML", "the processor logs written pages", OK, "yes")
    if "pml" in flags:
        return check
    result = "not visible: no Intel VT-x here, or hidden by a hypervisor"
    return check.warning(result, "use an Intel server CPU of Broadwell or later, on bare metal")


def dom0() -> Check:
    """Check that this is Xen's control domain."""
    check = Check("Xen dom0", "collects from its guests", OK, "yes")
    if "control_d" in _read("/proc/xen/capabilities"):
        return check
    mend = "apt-get install xen-system-amd64, and reboot into Xen"
    return check.missing("no", mend, root=True)


def lab_build() -> Check:
    """Check for the tools that build Xen; the lab fetches everything else."""
    from pmlkit.sources.lab import xen as lab_xen

    check = Check("build tools", "build the patched Xen and a fast Bochs", OK, "complete")
    try:
        lab_xen.check_tools()
    except PmlkitError as error:
        mend = f"apt-get install g++ {' '.join(lab_xen.PACKAGES)}"
        return check.missing(error.problem, mend, root=True)
    return check


def series() -> Check:
    """Check that the patch series for Xen exists."""
    from pmlkit.sources.lab import xen as lab_xen
    from pmlkit.sources.lab.parts import XEN_VERSION

    check = Check("patch series", "gives access to Xen's PML log")
    try:
        return check.ok(f"{len(lab_xen.hooks())} patches for {XEN_VERSION}")
    except PmlkitError as error:
        return check.missing(
            error.problem, f"{recordings.CLONE}: git checkout -- hypervisor-patches"
        )


def xen_interface() -> Check:
    """Check for the patched Xen's interface to the PML log; without it, there is log-dirty."""
    from pmlkit.xen import pml
    from pmlkit.xen.binding import XenError

    check = Check("Xen's PML log", "which page, in which order, how often", OK, "handed out")
    result = "no: stock log-dirty gives the distinct pages of each round"
    mend = "build and boot the patched Xen: hypervisor-patches/README.md"
    try:
        if pml.available():
            return check
    except XenError as error:
        result = f"no answer from Xen: {error.why}"
    return check.warning(result, mend, root=True)


def xen_tools() -> Check:
    """Check that libxenctrl has the version of the running Xen and the expected layout."""
    from pmlkit.xen.binding import MissingLibrary, XenError, running_version
    from pmlkit.xen.xenctrl import Control

    check = Check("Xen's tools", "stock log-dirty, and the end of a domain")
    try:
        with Control():
            return check.ok(f"libxenctrl of Xen {running_version()}, tested")
    except (MissingLibrary, XenError) as error:
        mend = "in dom0: apt-get install xen-utils (of the running Xen)"
        return check.missing(error.problem, mend, root=True)


# ------------------------------------------------------------------------------
# A KVM host


HOST = Host()  # tests replace it


def kvm() -> Check:
    """Check that KVM is loaded, and which order its log has."""
    check = Check("KVM", "has the log of written pages", OK)
    if not (HOST.root / "dev/kvm").exists():
        return check.missing("no /dev/kvm", "modprobe kvm_intel (or kvm_amd)", root=True)
    modules = [name for name in HOST.parameters() if name != "kvm"]
    order = "newest first" if HOST.version < (6, 14) else "oldest first"
    return check.ok(f"Linux {HOST.release}, {', '.join(modules) or 'kvm'}; drains are {order}")


def kvm_pml() -> Check:
    """Check that KVM uses PML; without, it logs by write faults."""
    check = Check("KVM's PML", "logs 512 pages per exit, not one")
    values = HOST.parameters().get("kvm_intel", {})
    settings = ", ".join(
        f"{name}={values[name]}" for name in ("pml", "ept", "eptad") if name in values
    )
    if HOST.pml():
        return check.ok(settings)
    if not values:
        return check.warning("no kvm_intel", "an Intel server CPU; AMD logs with write faults")
    mend = (
        "modprobe -r kvm_intel && modprobe kvm_intel pml=1 ept=1 eptad=1; is the CPU's PML hidden?"
    )
    return check.warning(settings or "off", mend, root=True)


def kvm_tracing() -> Check:
    """Check that the kernel supports kprobes and permits their use."""
    check = Check("kprobe events", "capture the log in instances of tracefs")
    lockdown = HOST.lockdown()
    if lockdown not in ("", "none"):
        return check.missing(f"the kernel is in lockdown ({lockdown})", "boot without Secure Boot")
    if not os.access(HOST.tracing, os.R_OK | os.X_OK) and HOST.tracing.exists():
        return check.missing("tracefs is not readable", "run it as root", root=True)
    if not (HOST.tracing / "instances").exists():
        mend = "mount -t tracefs nodev /sys/kernel/tracing"
        return check.missing("tracefs is not mounted", mend, root=True)
    if not (HOST.tracing / "kprobe_events").exists():
        mend = "use a kernel with CONFIG_KPROBE_EVENTS, or `pmlkit collect --mode soft-dirty`"
        return check.missing("this kernel has none", mend)
    if HOST.has_symbol("mark_page_dirty_in_slot") is False:
        return check.missing("no mark_page_dirty_in_slot", "modprobe kvm_intel (or kvm_amd)", True)
    return check.ok(f"at {HOST.tracing}")


def kvm_rights() -> Check:
    """Check for the capabilities that a collection needs."""
    check = Check("rights", "read the VMM's memory map, and trace", OK, "all that are required")
    if missing := HOST.missing_capabilities():
        return check.missing(f"without {', '.join(missing)}", "run it as root", root=True)
    return check


def kvm_vms() -> Check:
    """Report the running VMs."""
    check = Check("VMs", "the VMs to be logged")
    vms = [f"{vm.name} ({vm.pid})" for vm in find.running(HOST)] if HOST.proc.exists() else []
    if not vms:
        return check.warning("none is seen", "start one, or run `pmlkit doctor` as root")
    return check.ok(", ".join(vms[:8]))


def kvm_bpf() -> Check:
    """Check that BPF can capture the log, at a lower cost to the guest than ftrace."""
    check = Check("BPF", "captures the log at a lower cost", OK)
    otherwise = "without BPF, `pmlkit collect` uses ftrace"
    if why := bpf.why_not(HOST):
        mend = (
            f"use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES or CONFIG_KPROBE_EVENTS; {otherwise}"
        )
        return check.warning(why, mend)
    try:
        hook = bpf.probe(HOST)
    except NoRight as error:
        return check.warning(error.problem, f"run it as root; {otherwise}", root=True)
    except PmlkitError as error:
        return check.warning(error.problem, otherwise)
    return check.ok(f"at the entry of {bpf.FUNCTION} ({hook})")


def _read(path: PathLike) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _run(*command: str) -> str:
    """Return a program's output; an empty text if it takes too long."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=30
        )
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout


@dataclass(frozen=True)
class Capability:
    """A capability of pmlkit, with the results of its checks."""

    name: str
    purpose: str
    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        return all(check.state != MISSING for check in self.checks)

    def as_dict(self) -> Json:
        """Return the fields and `ready`, for JSON."""
        return {**asdict(self), "ready": self.ready}


def examine(names: Sequence[str] = ()) -> list[Capability]:
    """Check the capabilities with these names (of `CAPABILITIES`), or all.

    Raises
    ------
    UnknownName
    """
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown:
        raise UnknownName("capability", unknown[0], CAPABILITIES)
    chosen = list(dict.fromkeys(names)) or list(CAPABILITIES)
    return [_examine(name) for name in progress.over(chosen, name=str)]


def _examine(name: str) -> Capability:
    purpose, checks = CAPABILITIES[name]
    return Capability(name, purpose, tuple(check() for check in checks))


_BASE = (python, packages)
_FETCHING = (
    partial(program, "apt-get", "apt", "downloads Debian's kernels, programs and sources"),
    partial(program, "dpkg-deb", "dpkg", "unpacks them"),
)
CAPABILITIES: dict[str, tuple[str, tuple[Callable[[], Check], ...]]] = {
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
    "kvm": (
        "collect on a KVM host",
        (
            kvm,
            kvm_pml,
            kvm_tracing,
            kvm_rights,
            kvm_bpf,
            kvm_vms,
            partial(
                optional, "virsh", "libvirt-clients", "switches the logging of libvirt's VMs on"
            ),
            partial(optional, "ssh", "openssh-client", "collects from another host"),
        ),
    ),
}
