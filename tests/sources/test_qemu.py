# SPDX-License-Identifier: Apache-2.0
"""QEMU is found, checked and called as the recorder needs it."""

from types import SimpleNamespace

import pytest

from pmlkit.errors import MissingTool, PmlkitError, UsageError
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.units import check_memory_mib


@pytest.fixture
def fake_tools(tmp_path, monkeypatch):
    """Return a function that makes a program of the given name the only one on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()

    def make(name, text):
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("text", "unit", "count"),
    [("10ms", "ns", 10_000_000), ("1s", "ns", 10**9), ("10Minsn", "insn", 10**7)],
)
def test_a_period_is_time_or_instructions(text, unit, count):
    period = qemu.parse_period(text)
    assert (period.unit, period.count) == (unit, count)
    assert (period.ns, period.insn) == ((count, None) if unit == "ns" else (None, count))


@pytest.mark.parametrize(
    "text",
    ["1ns", "999insn", "25h", "86401Ginsn", "9" * 30 + "insn", "soon", "10Minsns", "-1ms", ""],
)
def test_other_periods_are_wrong_use(text):
    with pytest.raises(UsageError):
        qemu.parse_period(text)


@pytest.mark.parametrize("memory_mib", [0, 63, 3073])
def test_memory_out_of_reach_is_wrong_use(memory_mib):
    with pytest.raises(UsageError, match="64 MiB to 3 GiB"):
        check_memory_mib(memory_mib, qemu.MEMORY_MIB, "the recorder")


def test_a_missing_qemu_is_named(fake_tools):
    with pytest.raises(MissingTool, match="apt-get install qemu-system-x86"):
        qemu.version()


def test_a_missing_compiler_is_named(fake_tools):
    with pytest.raises(MissingTool, match="apt-get install gcc"):
        qemu.build_plugin()


@pytest.mark.parametrize("output", ["QEMU emulator version 10.0.2 (Debian)", "nonsense"])
def test_a_qemu_that_does_not_fit_is_refused(fake_tools, output):
    fake_tools(qemu.QEMU, f"echo '{output}'")
    with pytest.raises(PmlkitError, match="versions 5 to 8"):
        qemu.version()


def test_the_version_is_read(fake_tools):
    fake_tools(qemu.QEMU, "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)'")
    assert qemu.version() == "7.2.22"


def test_a_plugin_that_does_not_build_says_why_in_a_line(fake_tools):
    fake_tools("gcc", "echo 'x.c:1: error: no such thing' >&2; exit 1")
    with pytest.raises(PmlkitError, match="no such thing") as caught:
        qemu.build_plugin()
    assert "\n" not in str(caught.value)


def test_a_comma_in_a_path_does_not_split_the_option():
    argument = qemu.plugin_argument("/a,b.so", 5, 64, qemu.Period("insn", 7000), False, True)
    assert argument.startswith("file=/a,,b.so,fd=5,ram=67108864,clock=host,")
    assert argument.endswith("period=7000,unit=insn,boot=on,check=off")


def test_the_deterministic_machine_counts_instructions():
    image = SimpleNamespace(kernel="k", initrd="i", cmdline="quiet")
    plain = qemu.command_line(image, 64, "c", "r")
    counted = qemu.command_line(image, 64, "c", "r", deterministic=True, plugin="file=x")
    assert "-icount" not in plain and "-plugin" not in plain
    assert counted[: len(plain)] == plain
    assert counted[counted.index("-icount") + 1] == "shift=3,sleep=off"
    assert counted[-2:] == ["-plugin", "file=x"]


def test_machine_and_plugin_have_the_same_clock():
    image = SimpleNamespace(kernel="k", initrd="i", cmdline="quiet")
    command = qemu.command_line(image, 64, "c", "r", deterministic=True, icount_shift=1)
    period = qemu.Period("insn", 7000)
    argument = qemu.plugin_argument("a.so", 5, 64, period, True, True, icount_shift=1)
    assert command[command.index("-icount") + 1] == "shift=1,sleep=off"
    assert ",clock=icount,shift=1," in argument


def test_an_instruction_lasts_as_long_as_the_shift_says():
    assert RecordOptions().ns_per_insn == 8
    assert RecordOptions(icount_shift=0).ns_per_insn == 1
    assert RecordOptions(clock="host").ns_per_insn is None


@pytest.mark.parametrize("how", [{"icount_shift": -1}, {"icount_shift": 11}])
def test_no_instruction_is_shorter_or_longer_than_qemu_can(how):
    with pytest.raises(UsageError, match="0 to 10"):
        RecordOptions(**how)


def test_the_clock_of_the_host_has_no_instructions():
    with pytest.raises(UsageError, match="icount-shift"):
        RecordOptions(clock="host", icount_shift=1)
