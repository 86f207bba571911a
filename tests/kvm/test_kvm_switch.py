# SPDX-License-Identifier: Apache-2.0
"""Logging is switched on by QEMU's monitor, or by libvirt; both are stood for by programs."""

import json
import os
import socket
import threading
import time

import pytest
from fake_kvm import CALLS, CLEAR, GET, LOG, REGION, RESET, call, dirty, done
from waiting import HANG_S

from pmlkit.errors import MissingTool, PmlkitError, UsageError
from pmlkit.kvm import agent, collector, find, qmp, switch
from pmlkit.kvm.job import Job, KvmOptions
from pmlkit.sources.ingest import ingest
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool

MS = 1_000_000


class Qemu:
    """QEMU's monitor at a socket: it measures, and a function says what else happens then.

    Parameters
    ----------
    ring : bool
        Whether the VM was started with dirty-ring-size.
    units : bool
        Whether it knows calc-time-unit (from QEMU 8.2 on).
    """

    def __init__(self, path, ring=False, units=True, busy=False, measure=lambda: None):
        self.ring, self.units, self.busy, self.measure = ring, units, busy, measure
        self.asked, self.events, self._until = [], [], 0.0
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(2)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.server.accept()
            with client, client.makefile("rwb", buffering=0) as file:
                file.write(b'{"QMP": {"version": {}}}\n')
                for line in file:
                    answer = self._answer(json.loads(line))
                    for event in ["X", *self.events]:
                        file.write(json.dumps({"timestamp": {}, "event": event}).encode() + b"\r\n")
                    self.events.clear()
                    if answer is None:  # it ends
                        return
                    answer["id"] = json.loads(line)["id"]
                    file.write(json.dumps(answer).encode() + b"\r\n")

    def _answer(self, order):
        self.asked.append(order)
        name, given = order["execute"], order.get("arguments", {})
        if name == "calc-dirty-rate":
            return self._calculate(given)
        answers = {
            "qmp_capabilities": {},
            "query-dirty-rate": {"status": self.status(), **self._rate()},
            "query-version": {"qemu": {"major": 7, "minor": 2}},
            "query-status": {"status": "paused", "running": False},
            "query-memory-size-summary": {"base-memory": 96 << 20, "plugged-memory": 0},
            "query-cpus-fast": [{"thread-id": 4712, "cpu-index": 6}],
        }
        if name in answers:
            return {"return": answers[name]}
        return {"error": {"class": "CommandNotFound", "desc": f"{name} has not been found"}}

    def status(self):
        return "measuring" if time.monotonic() < self._until or self.busy else "measured"

    def _rate(self):
        return {"dirty-rate": 7} if self.status() == "measured" else {}

    def _calculate(self, given):
        if self.busy:
            return {"error": {"desc": "the dirty rate is already being measured."}}
        if given["mode"] != ("dirty-ring" if self.ring else "dirty-bitmap"):
            desc = f"mode {given['mode']} is not enabled, use other method instead."
            return {"error": {"desc": desc}}
        if "calc-time-unit" in given and not self.units:
            return {"error": {"desc": "Parameter 'calc-time-unit' is unexpected"}}
        unit = 0.001 if "calc-time-unit" in given else 1
        self._until = time.monotonic() + given["calc-time"] * unit
        self.measure()
        return {"return": {}}


@pytest.fixture
def path(tmp_path, kvm):
    path = str(tmp_path / "qmp")
    kvm.listen(path)
    return path


def measured(kvm):
    """Feed what a measurement with bitmaps makes: switched on, cleared, taken, switched off."""
    now, page, slot = collector.now_ns(), 100, (0, 1, 0, 16 << 20, 1 << 40)
    calls = [(REGION, slot), (GET, (0,)), (CLEAR, (0,)), (GET, (0,)), (REGION, (0, 0, *slot[2:]))]
    at = [now, now + 1000, now + 2000, now + 9000, now + 11000]
    for start, (number, values) in zip(at, calls, strict=True):
        kvm.feed(CALLS, 0, [call(start, 4711, number, values), done(start + 500, 4711)])
    kvm.feed(LOG, 0, [dirty(now + 5000 + n, 4712, page + n) for n in range(3)])


def measured_by_qemu(folder):
    """Return QEMU's own dirty rates: they are in the spool's last frame."""
    *_, (_, last) = read_spool(folder / FRAMES_FILE)
    return json.loads(bytes(last))["mib_per_s"]


def test_qemu_measures_again_and_again_and_each_is_a_round(kvm, path, tmp_path, monkeypatch):
    monkeypatch.setattr(switch, "_LAST_S", HANG_S)
    qemu = Qemu(path, measure=lambda: measured(kvm))
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    job = Job(vm=path, spool=str(folder / FRAMES_FILE), rounds=3, period_s=0.02)
    end = agent.collect(job, host=kvm.host)
    assert end == {"complete": True, "why": "all rounds are complete", "rounds": 3}
    assert measured_by_qemu(folder) == [7, 7, 7]
    orders = [a["arguments"] for a in qemu.asked if a["execute"] == "calc-dirty-rate"]
    assert orders[:3] == [{"mode": "dirty-bitmap", "calc-time": 20,
                           "calc-time-unit": "millisecond"}] * 3  # fmt: skip
    trace = ingest(folder, tmp_path / "x.trace")
    assert trace.to_pandas().groupby("round").gfn.apply(sorted).tolist() == [[100, 101, 102]] * 3
    assert trace.meta.domain["memory_bytes"] == 96 << 20
    assert trace.meta.period["ns"] == 20 * MS
    assert trace.to_pandas().vcpu.unique().tolist() == [6]  # as QEMU says, not the thread's name
    assert "the VMM's own dirty rate is 7 to 7 MiB/s (measurements: 3)" in trace.meta.notes
    assert "the VM is paused: nothing is logged until it runs" in trace.meta.notes


@pytest.mark.parametrize("ring", [False, True])
def test_the_mode_that_the_vm_was_started_for_is_taken(kvm, path, ring):
    """Also if the command line does not say it: the other mode is tried when one is refused."""
    qemu = Qemu(path, ring=ring)
    vm = find.find(kvm.host, path)
    way = switch.of(vm, KvmOptions(period_s=1))
    way.start()
    way.close()
    modes = [a["arguments"]["mode"] for a in qemu.asked if a["execute"] == "calc-dirty-rate"]
    assert modes == (["dirty-bitmap", "dirty-ring"] if ring else ["dirty-bitmap"])
    assert way.mode == modes[-1]


def test_the_command_line_says_that_there_is_a_ring(kvm, path):
    vm = find.find(kvm.host, path)
    ring = find.Vm(vm.pid, vm.start, vm.name, ["qemu", "-accel", "kvm,dirty-ring-size=4096"])
    none = find.Vm(vm.pid, vm.start, vm.name, ["qemu", "-accel", "kvm,dirty-ring-size=0"])
    assert switch.DirtyRate(None, "qmp", ring, 1.0).mode == "dirty-ring"
    assert switch.DirtyRate(None, "qmp", none, 1.0).mode == "dirty-bitmap"


@pytest.mark.parametrize(
    ("qemu", "job", "why"),
    [
        ({"busy": True}, {}, "QEMU is measuring the VM's dirty rate for another client: wait"),
        ({"units": False}, {"period_s": 0.5}, "measurements of 0.5 s: before QEMU 8.2"),
    ],
)
def test_what_qemu_refuses_is_one_line_that_says_what_to_do(kvm, path, qemu, job, why):
    Qemu(path, **qemu)
    with pytest.raises(PmlkitError, match=why):
        agent.collect(Job(vm=path, spool=str(kvm.root / "s"), **job), host=kvm.host)
    assert kvm.instances() == {}


def test_what_happens_to_the_vm_is_in_the_trace(kvm, path, tmp_path):
    """QEMU tells it by events; the last is that the VM ends, and then nobody answers."""
    qemu = Qemu(path, measure=lambda: measured(kvm))
    happened = iter([["STOP"], ["RESUME", "RESET"], ["SHUTDOWN"]])
    answered = qemu._answer

    def answer(order):
        if order["execute"] != "query-dirty-rate":
            return answered(order)
        qemu.events += next(happened)
        return None if "SHUTDOWN" in qemu.events else answered(order)

    qemu._answer = answer
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    job = Job(vm=path, spool=str(folder / FRAMES_FILE), period_s=0.02)
    assert agent.collect(job, host=kvm.host)["why"] == "the VM has ended"
    trace = ingest(folder, tmp_path / "x.trace")
    said = ["the VM was paused: nothing is logged until it runs", "the VM runs again",
            "the VM was reset", "it ended because: the VM has ended"]  # fmt: skip
    assert [note for note in trace.meta.notes if note in said] == said
    assert trace.meta.complete


@pytest.mark.parametrize("event", [b'{"event": "SHUTDOWN"}\n', b'{"event": "SHUTDOWN"}', b""])
def test_what_qemu_said_last_is_read_if_nothing_can_be_sent(path, event):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)

    def serve():
        client, _ = server.accept()
        with client:
            client.sendall(b'{"QMP": {}}\n')
            client.recv(1 << 10)
            client.sendall(b'{"return": {}}\n' + event)

    thread = threading.Thread(target=serve)
    thread.start()
    with qmp.Socket(path) as monitor:
        thread.join()
        with pytest.raises(qmp.QmpError, match=r"was lost \(Broken pipe\)"):
            monitor.ask("query-dirty-rate")
        assert monitor.events == (["SHUTDOWN"] if event.endswith(b"\n") else [])


class Lost:
    """A monitor whose connection is lost after the first measurement has begun."""

    def __init__(self, events=(), then=lambda: None):
        self.events, self._then, self._asked = [*events], then, 0

    def ask(self, command, **arguments):
        if command == "query-dirty-rate":
            self._asked += 1
            self._then()
            raise qmp.QmpError("the connection was lost", "has it ended?")
        return {}

    def close(self):
        pass


def collected(kvm, tmp_path, monkeypatch, monitor):
    monkeypatch.setattr(switch, "Socket", lambda path: monitor)
    kvm.listen(str(tmp_path / "qmp"))
    job = Job(vm=str(tmp_path / "qmp"), spool=str(tmp_path / "s"), period_s=0.02)
    return agent.collect(job, host=kvm.host)


@pytest.mark.parametrize("how", ["told", "slow", "memory", "gone"])
def test_a_vm_that_ends_does_not_look_like_a_fault_of_the_monitor(kvm, tmp_path, monkeypatch, how):
    """QEMU closes its monitor long before its process has ended."""
    monkeypatch.setattr(collector, "_ENDING_S", HANG_S)
    started = []

    def later():
        if not started:
            started.append(threading.Timer(0.3, kvm.end))
            started[0].start()

    then = {"told": lambda: None, "slow": later, "memory": kvm.give_memory_up, "gone": kvm.end}
    monitor = Lost(["SHUTDOWN"] if how == "told" else [], then[how])
    assert collected(kvm, tmp_path, monkeypatch, monitor)["why"] == "the VM has ended"
    assert monitor._asked == 1
    for timer in started:
        timer.join()


def test_a_vm_that_goes_on_without_its_monitor_is_a_fault(kvm, tmp_path, monkeypatch):
    monkeypatch.setattr(collector, "_ENDING_S", 0.1)
    monitor = Lost(["SHUTDOWN", "RESET", "RESUME"])  # it was kept, and goes on
    end = collected(kvm, tmp_path, monkeypatch, monitor)
    assert end == {"complete": False, "why": "the connection was lost: has it ended?", "rounds": 0}


ANOTHER = "QEMU does not answer at PATH: another client uses it: end that client"
SILENT = {  # the VMM's command line, and what is said if nobody answers at the socket
    "-qmp": (["-qmp", "unix:PATH,server=on,wait=off"], ANOTHER),
    "-mon": (["-chardev", "socket,id=m,path=PATH,server=on", "-mon", "chardev=m,mode=control"],
             ANOTHER),
    "-mon, short": (["-mon", "m,mode=control", "-chardev", "socket,path=PATH,id=m"], ANOTHER),
    "for people": (["-chardev", "socket,id=m,path=PATH", "-mon", "chardev=m,mode=readline"],
                   "PATH is the socket of the VMM's -chardev, not of a monitor (QMP): give the"),
    "agent": (["-chardev", "socket,id=g,path=PATH", "-mon", "chardev=m,mode=control"],
              "PATH is the socket of the VMM's -chardev, not of a monitor (QMP): give the"),
    "-serial": (["-serial", "unix:PATH,server=on"], "the socket of the VMM's -serial, not of a"),
    "firecracker": (["--api-sock", "PATH"], "the socket of the VMM's --api-sock, not of a monitor"),
    "unknown": (["-readconfig", "vm.cfg"],
                "no monitor answers at PATH: does another client use it, and is it the socket of"),
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_a_busy_monitor_and_a_socket_of_something_else_are_told_apart(kvm, path, monkeypatch, name):
    monkeypatch.setattr(qmp.Socket.__init__, "__defaults__", (0.1,))
    server = socket.socket(socket.AF_UNIX)  # connections wait there, and nobody greets
    server.bind(path)
    server.listen(1)
    words, message = SILENT[name]
    kvm._write(f"proc/{kvm.pid}/cmdline",
               "".join(f"{word}\0".replace("PATH", path) for word in ["vmm", *words]))  # fmt: skip
    with pytest.raises(qmp.QmpError) as error:
        agent.collect(Job(vm=path, spool=str(kvm.root / "s")), host=kvm.host)
    assert message.replace("PATH", path) in str(error.value)
    assert kvm.instances() == {}


def test_a_socket_of_something_else_is_an_error(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)

    def greet():
        client, _ = server.accept()
        client.sendall(b"220 mail\n")
        client.close()

    threading.Thread(target=greet, daemon=True).start()
    with pytest.raises(qmp.QmpError, match="does not speak QMP: give QEMU's -qmp socket"):
        qmp.Socket(path, HANG_S)
    with pytest.raises(qmp.QmpError, match="no connection to /nowhere"):
        qmp.Socket("/nowhere/qmp")


def test_a_vm_named_by_its_process_is_listened_to(kvm):
    vm = find.find(kvm.host, str(kvm.pid))
    assert switch.of(vm, KvmOptions()).how == "listen"
    with pytest.raises(UsageError, match="name the VM by its socket's path"):
        switch.of(vm, KvmOptions(switch="qmp"))


def test_a_vm_of_libvirt_is_switched_by_libvirt(kvm, tmp_path, monkeypatch):
    """A program in the place of virsh answers, and writes down what it was asked."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin/virsh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{asked}\necho \'{{"return": {{"x": 1}}}}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    vm = find.Vm(1, 1, "web1", ["qemu", "-chardev", "socket,path=/var/lib/libvirt/qemu/x"])
    way = switch.of(vm, KvmOptions())
    assert way.how == "libvirt"
    way.start()
    call = "-c qemu:///system qemu-monitor-command -- web1 "
    order = {"execute": "calc-dirty-rate", "arguments": {"mode": "dirty-bitmap", "calc-time": 1}}
    assert asked.read_text() == f"{call}{json.dumps(order)}\n"
    program.write_text("#!/bin/sh\necho error: no domain >&2\nexit 1\n")
    with pytest.raises(
        qmp.QmpError,
        match=r"libvirt refuses calc-dirty-rate for web1 \(error: no domain\): is it a VM of",
    ):
        way.start()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(MissingTool, match="libvirt-clients"):
        way.start()


def test_with_rings_a_round_is_as_long_as_qemus_reaper_makes_it(kvm, path, tmp_path):
    """So no length was asked for, and none is said."""

    def measured_by_rings():
        now = collector.now_ns()
        for n in range(3):
            at = now + 10_000 * n
            kvm.feed(LOG, 0, [dirty(at + 5000, 4712, n)])
            kvm.feed(CALLS, 0, [call(at + 8000, 4711, RESET), done(at + 9000, 4711)])

    Qemu(path, ring=True, measure=measured_by_rings)
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    job = Job(vm=path, spool=str(folder / FRAMES_FILE), rounds=2, period_s=5)
    assert agent.collect(job, host=kvm.host)["rounds"] == 2
    trace = ingest(folder, tmp_path / "x.trace")
    assert trace.to_pandas().gfn.tolist() == [1, 2]
    assert trace.meta.period["ns"] is None
    assert trace.rounds.asked_ns.tolist() == [-1, -1]
