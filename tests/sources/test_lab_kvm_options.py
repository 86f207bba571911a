# SPDX-License-Identifier: Apache-2.0
import subprocess

import pytest

from pmlkit.cli import lab as commands
from pmlkit.errors import GuestError, UsageError
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.guests import LabGuest
from pmlkit.sources.lab.kvm import session
from pmlkit.sources.lab.kvm.image import HERE
from pmlkit.sources.lab.kvm.session import KvmLabOptions


def run(*words):
    commands.run.main([*words, "-o", "x.trace"], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--kvm", "--stock"), "--stock is of Xen: leave it or --kvm out"),
        (("--kvm", "--ring", "64"), "--ring is of Xen"),
        (("--kvm", "--harvest", "both"), "--harvest is of Xen"),
        (("--kernel", "6.12"), "--kernel is of KVM: add --kvm"),
        (("--kvm-log", "bitmap"), "--kvm-log is of KVM: add --kvm"),
        (("--no-pml",), "--no-pml is of KVM"),
        (("--transparent-hugepages",), "--transparent-hugepages is of KVM"),
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


@pytest.mark.parametrize("wrong", [{"kernel": "5.10"}, {"log": "list"}])
def test_unknown_kernels_and_logs_are_refused(wrong):
    with pytest.raises(UsageError, match="the KVM lab has no"):
        KvmLabOptions(**wrong)


def test_a_guest_that_does_not_fit_is_refused(tmp_path):
    guest = LabGuest("g", tmp_path / "g.elf")
    with pytest.raises(UsageError, match="no room for a guest of 2048 MiB"):
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
