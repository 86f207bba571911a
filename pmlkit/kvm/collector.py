# SPDX-License-Identifier: Apache-2.0
"""Collect the log of a VM into a spool. The guest is never paused.

Captured data is written as it arrives: pages of ring buffers, which are parsed when the trace is
created. Only the VMM's calls are parsed here, because they end rounds. The time is read before each
pass over the buffers. After the pass, all events before that time are in the spool.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import output_error
from pmlkit.ftrace import layout_of
from pmlkit.kvm import find, frames
from pmlkit.kvm.frames import CALLS, LOG, PAGES_HEAD, Frame
from pmlkit.kvm.guest_memory import GuestMemory
from pmlkit.kvm.idle import IdlePages, Sampler
from pmlkit.kvm.qmp import QmpError
from pmlkit.kvm.rounds import Calls, Rounds
from pmlkit.kvm.tables import Looks
from pmlkit.spool import SpoolWriter

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable

    from pmlkit.kvm.capture import Capture
    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.host import Host
    from pmlkit.kvm.job import Job
    from pmlkit.kvm.rounds import Round
    from pmlkit.kvm.stop import Stop
    from pmlkit.kvm.switch import Switch
    from pmlkit.types import Json, Tell


__all__ = ["Collector", "header"]

_NAP_S, _SHORTEST_S = 0.01, 0.0005
_FRAME_BYTES = 1 << 20
_TICK_NS = 100_000_000
_MOST_BYTES, _MOST_VCPUS = 1 << 52, 1 << 16  # limits of a VM
_MOST_RATES = 10_000  # of the VMM's own dirty rates that are kept
_LAST_PASSES = 64  # passes over buffers after the end of capture
_ENDING_S = 5.0  # longest time from a VMM's last answer to the end of its process


def now_ns() -> int:
    """Return the time of the events' clock."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def header(job: Job, host: Host, vm: Vm, vmm: Json, threads: dict[int, str]) -> Json:
    """Return the spool's header, without additions of a capture method."""
    vcpus = {**find.vcpus_of(threads), **_vcpus_of(vmm.get("cpus"), threads)}
    memory = vmm.get("memory")
    sizes = memory.values() if isinstance(memory, dict) else ()
    domain: Json = vm.facts()
    total = sum(size for size in sizes if type(size) is int)
    if 0 < total < _MOST_BYTES:
        domain["memory_bytes"] = total
    return {
        "source": "kvm",
        "mode": job.mode,
        "job": {**asdict(job), "header": None},
        "domain": domain,
        "vmm": {"command": vm.command[:1], "version": vmm.get("version")},
        "threads": {str(thread): name for thread, name in threads.items()},
        "vcpus": {str(thread): vcpu for thread, vcpu in vcpus.items()},
        "host": host.facts(),
        "epoch_ns": now_ns(),
        **job.header,
    }


def _vcpus_of(cpus: object, threads: dict[int, str]) -> dict[int, int]:
    """Return the vCPUs of threads according to QEMU, whose answer is not trusted."""
    vcpus = {}
    for cpu in cpus if isinstance(cpus, list) else ():
        thread, index = (cpu.get(name) if isinstance(cpu, dict) else None
                         for name in ("thread-id", "cpu-index"))  # fmt: skip
        if thread in threads and type(index) is int and 0 <= index < _MOST_VCPUS:
            vcpus[thread] = index
    return vcpus


class Collector:
    """Collects the log of one VM.

    Parameters
    ----------
    report : callable
        Called with each message for the user.
    """

    def __init__(
        self,
        job: Job,
        host: Host,
        vm: Vm,
        stop: Stop,
        capture: Callable[[], Capture],
        switch: Switch,
        report: Tell = lambda text: None,
    ) -> None:
        self.job, self.host, self.vm, self.stop = job, host, vm, stop
        self.switch, self.report = switch, report
        self._capture_of = capture
        self.rounds, self.closed = Rounds(), 0
        self._nap_s, self._tick_ns = _NAP_S, 0
        self._spent = time.process_time_ns()
        self._enough = ""
        self._failed: QmpError | None = None
        self._failed_s = 0.0
        self._looks: Looks | None = None
        self._sampler: Sampler | None = None

    def run(self, file: io.RawIOBase | None = None) -> Json:
        """Collect until the rounds are complete, a limit is reached, or an event ends it.

        Parameters
        ----------
        file : raw binary file, optional
            Destination of the spool, if not ``job.spool``.

        Returns
        -------
        dict
            The content of the spool's END frame: why, complete, rounds.
        """
        vmm = self.switch.facts()
        idle = None
        if self.job.harvest:  # refused before logging is switched on
            idle = IdlePages(self.host, self.vm.pid, self.job.one_in, self.job.draw)
        threads = find.threads_of(self.host, self.vm.pid)
        with self._capture_of() as capture:
            facts = capture.facts()
            layout = layout_of(facts["header_page"])
            assert layout is not None
            self._calls = Calls(facts["formats"], layout)
            head = header(self.job, self.host, self.vm, vmm, threads)
            head.update(capture=facts, switch=self.switch.how)
            with SpoolWriter(self.job.spool, head, file) as writer:
                for text in (*capture.messages, *_warnings(self.vm, vmm)):
                    self._report(writer, text)
                if self.job.page_tables != "off" and self.vm.vms == 1:
                    memory = GuestMemory(self.host, self.vm.pid)
                    self._looks = Looks(memory, now_ns, partial(self._report, writer))
                if idle is not None:
                    self._sampler = Sampler(idle, now_ns, partial(self._report, writer))
                capture.start(sorted(find.threads_of(self.host, self.vm.pid)))
                self._ready()
                try:
                    self.switch.start()
                    self._collect(capture, writer)
                finally:
                    self.switch.close()
                return self._finish(capture, writer)

    def _ready(self) -> None:
        self._spent = time.process_time_ns()
        self.report("capture is on")
        if self.job.ready:
            try:
                Path(self.job.ready).touch()
            except OSError as error:
                raise output_error(self.job.ready, error) from error

    def _report(self, writer: SpoolWriter, text: str) -> None:
        self.report(text)
        writer.append(Frame.EVENT, frames.pack_json(what=text, ns=now_ns()))

    def _collect(self, capture: Capture, writer: SpoolWriter) -> None:
        while not self.stop and not self._enough:
            got = self._pass(capture, writer)
            self._rest(got)
            if self._looks is not None and self._looks.step(writer):
                self._nap_s = 0
            if self.job.most_bytes and writer.bytes >= self.job.most_bytes:
                self._enough = (f"the spool has reached {writer.bytes} bytes: its limit is "
                                f"{self.job.most_bytes}")  # fmt: skip
            if not self._enough:
                self._keep_on(writer)
                self.stop.wait(self._nap_s)
        if self._enough:
            self.switch.last()

    def _keep_on(self, writer: SpoolWriter) -> None:
        if self._failed is None:
            try:
                self.switch.poll()
            except QmpError as error:
                self._failed, self._failed_s = error, time.monotonic()
        while self.switch.messages:
            self._report(writer, self.switch.messages.pop(0))
        if self._failed is not None:
            self._end_failed(writer, self._failed)

    def _end_failed(self, writer: SpoolWriter, error: QmpError) -> None:
        """End because the VMM does not answer, unless the VM ends: that is then the reason."""
        if self.switch.ended or not find.alive(self.host, self.vm):
            self.stop.end("vm", "the VM has ended")
        elif time.monotonic() - self._failed_s > _ENDING_S:
            self._report(writer, str(error))
            self.stop.end("failed", str(error))

    def _rest(self, got: int) -> None:
        """Sleep less if there was more data; do not sleep if the buffers are filling up."""
        buffer = self.job.buffer_kib << 10
        if got > buffer // 2:
            self._nap_s = 0
        elif got > buffer // 8:
            self._nap_s /= 2
        else:
            self._nap_s = min(max(2 * self._nap_s, _SHORTEST_S), _NAP_S)

    def _pass(self, capture: Capture, writer: SpoolWriter) -> int:
        """Write the buffers' content and the rounds that ended; return the number of bytes."""
        horizon, got = now_ns(), 0
        parts: dict[tuple[int, int], list[bytes]] = {}
        held = 0
        for stream, cpu, page in capture.drain():
            if stream == CALLS:
                self._calls.add(page)
                continue
            if stream == LOG and self._looks is not None:
                self._looks.add(cpu, *capture.logged(page))
            parts.setdefault((stream, cpu), []).append(page)
            got, held = got + len(page), held + len(page)
            if held > _FRAME_BYTES:
                _write_pages(writer, capture, parts)
                held = 0
        _write_pages(writer, capture, parts)
        ended = self.rounds.add(self._calls.until(horizon), horizon)
        self._close_rounds(writer, ended)
        if self._sampler is not None and self.rounds.armed_ns is not None:
            self._sampler.armed(self.closed, self.rounds.armed_ns, self.rounds.slots)
        if got or horizon - self._tick_ns > _TICK_NS:
            self._tick_ns = horizon
            writer.append(Frame.TICK, frames.pack_json(ns=horizon))
        return got

    def _close_rounds(self, writer: SpoolWriter, ended: Iterable[Round]) -> None:
        for one in ended:
            if self.closed == self.job.rounds and self.job.rounds:
                break
            if self._looks is not None:
                self._looks.cut(writer)
            now = time.process_time_ns()
            writer.append(Frame.ROUND, frames.pack_json(
                round=self.closed, start_ns=one.start_ns, end_ns=one.end_ns,
                agent_cpu_ns=now - self._spent))  # fmt: skip
            self._spent = now
            if self._sampler is not None:
                self._sampler.round_closed(self.closed, one.end_ns, self.rounds.slots, writer)
            if self._looks is not None:
                self._looks.round_closed(self.closed, one.end_ns, self.rounds.slots)
            self.closed += 1
        if self.closed == self.job.rounds and self.job.rounds:
            self._enough = "all rounds are complete"
        while self.rounds.messages:
            self._report(writer, self.rounds.messages.pop(0))

    def _finish(self, capture: Capture, writer: SpoolWriter) -> Json:
        capture.stop()
        for _ in range(_LAST_PASSES):
            if not self._pass(capture, writer):
                break
        self._close_rounds(writer, self.rounds.finish())
        if self._looks is not None:
            self._looks.finish(writer)
        writer.append(Frame.TICK, frames.pack_json(ns=now_ns(), last=True))
        asked = bool(self._enough) or self.stop.kind == "time"
        whole = asked or (not self.job.rounds and self.stop.kind in ("vm", "asked"))
        why = self._enough or self.stop.why or ""
        end = {"complete": whole, "why": why, "rounds": self.closed}
        open_ns = self.rounds.armed_ns if self.stop.kind == "vm" else None
        if not self.closed:
            self._report(writer, self._nothing())
        if rates := self.switch.measured:
            self._report(writer,
                       f"the VMM's own dirty rate is {min(rates)} to {max(rates)} MiB/s "
                       f"(measurements: {len(rates)})")  # fmt: skip
        slots = {str(number): slot.as_dict() for number, slot in self.rounds.slots.items()}
        writer.append(Frame.END, frames.pack_json(
            **end, open_ns=open_ns, counts=capture.counts(), slots=slots,
            mib_per_s=self.switch.measured[-_MOST_RATES:], rearms=self.rounds.rearms,
            rings=self.rounds.rings))  # fmt: skip
        return end

    def _nothing(self) -> str:
        """Return the reason why there was no round."""
        if self.rounds.rearms == 1:
            return "the VMM re-armed once, and a round is the time between two re-arms: wait longer"
        if self.rounds.logging is False:
            return "the VMM switched logging off before it re-armed"
        return "the VMM has not re-armed: is it logging? give its QMP socket or libvirt's name"


def _warnings(vm: Vm, vmm: Json) -> list[str]:
    warnings = []
    if vm.vms > 1:
        warnings.append(f"the process has {vm.vms} VMs: their pages are not distinguished")
    status = vmm.get("status")
    if isinstance(status, dict) and status.get("running") is False:
        warnings.append(
            f"the VM is {status.get('status', 'paused')}: nothing is logged until it runs"
        )
    return warnings


def _write_pages(
    writer: SpoolWriter, capture: Capture, parts: dict[tuple[int, int], list[bytes]]
) -> None:
    while parts:
        (stream, cpu), pages = parts.popitem()
        form = capture.forms.get(stream, Frame.PAGES)
        writer.append(form, PAGES_HEAD.pack(stream, 0, 0, cpu), *pages)
