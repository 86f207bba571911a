# SPDX-License-Identifier: Apache-2.0
"""The costs of logging under KVM: per page that is logged, captured and re-armed.

They are KVM's own, for Debian's kernels in the lab, which counts instructions. They are separate
from `costs` because KVM's log works differently from our log in Xen. A vCPU's own thread drains its
buffer, no round pauses the guest, and nothing is scanned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pmlkit.kvm.host import Host

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace


__all__ = ["KVM_INSN", "KvmCosts", "costs_for", "is_kvms"]


class KvmCosts(NamedTuple):
    """Instructions per page: to log it, to capture it, to re-arm it."""

    log: int
    capture: int
    rearm: int


# data/kvm-costs/costs.csv, with rings; a test compares the two.
KVM_INSN: dict[tuple[str, str], KvmCosts] = {
    ("6.1", "ftrace"): KvmCosts(92, 1008, 416),
    ("6.1", "kprobe"): KvmCosts(92, 460, 414),
    ("6.1", "fentry"): KvmCosts(92, 191, 413),
    ("6.1", "fentry-unmarked"): KvmCosts(92, 247, 414),
    ("6.12", "ftrace"): KvmCosts(110, 1016, 232),
    ("6.12", "kprobe"): KvmCosts(110, 471, 233),
    ("6.12", "fentry"): KvmCosts(110, 197, 233),
    ("6.12", "fentry-unmarked"): KvmCosts(110, 247, 233),
}
_LATER = (6, 12)


def is_kvms(trace: Trace) -> bool:
    """Whether a trace is from a KVM host."""
    return trace.meta.source == "kvm"


def costs_for(trace: Trace) -> tuple[KvmCosts, str]:
    """Return the costs of a trace's kernel and capture, and their names."""
    release = Host(release=str(trace.meta.host.get("release", ""))).version
    kernel = "6.12" if release >= _LATER else "6.1"
    capture = trace.meta.options.get("capture") or {}
    how = capture.get("place", "ftrace")
    if how == "fentry" and capture.get("times") != "exit":
        how = "fentry-unmarked"
    if (kernel, how) not in KVM_INSN:
        how = "ftrace"
    return KVM_INSN[kernel, how], f"Linux {kernel}, captured by {how}"
