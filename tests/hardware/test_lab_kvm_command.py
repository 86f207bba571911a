# SPDX-License-Identifier: Apache-2.0
"""`pmlkit collect --kvm VM --host HOST` as a user types it: here, and with the lab's host by SSH.

One boot. The VMs are our monitor, which logs by itself, and Debian's QEMU, which logs when asked.
"""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from lab_case import data, needs_lab, own, rounds
from lab_ssh import reached, server_files
from needs import needs_ssh

import pmlkit
from pmlkit.sources.lab import disks, guests
from pmlkit.sources.lab.bochs import Limits
from pmlkit.sources.lab.kvm import qemu, session
from pmlkit.sources.lab.kvm.image import assemble

pytestmark = [needs_lab, needs_ssh, pytest.mark.timeout(1800)]

KNOWN = set(range(4096, 4396)) | set(range(5096, 6596))  # what the guest writes, again and again
LIMIT_S = 1700  # against hangs, as the other limits here
# Ends the VM when it has been logged for some rounds. A new instance is on, too, before it is set
# up: then it follows no threads.
END_LATER = """\
cd /sys/kernel/tracing/instances
until grep -qs '[0-9]' *-calls/set_event_pid && grep -qs 1 *-calls/tracing_on; do sleep 1; done
rounds() { wc -l </tmp/own/rounds.txt; }
enough=$(($(rounds) + 4))
until [ $(rounds) -ge $enough ]; do sleep 1; done
kill @VMM@
"""
HOST = """\
for m in $(cat /mods/kvm-order); do
    [ $m = kvm-intel ] && parameters="$KVM_INTEL" || parameters=
    insmod /mods/$m.ko $parameters || exit 3
done
echo 0 >/proc/sys/kernel/printk  # the console is the line now
cat >/bin/start <<'END'
mkdir -p /tmp/$1
cd /tmp/$1
name=$1
shift
LD_LIBRARY_PATH=/job/qemu "$@" >said.txt 2>&1 </dev/null &
echo $! >/run/$name
renice -n 10 -p $!
END
chmod 755 /bin/start
python3 /job/kvm_line.py
status=$?
kill $(cat /run/own /run/qemu) 2>/dev/null
exit $status
"""


class Host:
    """The lab's host, which a test reaches as a user does."""

    def __init__(self, client, folder):
        self.client, self.folder = client, folder
        self.environment = {**os.environ, "PMLKIT_SSH": client}

    def run(self, command):
        """Run a command over SSH; return what it prints."""
        words = [*shlex.split(self.client), "lab", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=True,
                              stdin=subprocess.DEVNULL)  # fmt: skip
        return done.stdout.strip()

    def start(self, name, *words):
        """Start a VMM; return its process id."""
        self.run(shlex.join(["start", name, *words]))
        return self.run(f"cat /run/{name}")

    def left(self):
        """Return what tracefs has of ours."""
        folder = "/sys/kernel/tracing"
        return self.run(f"ls {folder}/instances; cat {folder}/kprobe_events")

    def collect(self, vm, name, *words):
        """Start `pmlkit collect --kvm`."""
        call = ["collect", "--kvm", vm, "--host", "lab", "-o", f"{name}.trace", *words]
        return subprocess.Popen(
            [sys.executable, "-m", "pmlkit", *call], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip


def own_words(guest):
    """Return our monitor's command line: a guest that runs freely, logged for ever."""
    return ["/job/vmm", "--memory", str(guest.memory_mib), "--ring", "65536", "--kit",
            "--period-us", "500000", "--go", "/job/run",
            "--cmdline", f"vmm={guest.memory_mib} {guest.cmdline}", "/job/kernel"]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The booted host; it has Python, an SSH server and two VMMs, and nothing of pmlkit."""
    keys, folder = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("boot")
    options = session.KvmLabOptions(script=HOST)
    guest = guests.load("known")
    files = {
        "kernel": guest.kernel.read_bytes(),
        "vmm": session.monitor().read_bytes(),
        "run": session._script(guest, options, guest.memory_mib, 1).encode(),
        **server_files(keys),
        **qemu.files()[0],
    }
    disks.write_job(folder, guest.name, files)
    lab = assemble("6.1", session.machine_mib(2 * guest.memory_mib))
    limits = Limits(host_s=7200, guest_s=36_000)
    with reached(lab, lab.snapshot(), folder, limits, keys) as (machine, client):
        yield Host(client, tmp_path_factory.mktemp("traces"))
        ended = Host(client, folder)
        ended.run("touch /tmp/done")
        machine.wait()
    disks.take_results(folder / "out.img", folder)
    assert (folder / "status").read_text().strip() == "0"


@pytest.fixture(scope="module")
def own_vm(host):
    """The process id of our monitor, which runs a guest of known writes."""
    return host.start("own", *own_words(guests.load("known")))


@pytest.fixture(scope="module")
def qemu_vm(host):
    """The QMP socket of QEMU, which runs the same guest."""
    guest = guests.load("known")
    words = qemu.arguments(guest.name, guest.memory_mib, 1, guest.cmdline, ring=0)
    host.start("qemu", f"{qemu.FOLDER}/qemu", *words)
    host.run("until grep -q ready /out/guest.txt; do usleep 20000; done")
    return qemu.SOCKET


def ended(process):
    """Wait for a command; return its status, its result, and the lines that it wrote."""
    result, lines = process.communicate(timeout=LIMIT_S)
    return process.returncode, result, lines


def assert_known(trace):
    """Each round has what the guest writes, and nothing else but the kit's own pages."""
    for number, entries in rounds(trace):
        assert set(data(entries).gfn) == KNOWN, number
        assert own(entries)
    assert not trace.rounds.lost.any()


def test_a_vm_by_its_process(host, own_vm):
    status, result, lines = ended(host.collect(own_vm, "own", "--rounds", "3", "--json"))
    assert status == 0, lines
    trace = pmlkit.open(host.folder / "own.trace")
    assert trace.n_rounds == 3 and trace.meta.complete and trace.meta.host["pml"]
    assert json.loads(result)["rounds"] == 3
    assert_known(trace)
    options = trace.meta.options
    assert (options["collected_over"], options["switch"]) == ("ssh", "listen")
    assert options["capture"]["kind"] == "bpf"
    assert host.left() == ""
    assert [path.name for path in host.folder.iterdir()] == ["own.trace"]


def test_ctrl_c_keeps_the_rounds_so_far(host, own_vm):
    process = host.collect(own_vm, "stopped")
    while not (line := process.stderr.readline()).startswith("round 1:"):
        assert line, "the command has ended"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to SSH, too
    status, _, lines = ended(process)
    assert status == 0, lines
    trace = pmlkit.open(host.folder / "stopped.trace")
    assert trace.n_rounds >= 2 and trace.meta.complete
    assert_known(trace)
    assert host.left() == ""


def test_a_vm_that_ends_ends_the_command(host, own_vm):
    later = shlex.quote(END_LATER.replace("@VMM@", own_vm))
    host.run(f"sh -c {later} >/tmp/x 2>&1 </dev/null &")
    status, _, lines = ended(host.collect(own_vm, "gone"))
    assert status == 0, lines
    trace = pmlkit.open(host.folder / "gone.trace")
    assert "it ended because: the VM has ended" in trace.meta.notes
    assert trace.n_rounds > 1 and trace.meta.complete
    assert host.left() == ""


def test_a_vm_by_its_qmp_socket(host, qemu_vm):
    call = ("--rounds", "2", "--period", "1s")
    status, _, lines = ended(host.collect(qemu_vm, "qemu", *call))
    assert status == 0, lines
    trace = pmlkit.open(host.folder / "qemu.trace")
    assert trace.n_rounds == 2 and trace.meta.complete
    assert_known(trace)
    assert trace.meta.options["switch"] == "qmp" and trace.meta.options["vmm"]["version"]
    assert host.left() == ""


@pytest.mark.usefixtures("qemu_vm")
def test_a_vm_that_is_not_there_is_one_line_that_names_those_that_are(host):
    status, _, lines = ended(host.collect("web1", "none"))
    (line,) = lines.splitlines()
    assert status == 1 and "there is no VM web1: the running ones are known (" in line
    assert not list(host.folder.glob("none*"))
