# SPDX-License-Identifier: Apache-2.0
import subprocess

import pytest

from pmlkit.cli import lab as commands
from pmlkit.errors import GuestError, UsageError
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.guests import LabGuest
from pmlkit.sources.lab.kvm import session, steps
from pmlkit.sources.lab.kvm.image import HERE
from pmlkit.sources.lab.kvm.session import KvmLabOptions


def run(*words):
    commands.run.main([*words, "-o", "x.trace"], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--kvm", "--stock"), "--stock is for Xen: leave out this option, or --kvm"),
        (("--kvm", "--ring", "64"), "--ring is for Xen"),
        (("--kvm", "--harvest", "both"), "--harvest is for Xen"),
        (("--kernel", "6.12"), "--kernel is for KVM: add --kvm"),
        (("--kvm-log", "bitmap"), "--kvm-log is for KVM: add --kvm"),
        (("--no-pml",), "--no-pml is for KVM"),
        (("--vmm", "qemu"), "--vmm is for KVM: add --kvm"),
        (("--transparent-hugepages",), "--transparent-hugepages is for KVM"),
    ],
)
def test_options_of_the_other_hypervisor_are_refused(words, why):
    with pytest.raises(UsageError, match=why):
        run("known", *words)


def test_options_reach_the_kvm_lab(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "run", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(commands, "show_trace", lambda *arguments: None)
    run("known", "--kvm", "--kernel", "6.12", "--kvm-log", "bitmap", "--no-pml", "--rounds", "3",
        "--free-run", "--period", "50ms", "--set", "if=0")  # fmt: skip
    ((guest, out, options, _),) = seen
    assert (guest, out) == ("known", "x.trace")
    assert options == KvmLabOptions(
        kernel="6.12", log="bitmap", pml=False, rounds=3, lockstep=False, period_s=0.05,
        settings={"if": "0"},
    )  # fmt: skip


def test_a_round_of_qemu_is_a_second_unless_another_is_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "run", lambda *arguments: seen.append(arguments[2]))
    monkeypatch.setattr(commands, "show_trace", lambda *arguments: None)
    run("known", "--kvm", "--vmm", "qemu")
    run("known", "--kvm", "--vmm", "qemu", "--period", "3s")
    run("known", "--kvm")
    assert [(o.vmm, o.period_s) for o in seen] == [("qemu", 1.0), ("qemu", 3.0), ("own", 0.2)]


@pytest.mark.parametrize(
    ("guest", "options", "why"),
    [
        ({"linux": True}, {}, "QEMU does not run g in the lab"),
        ({"vcpus": 2}, {}, "it runs guests of the kit: leave out --vmm qemu"),
        ({"mailbox": True}, {"huge": True}, "QEMU chooses huge pages by itself"),
        (
            {"mailbox": True},
            {"period_s": 0.2},
            "QEMU does not support measurements of 0.2 s: a period must be whole",
        ),
        ({"mailbox": True}, {"vmm": "own", "boot": True}, "g has no boot to log"),
    ],
)
def test_what_a_vmm_cannot_do_is_refused_in_words(guest, options, why, tmp_path):
    guest = LabGuest("g", tmp_path / "g.elf", **guest)
    with pytest.raises(UsageError, match=why):
        session.collect(
            guest, tmp_path, KvmLabOptions(**{"vmm": "qemu", "period_s": 1.0, **options})
        )


def test_qemus_job_is_to_measure_and_its_guest_waits_for_nobody(tmp_path):
    guest = LabGuest("g", tmp_path / "g.elf", cmdline="a=1", mailbox=True)
    options = KvmLabOptions(vmm="qemu", rounds=5, period_s=2.0)
    job = session.describe(guest, options, 64, 1, {})
    assert (job["switch"], job["rounds"], job["period_s"]) == ("qmp", 5, 2.0)
    for log, accelerator in (("ring", "kvm,dirty-ring-size=65536"), ("bitmap", "kvm")):
        words = session.vmms_words(guest, KvmLabOptions(vmm="qemu", log=log), 64, 2)
        assert words[words.index("-smp") + 1] == "2"
        assert words[words.index("-accel") + 1] == accelerator
        assert words[words.index("-append") + 1] == "vmm=64 free=1 a=1"
        assert words[words.index("-qmp") + 1] == "unix:/job/qmp,server=on,wait=off"


@pytest.mark.parametrize("wrong", [{"kernel": "5.10"}, {"log": "list"}, {"vmm": "xen"}])
def test_unknown_kernels_and_logs_are_refused(wrong):
    with pytest.raises(UsageError, match="the KVM lab has no"):
        KvmLabOptions(**wrong)


def test_a_guest_that_does_not_fit_is_refused(tmp_path):
    guest = LabGuest("g", tmp_path / "g.elf")
    with pytest.raises(UsageError, match="a guest with 2 GiB of memory"):
        session._check(guest, 2048, 1)
    with pytest.raises(UsageError, match="cannot have 3 vCPUs: 1 to 2"):
        session._check(guest, 64, 3)


def test_the_job_has_kvms_parameters_and_the_monitors_words(tmp_path):
    guest = LabGuest("g", tmp_path / "g.elf", cmdline="a=1 b='2'", mailbox=True)
    options = KvmLabOptions(pml=False, huge=True, rounds=5)
    script = session._script(guest, options, 64, 2)
    lines = script.splitlines()
    assert lines[0] == "KVM_INTEL='enable_apicv=0 pml=0'"
    words = subprocess.run(
        ["sh", "-c", f"{lines[1]}; eval \"printf '%s\\n' $VMM\""], capture_output=True, text=True
    ).stdout.splitlines()
    assert words[-3:] == ["--cmdline", "vmm=64 a=1 b='2'", "/job/kernel"]
    assert {"--kit", "--huge", "--ring"} <= set(words) and "--period-us" not in words
    assert words[words.index("--rounds") + 1] == "5" and words[words.index("--vcpus") + 1] == "2"


def test_the_monitor_compiles_without_a_warning(tmp_path):
    sources = sorted((HERE / "vmm").glob("*.c"))
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run(["gcc", *flags, *map(str, sources)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "name one kernel"),
        (["--vcpus", "3", "--kit", "k"], "it cannot have 3 vCPUs"),
        (["--memory", "4", "k"], "it cannot have 4 MiB"),
        (["--frob", "k"], "see vmm.c"),
    ],
)
def test_the_monitor_refuses_what_it_cannot_do(words, why, tmp_path):
    done = subprocess.run([session.monitor(), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and why in done.stderr


def test_why_a_job_failed_is_said(tmp_path):
    (tmp_path / "status").write_text("1\n")
    (tmp_path / "vmm.txt").write_text("ready\nvmm: the ring of vCPU 0 is full: give it more\n")
    with pytest.raises(GuestError, match="the ring of vCPU 0 is full"):
        session._judge(tmp_path, KvmLabOptions())


def test_a_kit_guest_has_both_back_ends():
    elf = guests.load("known").kernel.read_bytes()
    assert elf.count(b"\x0f\x01\xc1") >= 1  # vmcall, for Xen
    assert b"\x66\xba\xb0\x04\xef" in elf or b"\xba\xb0\x04\x00\x00" in elf  # to the port 0x4b0


def test_the_hosts_script_brings_its_files_as_they_are(tmp_path):
    text = "print('$HOME', \"`x`\", '\\n')\n"
    script = steps.script({"a.py": text}, "a.py 7")
    begin, end = script.index("cat >a.py"), script.rindex("cd /out")
    subprocess.run(["sh", "-c", script[begin:end]], cwd=tmp_path, check=True)
    assert (tmp_path / "a.py").read_text() == text
    assert "python3 /job/a.py 7 >said.txt" in script and "insmod /mods/$m.ko" in script


def test_page_tables_are_told_apart_if_asked_for_and_the_guest_rests(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(session, "run", lambda *arguments: seen.append(arguments[2]))
    monkeypatch.setattr(commands, "show_trace", lambda *arguments: None)
    run("known", "--kvm")
    run("known", "--kvm", "--page-tables", "snapshot")
    assert [options.page_tables for options in seen] == ["off", "snapshot"]
    guest = LabGuest("g", tmp_path / "g.elf", mailbox=True)
    scripts = [session._script(guest, options, 64, 1) for options in seen]
    assert ["--rest-us" in script for script in scripts] == [False, True]
    jobs = [session.describe(guest, options, 64, 1, {}) for options in seen]
    assert [job["page_tables"] for job in jobs] == ["off", "snapshot"]
    with pytest.raises(UsageError, match="has no page_tables 'clear'"):
        run("known", "--kvm", "--page-tables", "clear")
