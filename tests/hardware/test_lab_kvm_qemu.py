# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU in the KVM lab: it logs at our request, and what may happen to its VM meanwhile.

All in one boot: QEMU with bitmaps, then another with rings. What their command lines say of rings
is wrong on purpose: QEMU refuses the mode that they speak for, and the other one is taken.
"""

import json
import shutil
from pathlib import Path

import pytest
from lab_case import data, frames, needs_lab, own, rounds

from pmlkit.sources.ingest import ingest
from pmlkit.sources.lab.kvm import session
from pmlkit.sources.lab.kvm.image import HERE
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool
from pmlkit.trace.known import measure

pytestmark = [needs_lab, pytest.mark.timeout(1800)]

PAGES = 1802  # the guest's 1800, its mailbox and its stack
HOST = """
cat >/job/trouble.py <<'END'
@TROUBLE@
END
printf '[accel]\\n  accel = "kvm"\\n  dirty-ring-size = "65536"\\n' >/job/ring.cfg
trouble() { PYTHONPATH=/job python3 /job/trouble.py $1 >>trouble.txt 2>>agent2.txt; }
plain="$VMM"
VMM="$plain -qmp unix:/job/qmp2,server=on,wait=off -fw_cfg name=opt/x,string=dirty-ring-size=9"
qemu_then() {
    : >report.txt
    start_qemu
    agent /job/qmp | dd of=/dev/sdb bs=64k seek=$SPOOL_BLOCK 2>/dev/null
    trouble bitmap
    wait $vmm
    rm guest.txt
    VMM="-readconfig /job/ring.cfg $plain"
    start_qemu
    trouble ring
    kill $vmm
    wait $vmm
}
JOB=qemu_then
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    trouble = (Path(__file__).parent / "qemu_trouble.py").read_text()
    run = (HERE / "run.sh").read_text()
    assert run.count("\n$JOB\n") == 1
    script = run.replace("\n$JOB\n", HOST.replace("@TROUBLE@", trouble) + "$JOB\n")
    options = session.KvmLabOptions(
        vmm="qemu", log="bitmap", rounds=3, period_s=1.0, script=script, keep=True
    )
    return session.run("known", tmp_path_factory.mktemp("qemu") / "qemu.trace", options)


@pytest.fixture(scope="module")
def spool(trace):
    return trace.path.with_name(trace.path.name + ".spool")


@pytest.fixture(scope="module")
def other(spool, tmp_path_factory):
    """Return the trace of another spool that the host wrote."""

    def made(name):
        out = tmp_path_factory.mktemp(name) / f"{name}.trace"
        folder = out.with_name(out.name + ".spool")
        folder.mkdir()
        shutil.copy(spool / f"{name}.spool", folder / FRAMES_FILE)
        return ingest(folder, out)

    return made


def last_frame(path):
    *_, (_, payload) = read_spool(path)
    return json.loads(bytes(payload))


def is_known(entries):
    """Whether a round has the pages that the guest writes, and no others."""
    hot_and_cold = set(range(4096, 4396)) | set(range(5096, 6596))
    return set(data(entries).gfn) == hot_and_cold and own(entries)


def test_qemus_measurement_is_a_round_with_the_known_pages(trace):
    assert trace.n_rounds == 3 and trace.meta.complete and trace.meta.host["pml"]
    assert trace.meta.options["switch"] == "qmp" and trace.meta.options["vmm"]["version"]
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert own(entries)
    assert [(k.expected, k.met) for k in measure(trace)] == [(300, True), (1500, True)]
    assert not trace.rounds.lost.any()


def test_qemus_own_rate_is_that_of_the_same_round(trace, spool):
    """QEMU counts whole MiB per second; it waits for a second, or longer if it is late."""
    pages = [entries.gfn.nunique() for _, entries in rounds(trace)]
    assert pages == [PAGES] * 3
    length_s = (trace.rounds.t_end_ns - trace.rounds.t_start_ns) / 1e9
    assert (length_s > 0.999).all()  # its clock has whole ms
    rates = last_frame(spool / FRAMES_FILE)["mib_per_s"]
    for rate, longest_s in zip(rates, length_s + 0.001, strict=True):
        assert int(PAGES * 4096 / 2**20 / longest_s) <= rate <= PAGES * 4096 >> 20


def test_what_goes_wrong_is_one_line_that_says_what_to_do(spool):
    lines = (spool / "trouble.txt").read_text().splitlines()
    assert lines == [
        "busy: QEMU does not answer at /job/qmp: another client uses it: end that client, or give "
        "QEMU a second -qmp",
        "short: this QEMU does not support measurements of 0.5 s: before QEMU 8.2 a period is "
        "whole seconds: --period 1s",
        "measuring: QEMU is measuring the VM's dirty rate for another client: wait for its end, or "
        "use --switch listen",
        "paused: all rounds are complete",
        "life: the VM has ended",
        "ring: all rounds are complete",
    ]
    assert "Traceback" not in (spool / "agent2.txt").read_text()


def test_a_paused_vm_has_an_empty_round_and_the_trace_says_why(other):
    trace = other("paused")
    assert trace.n_rounds == 1 and trace.meta.complete and trace.to_pandas().empty
    assert "the VM is paused: nothing is logged until it runs" in trace.meta.notes


def test_nothing_is_lost_of_a_vm_that_is_paused_reset_and_ended(other):
    trace = other("life")
    said = ("the VM was paused: nothing is logged until it runs", "the VM runs again",
            "the VM was reset", "it ended because: the VM has ended")  # fmt: skip
    places = [trace.meta.notes.index(note) for note in said]
    assert places == sorted(places)
    assert trace.meta.complete and not trace.rounds.lost.any()
    assert sum(is_known(entries) for _, entries in rounds(trace)) >= 4
    empty = trace.n_rounds - trace.to_pandas()["round"].nunique()
    assert empty >= 1  # while it was paused


def test_rings_are_re_armed_by_qemus_reaper_and_each_round_is_exact(other, spool):
    trace = other("ring")
    assert last_frame(spool / "ring.spool")["rings"] is True
    assert trace.n_rounds == 3
    for number, entries in rounds(trace):
        length_s = (trace.rounds.t_end_ns - trace.rounds.t_start_ns)[number] / 1e9
        assert length_s > 0.8 and is_known(entries)


def test_two_vcpus_are_logged_each_with_its_pages(tmp_path):
    """In a boot of its own: QEMU's second vCPU is started by its local APIC."""
    options = session.KvmLabOptions(vmm="qemu", log="bitmap", rounds=2, period_s=1.0, keep=True)
    trace = session.run("vcpus", tmp_path / "two.trace", options)
    assert trace.n_rounds == 2 and trace.meta.complete
    assert trace.meta.domain["vcpus"] == 2
    for number, entries in rounds(trace):
        for vcpu, region in enumerate(("first", "second")):
            written = data(entries[entries.vcpu == vcpu])
            assert set(written.gfn) == frames(trace, region), (number, region)
    assert not trace.rounds.lost.any()
