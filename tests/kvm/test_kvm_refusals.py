# SPDX-License-Identifier: Apache-2.0
"""What a user or a host gets wrong is an error of one line that says what to do."""

import errno
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from fake_kvm import LOG, RESET, dirty
from full_disk import FullDisk
from test_kvm_collecting import rearm
from test_kvm_host import refuse, started
from test_kvm_switch import Qemu
from waiting import HANG_S, until

from pmlkit.errors import OutputError, PmlkitError, UsageError
from pmlkit.kvm import agent, collector, find, qmp, switch
from pmlkit.kvm.job import Job
from pmlkit.sources.host.collection import CollectError, Collection
from pmlkit.sources.ingest import ingest
from pmlkit.sources.kvm.collection import KvmCollectOptions
from pmlkit.spool import FRAMES_FILE


def message(kvm, vm, **job):
    with pytest.raises(PmlkitError) as error:
        agent.collect(Job(vm=vm, spool=str(kvm.root / "spool"), **job), host=kvm.host)
    assert str(error.value).isprintable()
    assert error.value.hint, "it does not say what to do"
    assert kvm.instances() == {}
    assert kvm.probes() == []
    return str(error.value)


# The VM's name


@pytest.mark.parametrize("vm", ["", "a\nb", "/x\0y", "\x1b[2J"])
def test_a_name_that_can_be_none_is_refused(kvm, vm):
    assert "is not a VM: give a guest's name, the path of a QMP socket" in message(kvm, vm)


@pytest.mark.parametrize("vm", ["²", "٣", "9" * 30, "9" * 5000, "-1", "0"])
def test_a_number_that_is_no_process_is_no_vm(kvm, vm):
    assert "the running ones are web1 (4711)" in message(kvm, vm)


def test_a_file_that_is_no_socket_is_named(kvm, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert "it is not a socket; give the socket of QEMU's -qmp" in message(kvm, str(path))
    assert "it is not a socket" in message(kvm, str(tmp_path))


# Jobs


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"rounds": "3"}, "rounds is '3': it must be int"),
        ({"rounds": True}, "rounds is True"),
        ({"rounds": 1.5}, "rounds is 1.5"),
        ({"period_s": None}, "period_s is None"),
        ({"period_s": float("nan")}, "period_s is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"marks": 1}, "marks is 1: it must be bool"),
        ({"mode": []}, r"mode is \[\]"),
        ({"vm": 5}, "vm is 5: it must be str"),
        ({"header": []}, "header is"),
        ({"buffer_kib": "x" * 5000}, "buffer_kib is 'x{59}: it"),
    ],
)
def test_a_job_of_wrong_types_is_refused(values, why):
    with pytest.raises(UsageError, match=why):
        Job.of(values)


# What tracing needs


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOMEM, "give smaller buffers: --buffer"),
        (errno.EBUSY, "stop the other tracer"),
        (errno.EROFS, "not in a container"),
        (errno.EIO, "look for the reason in dmesg"),
    ],
)
@pytest.mark.parametrize("name", ["log/buffer_size_kb", "enable", "kprobe_events"])
def test_what_the_kernel_refuses_has_a_hint(kvm, monkeypatch, number, hint, name):
    refuse(monkeypatch, name, number)
    assert hint in message(kvm, "web1")


def test_kprobes_that_are_switched_off_are_told(kvm):
    path = kvm.root / "sys/kernel/debug/kprobes/enabled"
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    assert f"kprobes are switched off: echo 1 > {path}" in message(kvm, "web1")


def test_an_event_that_cannot_be_parsed_is_told(kvm, monkeypatch):
    monkeypatch.setattr(kvm, "_probe", lambda text: kvm._write(
        f"sys/kernel/tracing/events/{text.split()[0][2:]}/format", "nonsense"))  # fmt: skip
    assert "describes its kprobe events in an unknown form: report" in message(kvm, "web1")


def test_without_the_right_to_read_pagemap_the_capability_is_named(kvm, monkeypatch):
    folder = kvm.root / f"proc/{kvm.pid}"
    (folder / "maps").write_text("10000000-10010000 rw-p 0 0 0 x\n")
    (folder / "clear_refs").write_text("")

    def opened(path, *more, **how):
        if str(path).endswith("pagemap"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, *more, **how)

    monkeypatch.setattr("pmlkit.kvm.memory.open", opened, raising=False)
    assert "needs CAP_SYS_PTRACE: run it as root" in message(
        kvm, "web1", mode="soft-dirty", period_s=0.01)  # fmt: skip


# QEMU's monitor


class Monitor:
    """Whatever listens at a socket: greets as QEMU, and then answers each line with some bytes."""

    def __init__(self, path, answers, greeting=b'{"QMP": {}}\n'):
        self.answers, self.greeting = answers, greeting
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(2)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        client, _ = self.server.accept()
        with client, client.makefile("rb") as lines:
            try:
                self._send(client, self.greeting)
                for _ in lines:
                    self._send(client, self.answers)
            except OSError:
                return

    def _send(self, client, what):
        for block in what if callable(getattr(what, "__next__", None)) else [what]:
            client.sendall(block)


def forever(block):
    while True:
        yield block


EVENT = b'{"event": "X", "timestamp": {}}\n'


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (b"no\n", "does not speak QMP: give QEMU's -qmp socket"),
        (b"[1]\n", "does not speak QMP"),
        (b"\xff\xfe\n", "does not speak QMP"),
        (b"[" * 200_000 + b"\n", "does not speak QMP"),
        (b'{"return": ' + b"9" * 5000 + b"}\n", "does not speak QMP"),
        (lambda: forever(b"x" * 65536), "does not speak QMP"),  # a line without an end
        (b'{"error": {"desc": "no\\n\\u001b[2J"}}\n', "QEMU refuses qmp_capabilities: no"),
        (b'{"error": 5}\n', "QEMU refuses qmp_capabilities: 5"),
        (b'{"error": {"desc": "' + b"x" * 3_000_000 + b'"}}\n', "QEMU refuses qmp_capabilities: x"),
    ],
)
def test_what_a_monitor_may_say_is_one_error(tmp_path, answers, why):
    path = str(tmp_path / "qmp")
    Monitor(path, answers() if callable(answers) else answers)
    with pytest.raises(qmp.QmpError) as error:
        qmp.Socket(path, HANG_S)
    assert why in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def impatient(monkeypatch, command):
    """Let the answer to one command be waited for briefly, and each other one for long."""
    ask = qmp.Socket.ask

    def asked(monitor, name, **arguments):
        monitor._socket.settimeout(0.05 if name == command else HANG_S)
        return ask(monitor, name, **arguments)

    monkeypatch.setattr(qmp.Socket, "ask", asked)


def test_a_monitor_that_greets_and_says_no_more_is_an_error(tmp_path, monkeypatch):
    impatient(monkeypatch, "qmp_capabilities")
    Monitor(str(tmp_path / "qmp"), b"")
    with pytest.raises(qmp.QmpError, match="does not answer qmp_capabilities at "):
        qmp.Socket(str(tmp_path / "qmp"), HANG_S)


def test_a_monitor_that_tells_of_events_for_ever_is_an_error(tmp_path, monkeypatch):
    looks = itertools.count()  # a second passes with each look at the clock
    monkeypatch.setattr(qmp, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    Monitor(str(tmp_path / "qmp"), forever(EVENT * 100))
    with pytest.raises(qmp.QmpError, match="sends data, but no answer"):
        qmp.Socket(str(tmp_path / "qmp"), HANG_S)


@pytest.mark.parametrize("greeting", [b"", b"x", b"{}\n", b"5\n", b"[" * 200_000 + b"\n"])
def test_a_greeting_that_is_none_is_one_error(tmp_path, monkeypatch, greeting):
    monkeypatch.setattr(qmp, "_LIMIT_S", 0.05)
    path = str(tmp_path / "qmp")
    Monitor(path, b"", greeting)
    with pytest.raises(qmp.QmpError, match="does not speak QMP|no monitor answers"):
        qmp.Socket(path, 0.2)


@pytest.mark.parametrize(
    "answer",
    [5, None, "x", [], {}, [5], [{"thread-id": "x", "cpu-index": 1}],
     [{"thread-id": 4712, "cpu-index": -1}], [{"thread-id": 4712, "cpu-index": 1 << 20}],
     [{"thread-id": True, "cpu-index": True}], {"base-memory": True, "x": -5},
     {"base-memory": 1 << 70}, {"status": "x", "running": False}],
)  # fmt: skip
def test_facts_of_qemu_that_cannot_be_are_left_out(kvm, tmp_path, answer):
    vm = find.find(kvm.host, "web1")
    names = ("version", "status", "memory", "cpus")
    head = collector.header(Job(), kvm.host, vm, dict.fromkeys(names, answer), vm_threads(kvm))
    assert head["vcpus"] == {"4712": 0, "4713": 1}
    assert "memory_bytes" not in head["domain"]
    json.dumps(head)


def vm_threads(kvm):
    return find.threads_of(kvm.host, kvm.pid)


def hanging(kvm, tmp_path, monkeypatch, how_long):
    """Collect from a QEMU that hangs once; the VM ends in the second measurement after that."""
    path = str(tmp_path / "qmp")
    kvm.listen(path)
    impatient(monkeypatch, "query-dirty-rate")
    hung = []
    measured = itertools.count()
    qemu = Qemu(path, measure=lambda: hung and next(measured) == 1 and kvm.end())
    answer = qemu._answer

    def hang(order):
        if order["execute"] == "query-dirty-rate" and not hung:
            hung.append(how_long())
        return answer(order)

    qemu._answer = hang
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    job = Job(vm=path, spool=str(folder / FRAMES_FILE), period_s=0.01)
    return agent.collect(job, host=kvm.host)


def test_qemu_that_hangs_in_the_middle_ends_the_collection(kvm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(switch, "_LATE_S", 0.2)
    monkeypatch.setattr(collector, "_ENDING_S", 0.0)
    end = hanging(kvm, tmp_path, monkeypatch, threading.Event().wait)
    assert not end["complete"]
    why = "QEMU does not finish its measurement: is the VM paused, or overloaded?"
    assert why in capsys.readouterr().err
    assert end["why"] == why


def test_qemu_that_hangs_for_a_while_ends_nothing(kvm, tmp_path, monkeypatch):
    """An answer that comes late is not that to the command which was asked since."""
    monkeypatch.setattr(switch, "_LATE_S", HANG_S)
    end = hanging(kvm, tmp_path, monkeypatch, lambda: time.sleep(0.5))
    assert end["why"] == "the VM has ended"


# The spool's disk, the connection


def test_a_full_disk_is_one_line_and_what_came_is_a_trace(kvm, tmp_path, monkeypatch):
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    file = open(folder / FRAMES_FILE, "wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(agent, "Pipe", lambda out, stop: FullDisk(file, 9000))

    def feed():
        until(kvm.on)
        at = collector.now_ns()
        for n in range(2):
            rearm(kvm, RESET, at + n * 10_000)
            kvm.feed(LOG, 0, [dirty(at + n * 10_000 + 3000, 4712, n)])
        until(lambda: b'"start_ns"' in (folder / FRAMES_FILE).read_bytes())  # of the first round
        for _ in range(9):
            kvm.feed(LOG, 1, [dirty(at + 50_000 + i, 4713, i) for i in range(100)])

    feeder = threading.Thread(target=feed)
    feeder.start()
    with pytest.raises(OutputError, match="no space left"):
        agent.collect(Job(vm="web1", marks=False, header={"created": "2026-01-01"}), host=kvm.host)
    feeder.join()
    assert kvm.instances() == {}
    trace = ingest(folder, tmp_path / "x.trace")
    assert trace.to_pandas().gfn.tolist() == [0]
    assert trace.meta.complete is False


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "ssh: connect to host kvm port 22: No route to host",
            "no connection to kvm: ssh: connect",
        ),
        ("root@kvm: Permission denied (publickey).", "no connection to kvm: root@kvm: Permission"),
    ],
)
def test_a_host_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, said, why):
    script = tmp_path / "ssh.py"
    script.write_text(f"import sys; print({said!r}, file=sys.stderr); sys.exit(255)\n")
    monkeypatch.setenv("PMLKIT_SSH", f"{sys.executable} {script}")
    with pytest.raises(CollectError) as error:
        Collection("web1", tmp_path / "x.trace", KvmCollectOptions(), "kvm").run()
    assert why in str(error.value)
    assert "try `ssh kvm python3 -V`" in str(error.value)
    assert not list(tmp_path.glob("x.trace*"))


# After a death


def test_the_death_of_the_whole_session_leaves_nothing_on(kvm, tmp_path):
    """As when a terminal, or SSH's session, goes: each process of the group is killed."""
    (tmp_path / "job.json").write_text("{}")
    process = started(kvm, tmp_path, str(tmp_path / "job.json"), "web1", str(tmp_path / "s"),
                      start_new_session=True)  # fmt: skip
    until(kvm.on)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not kvm.instances() and not kvm.probes())


def test_the_guardians_death_with_the_agents_is_mended_by_the_next(kvm, tmp_path):
    (tmp_path / "job.json").write_text("{}")
    process = started(kvm, tmp_path, str(tmp_path / "job.json"), "web1", str(tmp_path / "s"))
    until(kvm.on)
    (guardian,) = (int(name) for name in os.listdir("/proc") if name.isdigit()
                   and parent_of(name) == process.pid)  # fmt: skip
    os.kill(guardian, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert kvm.instances()
    assert kvm.probes()
    shutil.rmtree(kvm.root / f"proc/{process.pid}")
    job = Job(vm="web1", spool=str(tmp_path / "t"), seconds=0.05)
    agent.collect(job, host=kvm.host)
    assert b"died and left tracing on: it is off now" in (tmp_path / "t").read_bytes()
    assert kvm.instances() == {}
    assert kvm.probes() == []


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None
