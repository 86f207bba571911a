# SPDX-License-Identifier: Apache-2.0
"""Switch logging on: by QEMU's ``calc-dirty-rate``, or not at all where the VMM logs by itself.

Another process cannot do it: KVM takes its calls from the VMM alone. QEMU measures in the way that
the VM was started for: with rings if it has ``dirty-ring-size``, else with bitmaps. It re-arms at
the start of a measurement, and takes the bitmap and stops logging at its end: a measurement is a
round. With rings, its reaper re-arms every second, and a measurement has many rounds. A measurement
cannot be ended early, so the last one may go on for a while.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.kvm.qmp import Monitor, QmpError, Refused, Socket, Virsh

if TYPE_CHECKING:
    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.job import KvmOptions
    from pmlkit.types import Json


__all__ = ["DirtyRate", "Listen", "Switch", "of"]

_RING = re.compile(r"\bdirty-ring-size=0*[1-9]")
_LONGEST_S = 60
_RING_S = 10.0  # length of a measurement with rings
_ASK_S = 0.05
_LATE_S = 30.0  # after the end of a measurement, for QEMU to say that it is over


class Switch(Protocol):
    """A way to switch logging on."""

    how: str

    def start(self) -> None:
        """Switch it on."""

    def poll(self) -> None:
        """Keep it on; called often."""

    def facts(self) -> Json:
        """Return what the VMM says of the VM."""

    def close(self) -> None:
        """Leave it as it was; idempotent."""


def of(vm: Vm, options: KvmOptions) -> Switch:
    """Return the way for a VM.

    Raises
    ------
    UsageError
        If QMP is asked for and the VM was not named by its socket.
    """
    how = options.switch
    if how == "auto":
        how = "qmp" if vm.socket else "libvirt" if is_libvirts(vm) else "listen"
    if how == "listen":
        return Listen()
    if how == "libvirt":
        return DirtyRate(Virsh(vm.name), "libvirt", vm, options.period_s)
    if not vm.socket:
        raise UsageError(
            f"process {vm.pid} names no QMP socket", "name the VM by its socket's path"
        )
    return DirtyRate(Socket(vm.socket), "qmp", vm, options.period_s)


def is_libvirts(vm: Vm) -> bool:
    """Whether libvirt has started the VM."""
    return any("/libvirt/" in word for word in vm.command)


class Listen:
    """The VMM logs by itself."""

    how = "listen"

    def start(self) -> None:
        """Do nothing."""

    def poll(self) -> None:
        """Do nothing."""

    def facts(self) -> Json:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class DirtyRate:
    """QEMU's measurement of the dirty rate, again and again.

    Raises
    ------
    QmpError
        By `start`, if QEMU refuses: another measurement runs, or it can measure in neither mode.
    """

    def __init__(self, monitor: Monitor, how: str, vm: Vm, period_s: float) -> None:
        self.how, self._monitor = how, monitor
        self._ring = any(_RING.search(word) for word in vm.command)
        self._period_s = period_s
        self._due = self._asked = 0.0

    @property
    def mode(self) -> str:
        """QEMU's name of the way in which it measures."""
        return "dirty-ring" if self._ring else "dirty-bitmap"

    def facts(self) -> Json:
        """Return what QEMU says of the VM."""
        facts: Json = {}
        commands = {"version": "query-version", "status": "query-status",
                    "memory": "query-memory-size-summary", "cpus": "query-cpus-fast"}  # fmt: skip
        for name, command in commands.items():
            with contextlib.suppress(Refused):
                facts[name] = self._monitor.ask(command)
        return facts

    def start(self) -> None:
        """Begin a measurement."""
        try:
            self._measure()
        except Refused as error:
            if "not enabled" not in error.why:
                raise self._explained(error) from error
            self._ring = not self._ring
            try:
                self._measure()
            except Refused as other:
                raise self._explained(other) from other

    def _measure(self) -> None:
        length = max(_RING_S, self._period_s) if self._ring else self._period_s
        times: Json = {"calc-time": max(1, round(length))}
        if length != times["calc-time"]:
            times = {"calc-time": max(1, round(length * 1000)), "calc-time-unit": "millisecond"}
        self._monitor.ask("calc-dirty-rate", mode=self.mode, **times)
        self._due = time.monotonic() + length

    def _explained(self, error: Refused) -> PmlkitError:
        why = error.why.lower()
        if "already" in why:
            return QmpError("QEMU is measuring the VM's dirty rate for somebody else",
                            "wait for its end, or use --switch listen")  # fmt: skip
        if "calc-time-unit" in why or "unexpected" in why:
            return QmpError(f"this QEMU cannot measure {self._period_s:g} s",
                            "before QEMU 8.2 a period is whole seconds: --period 1s")  # fmt: skip
        if "out of range" in why or "range" in why:
            return QmpError(f"QEMU does not measure {self._period_s:g} s",
                            f"give a period up to {_LONGEST_S} s")  # fmt: skip
        if "not enabled" in why:
            return QmpError("QEMU logs this VM neither by rings nor by bitmaps",
                            "is it a VM of KVM (-accel kvm)?")  # fmt: skip
        return error

    def poll(self) -> None:
        """Begin the next measurement as soon as one is over."""
        now = time.monotonic()
        if now < self._due or now - self._asked < _ASK_S:
            return
        self._asked = now
        answer = self._monitor.ask("query-dirty-rate")
        status = answer.get("status") if isinstance(answer, dict) else None
        if status != "measuring":
            self._measure()
        elif now > self._due + _LATE_S:
            raise QmpError("QEMU does not end its measurement", "is the VM paused, or overloaded?")

    def close(self) -> None:
        """Close the monitor: a measurement that runs ends by itself."""
        self._monitor.close()
