# SPDX-License-Identifier: Apache-2.0
"""Finding VMs, and hosts that do not have, or do not grant, what a collection needs."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import fake_kvm
import pytest
from waiting import HANG_S, until

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.kvm import agent, find, tracefs
from pmlkit.kvm.capture import Ftrace
from pmlkit.kvm.job import Job, KvmOptions


def message(kvm, vm, **job):
    """Return the error of a collection."""
    with pytest.raises(PmlkitError) as error:
        agent.collect(Job(vm=vm, spool=str(kvm.root / "spool"), **job), host=kvm.host)
    assert "\n" not in str(error.value)
    return str(error.value)


# Finding


def test_a_vm_is_found_by_its_process_name_or_socket(kvm):
    kvm.listen("/run/web1.qmp")
    for asked in (str(kvm.pid), "web1", "/run/web1.qmp"):
        vm = find.find(kvm.host, asked)
        assert (vm.pid, vm.name, vm.vcpus, vm.vms) == (kvm.pid, "web1", 2, 1)
    assert vm.socket == "/run/web1.qmp"


def test_a_vmm_that_is_not_qemu_is_found_too(kvm):
    kvm.process(5000, {5000: "firecracker"}, ("firecracker", "--id", "fc7"))
    kvm.process(5001, {5001: "cloud-hyperviso"}, ("cloud-hypervisor",))
    assert [vm.name for vm in find.running(kvm.host)] == ["web1", "fc7", "cloud-hyperviso"]
    assert find.find(kvm.host, "fc7").pid == 5000


def test_threads_of_known_vmms_tell_their_vcpu():
    names = {1: "CPU 3/KVM", 2: "fc_vcpu 0", 3: "vcpu1", 4: "crosvm_vcpu2", 5: "qemu", 6: "vcpu_x"}
    assert find.vcpus_of(names) == {1: 3, 2: 0, 3: 1, 4: 2}


def test_a_vm_that_is_not_there_is_an_error_that_names_those_that_are(kvm):
    assert message(kvm, "web2") == "there is no VM web2: the running ones are web1 (4711)"
    assert "process 4712 has no VM of KVM" in message(kvm, "4712") or "no VM 4712" in message(
        kvm, "4712"
    )
    assert message(kvm, "99").startswith("there is no VM 99: the running ones are web1 (4711)")
    assert "no program listens at this socket" in message(kvm, "/run/none.qmp")
    kvm.end()
    assert "this machine has no /dev/kvm; name the VM's host: --host" in message(kvm, "web1")
    kvm._write("dev/kvm", "")
    assert "none is running here" in message(kvm, "web1")


def test_without_rights_the_capability_is_named(kvm):
    (kvm.root / "proc/self/status").write_text("CapEff:\t0000000000000000\n")
    kvm.end()
    assert "CAP_SYS_PTRACE" in message(kvm, "web1")


def test_two_vms_of_one_name_are_told_apart_by_their_processes(kvm):
    kvm.process(5000, {5000: "qemu"}, fake_kvm.QEMU)
    assert message(kvm, "web1") == "2 VMs are called web1: give a process id: 4711, 5000"


def test_a_process_with_the_id_of_one_that_ended_is_another(kvm):
    vm = find.find(kvm.host, "web1")
    assert find.alive(kvm.host, vm)
    kvm.end()
    assert not find.alive(kvm.host, vm)
    kvm.process(kvm.pid, {kvm.pid: "other"}, start=78)
    assert not find.alive(kvm.host, vm)


# Tracing that is refused


def test_without_tracefs_the_error_says_how_to_mount_it(kvm):
    (kvm.tracing / "events/header_page").unlink()
    (kvm.tracing / "instances").rmdir()
    assert message(kvm, "web1").endswith(
        "tracefs is not mounted: mount -t tracefs nodev /sys/kernel/tracing")  # fmt: skip


@pytest.mark.parametrize(("release", "register"), [("5.10.0-30", "%si"), ("6.1.0", "%dx")])
def test_the_frame_is_in_the_register_of_the_kernel(tmp_path, monkeypatch, release, register):
    """Before Linux 5.11 the function had no VM before the slot and the frame."""
    kvm = fake_kvm.FakeKvm(tmp_path / "host", release)
    kvm.install(monkeypatch.setattr)
    with Ftrace(kvm.host, KvmOptions()):
        text = (kvm.tracing / "kprobe_events").read_text()
    assert f"mark_page_dirty_in_slot gfn={register}:u64" in text


def test_a_kernel_without_kprobe_events_is_named(kvm):
    (kvm.tracing / "kprobe_events").unlink()
    assert "no kprobe events (CONFIG_KPROBE_EVENTS): use --mode soft-dirty" in message(kvm, "web1")


def test_a_kernel_without_kvms_function_is_named(kvm, monkeypatch):
    (kvm.root / "proc/kallsyms").write_text("0 T other\n")
    refuse(monkeypatch, "kprobe_events", errno.ENOENT)
    assert "the kernel has no mark_page_dirty_in_slot: modprobe kvm_intel" in message(kvm, "web1")


def refuse(monkeypatch, name, number):
    """Let the kernel refuse to open a file for writing."""
    real = os.open

    def opened(path, flags, *more, **how):
        if os.fspath(path).endswith(name) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *more, **how)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("lockdown", ["", "none [integrity] confidentiality"])
def test_lockdown_and_missing_rights_are_told_apart(kvm, monkeypatch, lockdown):
    path = kvm.root / "sys/kernel/security/lockdown"
    path.parent.mkdir(parents=True)
    path.write_text(lockdown)
    refuse(monkeypatch, "kprobe_events", errno.EPERM)
    wanted = "lockdown (integrity)" if lockdown else "CAP_SYS_ADMIN: run it as root"
    assert wanted in message(kvm, "web1")
    assert kvm.instances() == {}


def test_an_instance_that_cannot_be_set_up_is_removed_again(kvm, monkeypatch):
    refuse(monkeypatch, "calls/set_event_pid", errno.ENOMEM)
    assert "Cannot allocate memory" in message(kvm, "web1")
    assert kvm.instances() == {}
    assert kvm.probes() == []


def test_a_machine_whose_registers_are_not_known_is_refused(kvm, monkeypatch):
    system = type("uname", (), {"machine": "riscv64", "nodename": "x", "release": "6.1"})
    monkeypatch.setattr(os, "uname", lambda: system)
    assert "cannot be captured on riscv64: use a host of x86_64 or aarch64" in message(kvm, "web1")


@pytest.mark.parametrize(
    ("values", "why"),
    [({"mode": "x"}, "mode is 'x'"), ({"period_s": 0}, "period above 0"),
     ({"rounds": -1}, "below 0"), ({"buffer_kib": 1}, "a buffer of 1 KiB"),
     ({"switch": "on"}, "switch is 'on'")],
)  # fmt: skip
def test_options_are_checked(values, why):
    with pytest.raises(UsageError, match=why):
        KvmOptions(**values)


# What a dead collection leaves


def left_behind(kvm, pid, start):
    owner = f"pmlkit-{pid}-{start}"
    kvm.make_instance(kvm.tracing / "instances" / f"{owner}-log")
    probe = f"p:{owner.replace('-', '_')}/dirty mark_page_dirty_in_slot gfn=%dx:u64\n"
    kvm.write(kvm.host, kvm.tracing / "kprobe_events", probe, True)


def test_what_a_dead_collection_left_is_removed_and_told(kvm):
    left_behind(kvm, 4710, 5)
    left_behind(kvm, kvm.pid, 76)  # the process's id has another owner now
    left_behind(kvm, kvm.pid, 77)  # alive
    (kvm.tracing / "instances/other").mkdir()
    told = list(tracefs.clean(kvm.host))
    assert told == [f"a collection (process {pid}) died and left tracing on: it is off now"
                    for pid in (4710, 4711)]  # fmt: skip
    assert {path.name for path in (kvm.tracing / "instances").iterdir()} == {
        "pmlkit-4711-77-log", "other",
    }  # fmt: skip
    assert kvm.probes() == ["pmlkit_4711_77/dirty"]


AGENT = """
import sys
sys.path[:0] = {paths!r}
import fake_kvm
from pmlkit.kvm import agent
kvm = fake_kvm.FakeKvm.attached({root!r})
agent.Host = lambda: kvm.host
sys.exit(agent.main(sys.argv[1:]))
"""


def started(kvm, tmp_path, *arguments, **how):
    code = AGENT.format(paths=[p for p in sys.path if p], root=str(kvm.root))
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)  # fmt: skip
    return process


def test_a_collection_that_is_killed_leaves_nothing_on(kvm, tmp_path):
    (tmp_path / "job.json").write_text("{}")
    process = started(kvm, tmp_path, str(tmp_path / "job.json"), "web1", str(tmp_path / "s"))
    until(kvm.on)
    process.kill()
    process.communicate()
    until(lambda: not kvm.instances() and not kvm.probes())


def test_the_job_comes_and_the_spool_goes_by_a_pipe(kvm, tmp_path):
    process = started(kvm, tmp_path)
    process.stdin.write(json.dumps({"vm": "web1"}).encode() + b"\n")
    process.stdin.flush()
    until(lambda: "calls" in kvm.instances())
    out, messages = process.communicate(b"stop\n", HANG_S)
    assert process.returncode == 0, messages
    assert out.startswith(b"PMLSPOOL")
    assert b"stopped by the program that started it" in out
    assert b"agent: capture is on" in messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(kvm, tmp_path, number):
    (tmp_path / "job.json").write_text("{}")
    process = started(kvm, tmp_path, str(tmp_path / "job.json"), "web1", str(tmp_path / "s"))
    until(kvm.on)
    process.send_signal(number)
    assert process.wait(HANG_S) == 0
    process.communicate()
    assert kvm.instances() == {}
    assert b"interrupted" in (tmp_path / "s").read_bytes()


def test_a_job_that_is_none_is_refused(kvm, tmp_path):
    (tmp_path / "job.json").write_text("[]")
    for arguments in ((str(tmp_path / "job.json"), "web1", "s"), ("a",)):
        process = started(kvm, tmp_path, *arguments)
        _, messages = process.communicate(b"", HANG_S)
        assert process.returncode == 2
        assert messages.count(b"\n") == 1


def test_the_capture_says_which_events_it_has(kvm):
    with Ftrace(kvm.host, KvmOptions()) as capture:
        assert set(capture.facts()["formats"]) == {
            "dirty", "call", "done", "kvm_entry", "kvm_page_fault",
        }  # fmt: skip
    with Ftrace(kvm.host, replace(KvmOptions(), marks=False)) as capture:
        assert set(capture.facts()["formats"]) == {"dirty", "call", "done"}
        assert capture.counts().keys() == {"log", "calls"}
