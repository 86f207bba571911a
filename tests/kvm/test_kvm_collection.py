# SPDX-License-Identifier: Apache-2.0
"""From the command line to a trace: the agent goes as a zipapp to a host that is a folder."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import fake_kvm
import pytest
from fake_kvm import LOG, RESET, dirty
from test_kvm_collecting import by_round, rearm
from waiting import until

from pmlkit import cli
from pmlkit.errors import OutputExists, UsageError
from pmlkit.kvm import collector, shipping
from pmlkit.notebook import live
from pmlkit.sources.host.collection import CollectError, Collection
from pmlkit.sources.kvm.collection import KvmCollectOptions
from pmlkit.sources.kvm.sizes import Sizes

# In the place of the SSH client: runs what SSH would run, and then lets the folder be the host.
REMOTE = """
import shlex, sys
sys.path[:0] = {paths!r}
command = shlex.split(sys.argv[-1])
assert command[:3] == ["exec", "python3", "-c"], command
hook = "import fake_kvm; kvm = fake_kvm.FakeKvm.attached({root!r}); agent.Host = lambda: kvm.host"
code = command[3].replace("    agent.preload()", "    agent.preload(); " + hook)
assert hook in code
sys.argv = ["-c"]
exec(code)
"""


@pytest.fixture
def kvm(tmp_path, monkeypatch):
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    paths = [str(Path(fake_kvm.__file__).parent)]
    (tmp_path / "ssh.py").write_text(REMOTE.format(paths=paths, root=str(kvm.root)))
    monkeypatch.setenv("PMLKIT_SSH", f"{sys.executable} {tmp_path / 'ssh.py'}")
    return kvm


def feeding(kvm, feed):
    """Start a thread that feeds the buffers when the capture is on."""

    def run():
        until(kvm.on)
        feed(collector.now_ns())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def three_rounds(kvm):
    def feed(now):
        rearm(kvm, RESET, now)
        for n, frames in enumerate(([1, 2, 3], [2, 9], [])):
            at = now + 100_000 * n
            if frames:
                log = [dirty(at + 5000 + 5000 * i, 4712, gfn) for i, gfn in enumerate(frames)]
                kvm.feed(LOG, n % 2, log)
            rearm(kvm, RESET, at + 90_000)

    return feed


def test_rounds_are_seen_as_they_come_and_become_a_trace(kvm, tmp_path):
    feeding(kvm, three_rounds(kvm))
    told = []
    options = KvmCollectOptions(rounds=3, marks=False)
    run = Collection("web1", tmp_path / "x.trace", options, "kvm", heard=told.append)
    trace = run.run()
    assert [(s.round, s.pages, s.distinct, s.entries, s.lost) for s in run.seen] == [
        (0, 3, 3, 3, 0), (1, 2, 4, 2, 0), (2, 0, 4, 0, 0),
    ]  # fmt: skip
    assert by_round(trace) == [[1, 2, 3], [2, 9], []]
    assert trace.meta.options["collected_over"] == "ssh"
    assert {(s.exits, s.fill) for s in run.seen} == {(None, None)}  # KVM counts neither
    assert trace.rounds.t_end_ns.tolist() == [s.t_ns for s in run.seen]
    why = "this kernel has neither BTF nor a PMU of kprobes"
    assert told[:2] == [f"the log is captured by ftrace, not by BPF: {why}", "capture is on"]
    assert "page tables are not distinguished" in told[2]  # no memory slot was seen
    assert not (tmp_path / "x.trace.spool").exists()
    assert kvm.instances() == {}


def test_the_command_line_makes_the_same(kvm, tmp_path, capsys):
    feeding(kvm, three_rounds(kvm))
    out = tmp_path / "x.trace"
    words = ["collect", "--kvm", "web1", "-o", str(out), "--host", "kvm", "--rounds", "3"]
    assert cli.main([*words, "--no-marks", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [told[name] for name in ("rounds", "entries", "lost", "mode")] == [3, 5, 0, "log"]
    assert cli.main(["wss", str(out), "--window", "100us"]) == 0


def test_an_error_of_the_agent_is_the_collections(kvm, tmp_path):
    with pytest.raises(CollectError, match="there is no VM web2: the running ones are web1"):
        Collection("web2", tmp_path / "x.trace", KvmCollectOptions(), "kvm").run()
    assert not list(tmp_path.glob("x.trace*"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing to log: give a DOMAIN of Xen, or --kvm VM"),
        (["dom", "--kvm", "vm"], "nothing to log"),
        (["--kvm", "vm", "--harvest", "both"], "--harvest both is for Xen: KVM supports"),
        (["dom", "--switch", "qmp"], "--switch is an option for KVM"),
        (["--kvm", "vm", "--mode", "stock"], "--mode stock is for Xen: KVM has log, soft-dirty"),
        (["dom", "--mode", "soft-dirty"], "--mode soft-dirty is for KVM: Xen has auto"),
    ],
)
def test_options_of_the_other_hypervisor_are_refused(words, why, tmp_path, capsys):
    assert cli.main(["collect", *words, "-o", str(tmp_path / "x.trace")]) == 2
    assert why in capsys.readouterr().err


def test_the_zipapp_is_the_same_every_time_and_has_all_that_it_imports(tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(shipping.zipapp())
    assert path.read_bytes() == shipping.zipapp()
    with zipfile.ZipFile(path) as archive:
        assert "pmlkit/kvm/agent.py" in archive.namelist()
    call = [sys.executable, "-I", "-S", str(path)]
    job = json.dumps({"vm": "/no/such/socket"}) + "\n"
    done = subprocess.run(call, input=job, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("agent: error: there is no VM /no/such/socket")


def old_python():
    """Return Python 3.9, if it is installed."""
    found = os.path.expanduser("~/.pyenv/versions")
    known = sorted(Path(found).glob("3.9.*/bin/python3.9"))
    return str(known[0]) if known else shutil.which("python3.9")


@pytest.mark.skipif(not old_python(), reason="there is no Python 3.9 here")
def test_the_agent_runs_with_python_3_9(tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(shipping.zipapp())
    done = subprocess.run([old_python(), str(path)], input="[]\n", capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "agent: error: the job is not a JSON object\n"


def test_the_notebooks_collect_by_the_same_way(kvm, tmp_path):
    feeding(kvm, three_rounds(kvm))
    kvm.listen("/run/web1.qmp")
    with pytest.raises(CollectError, match="no connection to /run/web1.qmp"):
        live.start("kvm", "/run/web1.qmp", str(tmp_path), "kvm").run()
    run = live.start("kvm", "web1", str(tmp_path), "kvm", rounds=3)
    assert run.run().n_rounds == 3
    assert run.trace.path == tmp_path / "web1.trace"


def test_sizes_become_a_table(kvm, tmp_path, capsys):
    """Of soft-dirty bits here, as their file needs no kernel behind it: the way is the same."""
    folder = kvm.root / f"proc/{kvm.pid}"
    (folder / "maps").write_text("10000000-10010000 rw-p 0 0 0 x\n")
    (folder / "clear_refs").write_text("")
    with open(folder / "pagemap", "wb") as file:
        file.truncate(0x10010 * 8)
        file.seek(0x10003 * 8)
        file.write((1 << 55).to_bytes(8, "little"))
    options = KvmCollectOptions(mode="soft-dirty", rounds=2, period_s=0.05)
    with pytest.raises(UsageError, match="name the output NAME.csv"):
        Sizes("web1", tmp_path / "x.trace", options, "kvm").run()
    run = Sizes("web1", tmp_path / "x.csv", options, "kvm")
    run.run()
    table = run.table
    assert table.pages.tolist() == [1, 1]
    assert table.bytes.tolist() == [4096, 4096]
    assert (
        (tmp_path / "x.csv")
        .read_text()
        .startswith("t_ns,length_ns,pages,bytes,agent_cpu_ns,clock_ns\n")
    )
    assert not (tmp_path / "x.csv.spool").exists()
    with pytest.raises(OutputExists):
        Sizes("web1", tmp_path / "x.csv", options, "kvm").run()
    words = ["collect", "--kvm", "web1", "--mode", "lru-gen", "-o", str(tmp_path / "y.csv")]
    assert cli.main([*words, "--host", "kvm"]) == 1
    assert "does not see the guest's accesses: Linux 6.12 or later does" in capsys.readouterr().err
