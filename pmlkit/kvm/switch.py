# SPDX-License-Identifier: Apache-2.0
"""Switch logging on by QEMU's ``calc-dirty-rate``, unless the VMM logs by itself.

Another process cannot switch it on, because KVM accepts these calls from the VMM alone. QEMU
measures with the method that the VM was started for: rings if it has ``dirty-ring-size``, otherwise
bitmaps. It re-arms at the start of a measurement, and reads the bitmap and stops logging at its
end: a measurement is a round. With rings, its reaper re-arms every second, and a measurement has
many rounds. A measurement cannot be stopped early, so the last one may continue for a while.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.kvm.qmp import Late, Monitor, QmpError, Refused, Silent, Socket, Virsh

if TYPE_CHECKING:
    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.job import KvmOptions
    from pmlkit.types import Json


__all__ = ["DirtyRate", "Listen", "Switch", "of"]

_MONITORS = ("-qmp", "-qmp-pretty", "-mon")
_ID = re.compile(r"\bid=([^,]*)")
_RING = re.compile(r"\bdirty-ring-size=0*[1-9]")
_LONGEST_S = 60
_RING_S = 10.0  # length of a measurement with rings
_ASK_S = 0.05
_LAST_S = 5.0
# QEMU's events that affect the log.
_EVENTS = {
    "STOP": "the VM was paused: nothing is logged until it runs",
    "RESUME": "the VM runs again",
    "RESET": "the VM was reset",
}
_LATE_S = 30.0  # longest time in which QEMU reports the end of a measurement


class Switch(Protocol):
    """A method to switch logging on.

    Attributes
    ----------
    how : str
    measured : list of float
        The VMM's own dirty rates, MiB/s, if it reports any: one per measurement.
    messages : list of str
        Events of the VM; the caller removes them.
    ended : bool
        Whether the VMM has reported the VM's end.
    """

    how: str
    measured: list[float]
    messages: list[str]
    ended: bool

    def start(self) -> None:
        """Switch it on."""

    def poll(self) -> None:
        """Keep it on; called frequently."""

    def last(self) -> None:
        """Wait briefly for the VMM's last measurement; called once, before the end."""

    def facts(self) -> Json:
        """Return the VMM's facts about the VM."""

    def close(self) -> None:
        """Restore the previous state; idempotent."""


def of(vm: Vm, options: KvmOptions) -> Switch:
    """Return the method for a VM.

    Raises
    ------
    UsageError
        If QMP is requested and the VM was not named by its socket.
    """
    how = options.switch
    if how == "auto":
        how = "qmp" if vm.socket else "libvirt" if is_libvirts(vm) else "listen"
    if how == "listen":
        return Listen()
    if how == "libvirt":
        return DirtyRate(Virsh(vm.name), "libvirt", vm, options.period_s, options.rounds)
    if not vm.socket:
        raise UsageError(
            f"process {vm.pid} has no QMP socket in its command line",
            "name the VM by its socket's path",
        )
    return DirtyRate(_monitor_of(vm), "qmp", vm, options.period_s, options.rounds)


def _monitor_of(vm: Vm) -> Socket:
    """Return the monitor at the VM's socket.

    QEMU serves one client of a socket at a time, whatever the socket is for. If there is no answer,
    the VMM's command line says which of the two it is.
    """
    try:
        return Socket(vm.socket)
    except Silent as error:
        option = _option_of(vm)
        if option in _MONITORS:
            hint = "another client uses it: end that client, or give QEMU a second -qmp"
            raise QmpError(f"QEMU does not answer at {vm.socket}", hint) from error
        if option:
            hint = "give the path of QEMU's -qmp unix:PATH,server=on,wait=off"
            raise QmpError(
                f"{vm.socket} is the socket of the VMM's {option}, not of a monitor (QMP)", hint
            ) from error
        raise


def _option_of(vm: Vm) -> str:
    """Return the option of the VMM's command line that names its socket; "" if none does."""
    for option, value in zip(vm.command, vm.command[1:]):  # noqa: B905 (Python 3.9)
        if not option.startswith("-") or vm.socket not in re.split("[,=:]", value):
            continue
        name = _ID.search(value)
        if option == "-chardev" and name and _is_monitors(vm, name[1]):
            return "-mon"
        return option
    return ""


def _is_monitors(vm: Vm, chardev: str) -> bool:
    """Whether a QMP monitor uses a character device."""
    return any(
        option == "-mon" and "mode=control" in value.split(",")
        and {chardev, f"chardev={chardev}"} & set(value.split(","))
        for option, value in zip(vm.command, vm.command[1:])  # noqa: B905 (Python 3.9)
    )  # fmt: skip


def is_libvirts(vm: Vm) -> bool:
    """Whether libvirt started the VM."""
    return any("/libvirt/" in word for word in vm.command)


class Listen:
    """The VMM logs by itself."""

    how = "listen"
    ended = False

    def __init__(self) -> None:
        self.measured: list[float] = []
        self.messages: list[str] = []

    def start(self) -> None:
        """Do nothing."""

    def poll(self) -> None:
        """Do nothing."""

    def last(self) -> None:
        """Do nothing."""

    def facts(self) -> Json:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class DirtyRate:
    """QEMU's measurement of the dirty rate, repeated.

    Raises
    ------
    QmpError
        Raised by `start` if QEMU refuses: another measurement is running, or it supports neither
        mode.
    """

    def __init__(
        self, monitor: Monitor, how: str, vm: Vm, period_s: float, rounds: int = 0
    ) -> None:
        self.how, self._monitor = how, monitor
        self._ring = any(_RING.search(word) for word in vm.command)
        self._period_s, self._rounds = period_s, rounds
        self.measured: list[float] = []
        self.messages: list[str] = []
        self.ended = self._running = False
        self._due = self._asked = 0.0

    @property
    def mode(self) -> str:
        """QEMU's name for its method of measurement."""
        return "dirty-ring" if self._ring else "dirty-bitmap"

    def facts(self) -> Json:
        """Return QEMU's facts about the VM."""
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
        self._due, self._running = time.monotonic() + length, True
        self._monitor.ask("calc-dirty-rate", mode=self.mode, **times)

    def _explained(self, error: Refused) -> PmlkitError:
        why = error.why.lower()
        if "already" in why:
            return QmpError("QEMU is measuring the VM's dirty rate for another client",
                            "wait for its end, or use --switch listen")  # fmt: skip
        if "calc-time-unit" in why or "unexpected" in why:
            return QmpError(f"this QEMU does not support measurements of {self._period_s:g} s",
                            "before QEMU 8.2 a period is whole seconds: --period 1s")  # fmt: skip
        if "out of range" in why or "range" in why:
            return QmpError(f"QEMU does not support measurements of {self._period_s:g} s",
                            f"give a period up to {_LONGEST_S} s")  # fmt: skip
        if "not enabled" in why:
            return QmpError("QEMU logs this VM neither with rings nor with bitmaps",
                            "is it a VM of KVM (-accel kvm)?")  # fmt: skip
        return error

    def poll(self) -> None:
        """Begin the next measurement as soon as one has ended."""
        now = time.monotonic()
        if now < self._due or now - self._asked < _ASK_S:
            return
        self._asked = now
        try:
            self._go_on(now)
        finally:
            self._take_events()

    def _go_on(self, now: float) -> None:
        if self._over():
            if not self._enough(now):
                with contextlib.suppress(Late):  # QEMU begins when it has read the command
                    self._measure()
        elif now > self._due + _LATE_S:
            raise QmpError(
                "QEMU does not finish its measurement", "is the VM paused, or overloaded?"
            )

    def _enough(self, now: float) -> bool:
        """Whether each requested round has been measured, and only needs to be closed."""
        asked = self._rounds and not self._ring and len(self.measured) == self._rounds
        return bool(asked) and now < self._due + _LAST_S

    def _over(self) -> bool:
        """Whether our measurement has ended; its result is kept."""
        if not self._running:
            return True
        try:
            answer = self._monitor.ask("query-dirty-rate")
        except Late:
            return False
        status = answer.get("status") if isinstance(answer, dict) else None
        rate = answer.get("dirty-rate") if isinstance(answer, dict) else None
        if status == "measured" and isinstance(rate, (int, float)):
            self.measured.append(rate)
        self._running = status == "measuring"
        return not self._running

    def _take_events(self) -> None:
        while self._monitor.events:
            event = self._monitor.events.pop(0)
            if event in ("SHUTDOWN", "RESUME"):  # QEMU may keep a VM, and it may go on
                self.ended = event == "SHUTDOWN"
            if event in _EVENTS:
                self.messages.append(_EVENTS[event])

    def last(self) -> None:
        """Wait briefly for the result of the measurement whose round has just ended."""
        end = time.monotonic() + _LAST_S
        with contextlib.suppress(QmpError):
            while not self._ring and time.monotonic() < end and not self._over():
                time.sleep(_ASK_S)

    def close(self) -> None:
        """Close the monitor: a running measurement ends by itself."""
        self._monitor.close()
