# SPDX-License-Identifier: Apache-2.0
"""Facts about a KVM host: its folders, kernel, parameters of KVM, and our rights.

Functions that read /proc, /sys or tracefs take a `Host`, so that tests can replace it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmlkit.types import Json


__all__ = ["CAPABILITIES", "Host"]

_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,4})")
_MODULES = ("kvm_intel", "kvm_amd", "kvm")
_PARAMETERS = ("pml", "ept", "eptad", "enable_apicv", "unrestricted_guest", "npt", "tdp_mmu",
               "mmu_page_size", "nx_huge_pages", "eager_page_split")  # fmt: skip
CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21,
                "CAP_PERFMON": 38, "CAP_BPF": 39}  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Host:
    """The machine that runs the VM.

    Attributes
    ----------
    root : Path
        Of /proc and /sys.
    release : str
        The kernel's release.
    """

    root: Path = Path("/")
    release: str = field(default_factory=lambda: os.uname().release)

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def tracing(self) -> Path:
        """Mount point of tracefs: the usual one, or that of older systems."""
        own, old = self.root / "sys/kernel/tracing", self.root / "sys/kernel/debug/tracing"
        return own if (own / "instances").exists() or not (old / "instances").exists() else old

    @property
    def debug(self) -> Path:
        return self.root / "sys/kernel/debug"

    @property
    def version(self) -> tuple[int, int]:
        """The kernel's release as numbers; (0, 0) without one."""
        match = _RELEASE.match(self.release)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def frame_argument(self) -> int:
        """Index of the frame argument of ``mark_page_dirty_in_slot``; 5.11 added the VM as 0."""
        return 1 if (0, 0) < self.version < (5, 11) else 2

    def parameters(self) -> Json:
        """Return the parameters of KVM's modules: {module: {name: value}}."""
        modules: Json = {}
        for module in _MODULES:
            folder = self.root / "sys/module" / module
            if folder.exists():
                values = {name: _text(folder / "parameters" / name) for name in _PARAMETERS}
                modules[module] = {name: value for name, value in values.items() if value}
        return modules

    def pml(self) -> bool | None:
        """Whether KVM uses PML; None if unknown."""
        value = self.parameters().get("kvm_intel", {}).get("pml")
        return None if value is None else value in ("Y", "1")

    def lockdown(self) -> str:
        """Return the kernel's lockdown: "none", "integrity", "confidentiality", or ""."""
        match = re.search(r"\[(\w+)\]", _text(self.root / "sys/kernel/security/lockdown"))
        return match[1] if match else ""

    def has_symbol(self, name: str) -> bool | None:
        """Whether the kernel lists a function; None if its list cannot be read."""
        try:
            with open(self.proc / "kallsyms", errors="replace") as file:
                return any(line.split()[2:3] == [name] for line in file)
        except OSError:
            return None

    def missing_capabilities(self) -> list[str]:
        """Return the names of the capabilities that a collection needs and we lack."""
        needed, have = (
            ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"),
            self.capabilities(),
        )
        return [name for name in needed if name not in have]

    def capabilities(self) -> set[str]:
        """Return the names of those of `CAPABILITIES` that we have."""
        match = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", _text(self.proc / "self/status"), re.M)
        have = int(match[1], 16) if match else 0
        return {name for name, bit in CAPABILITIES.items() if have >> bit & 1}

    def may_use_bpf(self) -> bool:
        """Whether we have the capabilities that BPF needs."""
        have = self.capabilities()
        return "CAP_SYS_ADMIN" in have or {"CAP_BPF", "CAP_PERFMON"} <= have

    def facts(self) -> Json:
        """Return the facts about the host for a trace."""
        system = os.uname()
        modules = self.parameters()
        facts: Json = {"node": system.nodename, "release": self.release, "machine": system.machine}
        return {**facts, "modules": modules, "pml": self.pml()}
