# SPDX-License-Identifier: Apache-2.0
"""A Xen for tests: real code reads and writes the rings, a folder stands for the hypervisor.

The library's reader and Xen's writer are those of the series, compiled; what would
make hypercalls is `tests/xen/fake`.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "tests" / "xen" / "fake"
COMMON = ROOT / "hypervisor-patches" / "common"
RUNNING, PAUSED, SHUTDOWN, DYING = 0x22, 0x2A, 0x06, 0x03
CRASHED, SUSPENDED = SHUTDOWN | 3 << 16, SHUTDOWN | 2 << 16
UUID = "0f0e0d0c-0000-4000-8000-000000000001"


def build(folder, old=False):
    """Compile the libraries into a folder; returns it. `old`: a libxenctrl before Xen 4.16."""
    folder.mkdir(parents=True)
    work = folder / "work"
    work.mkdir()
    (work / "include" / "xen").mkdir(parents=True)
    public = (COMMON / "xen/include/public/pml.h").read_text()
    (work / "include/xen/pml.h").write_text(public)
    flags = ["-O2", "-shared", "-fPIC", "-std=gnu11", "-pthread", f"-I{SOURCES}"]
    ring, reader = COMMON / "xen/arch/x86/mm/pml/ring.c", COMMON / "tools/libs/pml/log.c"
    parts = ["-include", str(COMMON / "tools/tests/pml/harness.h"), f"-I{work}/include"]
    parts += [
        "-iquote",
        str(reader.parent),
        "-iquote",
        str(ring.parent),
        f"-I{COMMON}/tools/include",
    ]
    sources = [str(SOURCES / "xenpml.c"), str(ring), str(reader)]
    _run("gcc", *flags, *parts, "-o", str(folder / "libxenpml.so.1"), *sources)
    told = ["-DOLD"] if old else []
    control, store = folder / "libxenctrl.so.4.17", folder / "libxenstore.so.4"
    _run("gcc", *flags, *told, "-o", str(control), str(SOURCES / "xenctrl.c"))
    _run("gcc", *flags, "-o", str(store), str(SOURCES / "xenstore.c"))
    return folder


def _run(*command, **options):
    subprocess.run(command, check=True, capture_output=True, text=True, **options)


@dataclass(frozen=True)
class FakeXen:
    """A folder that stands for a host with domains.

    Attributes
    ----------
    libraries, folder : Path
    """

    libraries: Path
    folder: Path

    def domains(self, *rows):
        """Say which domains there are: (domid, name, flags) each, domain 0 beside them."""
        told = [(0, "Domain-0", RUNNING), *rows]
        text = "".join(f"{d} {name} {UUID[:-2]}{d:02} {flags:x}\n" for d, name, flags in told)
        partial = self.folder / "domains.partial"
        partial.write_text(text)
        partial.rename(self.folder / "domains")

    def log_dirty(self, domid=5):
        """Whether a domain's log-dirty mode is on."""
        return (self.folder / f"logdirty-{domid}").exists()

    def set_log_dirty(self, domid=5):
        (self.folder / f"logdirty-{domid}").touch()

    def environment(self, **more):
        """Return the variables of a process on this host."""
        told = {"LD_LIBRARY_PATH": str(self.libraries), "FAKE_XEN": str(self.folder)}
        return {**os.environ, **told, **{name: str(value) for name, value in more.items()}}

    def job(self, **more):
        """Return a job that collects domain "guest"."""
        told = {"domain": "guest", "period_s": 0.05, "state": str(self.folder / "run")}
        return {**told, **more}

    def agent(self, job, environment=None, **options):
        """Start an agent; returns the process, its job told."""
        command = [sys.executable, "-m", "pmlkit.xen.agent"]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            command, env=environment or self.environment(), cwd=ROOT, **{**pipes, **options}
        )
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        return process


@cache
def libraries(folder, old=False):
    """Build once per session."""
    return build(Path(folder) / ("old" if old else "new"), old)


def entry(vcpu, n):
    """Give entry number n (or an array) of a vCPU as `tests/xen/fake/xenpml.c` makes it."""
    import numpy as np

    n = np.asarray(n, dtype=np.uint64)
    kind = np.where(n % np.uint64(37) == 0, 0x11, 2).astype(np.uint64)
    gfn = np.uint64(vcpu << 24) | (n & np.uint64(0xFFFFFF))
    return gfn << np.uint64(12) | kind
