# SPDX-License-Identifier: Apache-2.0
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from pmlkit.errors import GuestError
from pmlkit.sources.lab import bochs
from pmlkit.sources.lab.bochs import Bochs, Limits, Machine


def emulator(program):
    """A program in the emulator's place; its arguments are Bochs'."""
    return Bochs((sys.executable, "-c", program), "", "0")


def test_a_machine_that_ends_is_waited_for(tmp_path):
    with Machine(emulator("print('hello')"), tmp_path, Limits()) as machine:
        machine.wait()
    assert (tmp_path / "bochs.out").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(host_s=0.4), "did not finish within 0.4 s"),
        (Limits(quiet_s=0.4), "clock has stood still"),
        (Limits(guest_s=9), "did not finish within 9 s of its own time"),
    ],
)
def test_each_limit_ends_it(tmp_path, limits, why):
    (tmp_path / "pulse.txt").write_text("1.50\n10.25\n")
    with (
        Machine(emulator("while True: pass"), tmp_path, limits) as machine,
        pytest.raises(GuestError, match=why),
    ):
        machine.wait()
    assert machine.process.poll() is not None


def test_an_emulator_that_is_killed_is_said_to_be(tmp_path):
    dying = emulator("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with (
        Machine(dying, tmp_path, Limits()) as machine,
        pytest.raises(GuestError, match=r"the emulator was killed \(SIGKILL\)"),
    ):
        machine.wait()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
def test_the_emulator_does_not_outlive_us(tmp_path):
    program = f"""
import sys, time
from pathlib import Path
from pmlkit.sources.lab.bochs import Bochs, Limits, Machine
up = Path({str(tmp_path)!r}) / "up"
sleep = f"import time; open({{str(up)!r}}, 'w').close(); time.sleep(600)"
machine = Machine(Bochs((sys.executable, "-c", sleep), "", "0"), up.parent, Limits())
while not up.exists():
    time.sleep(0.01)
print(machine.process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: state_of(pid) in (None, "Z"), "the emulator still runs")


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_a_deadlocked_emulator_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(bochs, "_STALL_S", 0.5)
    sleeper = emulator("import time; time.sleep(600)")
    with (
        Machine(sleeper, tmp_path, Limits()) as machine,
        pytest.raises(GuestError, match="deadlocked"),
    ):
        machine.wait()


def test_an_emulator_that_is_stopped_is_not_deadlocked(tmp_path, monkeypatch):
    monkeypatch.setattr(bochs, "_STALL_S", 0.1)
    with Machine(emulator("import time; time.sleep(600)"), tmp_path, Limits(host_s=2)) as machine:
        machine.process.send_signal(signal.SIGSTOP)
        with pytest.raises(GuestError, match="did not finish within 2 s"):
            machine.wait()


def test_a_line_of_the_clock_that_is_being_written_is_left_out(tmp_path):
    with Machine(emulator(""), tmp_path, Limits()) as machine:
        assert machine.guest_s() == 0
        (tmp_path / "pulse.txt").write_text("36.65\n38.7")
        assert machine.guest_s() == 36.65


def test_the_process_dies_with_the_machine(tmp_path):
    with Machine(emulator("import time; time.sleep(600)"), tmp_path, Limits()) as machine:
        pid = machine.process.pid
    assert subprocess.run(["kill", "-0", str(pid)], capture_output=True).returncode
