# SPDX-License-Identifier: Apache-2.0
"""The doctor on machines that lack something: each lack is made, and found by name."""

import json
import stat
import subprocess
import sys

import fake_bpf
import fake_kvm
import pytest

from pmlkit import doctor, recordings
from pmlkit.errors import UsageError
from pmlkit.kvm import bpf
from pmlkit.kvm.find import NoRight


def find(name, what):
    (capability,) = doctor.examine([name])
    return next(check for check in capability.checks if check.name == what), capability


@pytest.fixture
def empty_path(monkeypatch, tmp_path):
    """A PATH without any program; programs can be put into the folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder, name, script):
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_all_capabilities_are_examined_unless_some_are_named():
    assert [c.name for c in doctor.examine()] == ["demo", "recorder", "lab", "xen", "kvm"]
    assert [c.name for c in doctor.examine(["lab", "demo", "lab"])] == ["lab", "demo"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="no capability 'xenn'.*demo, recorder, lab, xen, kvm"):
        doctor.examine(["demo", "xenn"])


def test_what_is_missing_names_a_command_and_whether_it_needs_root(empty_path):
    for what, package in (("gcc", "gcc"), ("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        check, capability = find("recorder", what)
        assert (check.state, check.mend, check.root) == (
            "missing",
            f"apt-get install {package}",
            True,
        )
        assert not capability.ready
    check, _ = find("recorder", "QEMU")
    assert (check.state, check.mend) == ("missing", "apt-get install qemu-system-x86")
    check, _ = find("recorder", "static libc")
    assert (check.state, check.mend) == ("missing", "apt-get install libc6-dev")


def test_gcc_without_a_static_libc_is_seen(empty_path):
    put(empty_path, "gcc", "echo libc.a")
    check, _ = find("recorder", "static libc")
    assert (check.state, check.found) == ("missing", "no libc.a")
    put(empty_path, "gcc", "echo /usr/lib/libc.a")
    assert find("recorder", "static libc")[0].state == "ok"


@pytest.mark.parametrize(
    ("version", "help_text", "state", "expected"),
    [
        ("7.2.22", "-plugin [file=]<file>", "ok", "7.2.22, with plugins"),
        ("7.2.22", "-name string", "missing", "7.2.22 without TCG plugins"),
        ("10.0.2", "-plugin [file=]<file>", "missing", "10.0.2"),
    ],
)
def test_qemu_is_probed_for_version_and_plugins(empty_path, version, help_text, state, expected):
    script = f'[ "$1" = --version ] && echo "QEMU emulator version {version}" || echo "{help_text}"'
    put(empty_path, "qemu-system-x86_64", script)
    check, _ = find("recorder", "QEMU")
    assert check.state == state
    assert expected in check.found


def test_every_declared_dependency_can_be_imported_by_the_name_that_is_looked_for():
    assert doctor.packages().found == f"all {len(doctor._requirements())} import"


def test_a_package_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy>=2.0", "no-such-package>=1"])
    check = doctor.packages()
    assert check.state == "missing"
    assert "no-such-package: ModuleNotFoundError" in check.found
    assert "numpy" not in check.found
    assert check.mend == "pip install -e ."


def test_a_package_that_breaks_while_it_is_imported_is_named(monkeypatch, tmp_path):
    (tmp_path / "broken_one.py").write_text("raise RuntimeError('wrong ABI\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_requirements", lambda: ["broken_one"])
    assert doctor.packages().found == "broken_one: RuntimeError: wrong ABI"
    assert "broken_one" not in sys.modules


def test_packages_are_only_looked_for_once_importing_has_taken_too_long(monkeypatch):
    monkeypatch.setattr(doctor, "IMPORTS_S", 0)
    monkeypatch.setattr(doctor, "_import_problem", lambda name: pytest.fail("imported"))
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy", "scikit-learn"])
    assert doctor.packages().found == "all 2 are there"
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy", "no-such-package"])
    assert doctor.packages().found == "no-such-package: not installed"


def test_a_qemu_that_does_not_answer_does_not_hold_the_doctor_up(empty_path, monkeypatch):
    put(empty_path, "qemu-system-x86_64", "exec /bin/sleep 60")
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, timeout, **k: run(*a, timeout=0.2, **k))
    check, _ = find("recorder", "QEMU")
    assert check.state == "missing" and "did not answer" in check.found


def test_requirements_are_read_whatever_their_form(monkeypatch):
    seen = []
    monkeypatch.setattr(doctor, "_import_problem", seen.append)
    texts = ["numpy>=2.0", "PyYAML>=6.0.1", "scikit-learn>=1.5", 'tomli; python_version<"3.11"']
    monkeypatch.setattr(doctor, "_requirements", lambda: texts)
    assert doctor.packages().found == "all 4 import"
    assert seen == ["numpy", "pyyaml", "scikit-learn", "tomli"]


def test_a_changed_recording_is_named(monkeypatch, tmp_path):
    trace = tmp_path / "data" / "h.trace"
    trace.mkdir(parents=True)
    meta = {"created": "2026-01-02", "provenance": {"command": "pmlkit record h -o h.trace"}}
    (trace / "trace.json").write_text(json.dumps(meta))
    recordings.write(tmp_path / "data")
    monkeypatch.setattr(recordings, "ROOT", tmp_path)
    assert doctor.bundled().state == "ok"
    (trace / "trace.json").write_text("{}")
    check = doctor.bundled()
    assert (check.state, check.found) == ("missing", "h.trace/trace.json has changed")


def test_outside_of_a_clone_the_demo_says_what_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(recordings, "ROOT", tmp_path)
    for check in (doctor.bundled(), doctor.notebooks(), doctor.workloads()):
        assert check.state == "missing"
        assert "git checkout" in check.mend


def test_a_cache_below_a_file_is_missing_and_says_which_variable_helps(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "file" / "cache"))
    check, _ = find("recorder", "cache")
    assert check.state == "missing"
    assert "PMLKIT_CACHE" in check.mend


def test_a_cache_that_does_not_exist_yet_is_fine_and_is_not_made(monkeypatch, tmp_path):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "a" / "b"))
    assert find("recorder", "cache")[0].state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "CACHE_GIB", 10**9)
    assert find("recorder", "cache")[0].state == "warning"


@pytest.mark.parametrize(
    ("capabilities", "state"), [("control_d\n", "ok"), ("", "missing"), ("not_here", "missing")]
)
def test_dom0_is_told_from_a_guest(monkeypatch, capabilities, state):
    monkeypatch.setattr(doctor, "_read", lambda path: capabilities)
    assert doctor.dom0().state == state


@pytest.mark.parametrize(
    ("cpuinfo", "state"),
    [
        ("flags : fpu\nvmx flags : vnmi ept_ad pml\nbugs :\n", "ok"),
        ("flags : fpu pml\nvmx flags : vnmi ept_ad\nbugs : pml\n", "warning"),
        ("", "warning"),
    ],
)
def test_pml_is_read_from_the_vmx_flags(monkeypatch, cpuinfo, state):
    monkeypatch.setattr(doctor, "_read", lambda path: cpuinfo)
    assert doctor.processor().state == state


def test_without_xen_collecting_is_missing_and_says_what_would_do():
    (capability,) = doctor.examine(["xen"])
    assert not capability.ready
    states = {check.name: check.state for check in capability.checks}
    assert states["Xen dom0"] == states["Xen's tools"] == "missing"
    assert states["Xen's PML log"] == "warning"  # stock log-dirty does without


def test_the_lab_names_all_the_packages_of_a_build(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, *_: None)
    (capability,) = doctor.examine(["lab"])
    (check,) = [check for check in capability.checks if check.name == "build tools"]
    assert check.state == "missing"
    assert {"flex", "bison", "libyajl-dev", "g++"} <= set(check.mend.split())


def test_json_holds_all_that_the_table_shows():
    (capability,) = doctor.examine(["xen"])
    document = json.loads(json.dumps(capability.as_dict()))
    assert document["name"] == "xen"
    assert document["ready"] is False
    assert document["checks"][0].keys() == {"name", "purpose", "state", "found", "mend", "root"}


# A KVM host


@pytest.fixture
def host(tmp_path, monkeypatch):
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    (kvm.root / "dev").mkdir()
    (kvm.root / "dev/kvm").touch()
    monkeypatch.setattr(doctor, "HOST", kvm.host)
    return kvm


def test_a_kvm_host_that_has_all_is_ready(host):
    found = {name: find("kvm", name)[0] for name in ("KVM", "KVM's PML", "kprobe events", "VMs")}
    assert [check.state for check in found.values()] == ["ok"] * 4
    assert found["KVM"].found == "Linux 6.1.0-18-amd64, kvm_intel; drains are newest first"
    assert found["KVM's PML"].found == "pml=Y, ept=Y, eptad=Y"
    assert found["VMs"].found == "web1 (4711)"
    assert find("kvm", "KVM")[1].ready


@pytest.mark.parametrize(
    ("what", "path", "text", "state", "why"),
    [
        ("KVM", "dev/kvm", None, "missing", "modprobe kvm_intel"),
        ("KVM's PML", "sys/module/kvm_intel/parameters/pml", "N", "warning", "pml=1 ept=1 eptad=1"),
        (
            "kprobe events",
            "sys/kernel/tracing/kprobe_events",
            None,
            "missing",
            "CONFIG_KPROBE_EVENTS",
        ),
        ("kprobe events", "proc/kallsyms", "", "missing", "modprobe kvm_intel"),
        ("kprobe events", "sys/kernel/security/lockdown", "[integrity]", "missing", "Secure Boot"),
        ("rights", "proc/self/status", "CapEff:\t0000000000000000", "missing", "run it as root"),
        ("BPF", "sys/kernel/btf/vmlinux", None, "warning", "`pmlkit collect` uses ftrace"),
    ],
)
def test_what_a_kvm_host_lacks_is_named_with_its_mend(host, what, path, text, state, why):
    path = host.root / path
    if text is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    check, _ = find("kvm", what)
    assert check.state == state
    assert why in check.mend


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (None, "ok", "at the entry of mark_page_dirty_in_slot (fentry)"),
        (NoRight("to load a BPF program", bpf.CAPABILITIES), "warning", "needs CAP_BPF and CAP"),
        (bpf.BpfRefused("the kernel refuses the BPF program"), "warning", "the kernel refuses"),
    ],
)
def test_whether_bpf_can_be_used_is_tried(host, monkeypatch, error, state, text):
    refuse = {} if error is None else dict.fromkeys(("fentry", "kprobe"), error)
    fake_bpf.install(monkeypatch.setattr, host, refuse=refuse)
    check, _ = find("kvm", "BPF")
    assert (check.state, text in check.found) == (state, True)
    assert state == "ok" or "without BPF, `pmlkit collect` uses ftrace" in check.mend


def test_tracefs_that_is_not_mounted_is_named(host):
    (host.tracing / "instances").rmdir()
    assert find("kvm", "kprobe events")[0].mend == "mount -t tracefs nodev /sys/kernel/tracing"
