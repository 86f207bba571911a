# SPDX-License-Identifier: Apache-2.0
"""Known answers under KVM: kernels, kinds of log, with and without PML, one and two vCPUs.

A boot for each kernel. Guests of the kit run in it, one after the other, as `kvm_grid` says. Each
combination of guest, log and PML is on one of the kernels; PMLKIT_WHOLE_GRID=1 has all on both.
"""

import base64
import json
import os
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from lab_case import DIRECTORIES, LEAVES, data, frames, needs_lab, own, rounds

from pmlkit.sources.ingest import ingest
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.kvm import session
from pmlkit.sources.lab.kvm.image import HERE, KERNELS
from pmlkit.spool import FRAMES_FILE

pytestmark = [needs_lab, pytest.mark.timeout(1800)]

GUESTS = ("known", "ordered", "rewrites", "reads", "vcpus")
ROUNDS = 3
SHORT_S = 0.001  # of a free run; a round of the log is as long as one of the guest, all the same
# Kind of log, PML, and more: huge pages under the guest, or a guest that runs freely. The module
# kvm_intel is loaded again where PML changes.
WAYS = {
    "6.1": [("ring", True, ""), ("bitmap", True, "free"), ("bitmap", False, ""),
            ("ring", False, "huge")],
    "6.12": [("bitmap", True, ""), ("ring", False, "")],
}  # fmt: skip
if os.environ.get("PMLKIT_WHOLE_GRID"):
    every = [*product(("ring", "bitmap"), (True,), ("", "free")),
             *product(("ring", "bitmap"), (False,), ("", "huge"))]  # fmt: skip
    WAYS = dict.fromkeys(KERNELS, every)
HOST = """
cat >/job/grid.json <<'END'
@GRID@
END
cat >/job/grid.py <<'END'
@DRIVER@
END
grid() {
    export KVM_INTEL
    PYTHONPATH=/job python3 /job/grid.py >grid.txt 2>agent.txt
    echo 0 >agent.status
}
JOB=grid
"""


def name_of(guest, way):
    log, pml, more = way
    return f"{guest}-{log}-{'pml' if pml else 'faults'}{'-' if more else ''}{more}"


def grid(kernel):
    """Return the guests and ways of a kernel; in a free run only a known set can be held."""
    only = {"": GUESTS, "free": ("known",), "huge": ("rewrites",)}
    return [(guest, way) for way in WAYS[kernel] for guest in only[way[2]]]


def described(guest, way, kernel):
    """Return what `kvm_grid` needs for a run."""
    log, pml, more = way
    loaded = guests.load(guest)
    options = session.KvmLabOptions(
        kernel=kernel, log=log, pml=pml, huge=more == "huge", lockstep=more != "free",
        rounds=ROUNDS, period_s=SHORT_S,
    )  # fmt: skip
    job = session.describe(loaded, options, loaded.memory_mib, loaded.vcpus, {})
    return {
        "name": name_of(guest, way),
        "parameters": session.kvm_parameters(options),
        "guest": base64.b64encode(loaded.kernel.read_bytes()).decode(),
        "words": session.vmms_words(loaded, options, loaded.memory_mib, loaded.vcpus),
        "job": job,
    }


@cache
def boot(folder, kernel):
    """Run all guests under a kernel; return the folder of what they have left."""
    driver = (Path(__file__).parent / "kvm_grid.py").read_text()
    run = (HERE / "run.sh").read_text()
    assert run.count("\n$JOB\n") == 1
    runs = json.dumps([described(guest, way, kernel) for guest, way in grid(kernel)])
    host = HOST.replace("@GRID@", runs).replace("@DRIVER@", driver)
    options = session.KvmLabOptions(kernel=kernel, script=run.replace("\n$JOB\n", host + "$JOB\n"))
    spool = folder / kernel
    spool.mkdir()
    session.collect(guests.load("known"), spool, options)
    return spool


@pytest.fixture(scope="session")
def trace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")

    @cache
    def made(kernel, guest, way):
        left, name = boot(folder, kernel), name_of(guest, way)
        lines = (left / "grid.txt").read_text().splitlines()
        assert any(line.startswith(f"{name} ran in ") for line in lines), lines
        spool = folder / f"{kernel}-{name}.trace.spool"
        spool.mkdir()
        (left / f"{name}.spool").rename(spool / FRAMES_FILE)
        (left / f"{name}.report").rename(spool / "report.txt")
        return ingest(spool, folder / f"{kernel}-{name}.trace")

    return made


def known(trace):
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800  # once each
        assert own(entries)


def ordered(trace):
    for number, entries in rounds(trace):
        expected = 4096 + (np.arange(2003) * 769 + number + 1) % 2003
        assert data(entries).gfn.tolist() == expected.tolist()


def rewrites(trace):
    for _, entries in rounds(trace):
        counts = data(entries).gfn.value_counts()
        assert len(counts) == 4800 and (counts == 1).all()


def reads(trace):
    for number, entries in rounds(trace):
        assert data(entries).empty
        if number:  # the first walk of the tables is at the end of round 0
            tables = set(entries.gfn) & frames(trace, "tables")
            assert tables == LEAVES[3] | DIRECTORIES[3]


def vcpus(trace):
    for _, entries in rounds(trace):
        mine = data(entries)
        assert set(mine[mine.vcpu == 0].gfn) == frames(trace, "first")
        assert set(mine[mine.vcpu == 1].gfn) == frames(trace, "second")


ANSWERS = {"known": known, "ordered": ordered, "rewrites": rewrites, "reads": reads, "vcpus": vcpus}


CASES = [(kernel, guest, way) for kernel in KERNELS for guest, way in grid(kernel)]
NAMES = [f"{kernel}-{name_of(guest, way)}" for kernel, guest, way in CASES]


@pytest.mark.parametrize(("kernel", "guest", "way"), CASES, ids=NAMES)
def test_known_answers_are_met(trace, kernel, way, guest):
    made = trace(kernel, guest, way)
    assert made.n_rounds == ROUNDS and made.meta.complete and not made.rounds.lost.any()
    assert made.meta.host["pml"] is way[1] and made.meta.host["release"].startswith(f"{kernel}.")
    ANSWERS[guest](made)
