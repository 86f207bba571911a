# SPDX-License-Identifier: Apache-2.0
"""The same programs in three worlds: QEMU's recorder, and Xen and KVM on a processor with PML.

The recorder sees every access: its writes are the truth. What is compared, round by round:

- of the kit's guests all frames of the data area (4096 and above), in the order of the log, and
  below it the rest but the kit's own mailbox and stacks and the page tables. The recorder sees no
  walks of the processor, and the hypervisors write to the mailbox;
- the leaf tables and directories that the walks write, between the two hypervisors;
- of a Linux guest the frames of its declared regions, in windows that hold a whole sweep. Where its
  kernel puts them differs from world to world, so a set is of all frames of a region, or of none.
"""

from itertools import pairwise

import numpy as np
import pytest
from lab_case import DIRECTORIES, LEAVES, MAILBOX, STACKS, data, frames, needs_lab

import pmlkit

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
WORLDS = ("recorder", "xen", "kvm")
# These guests, with these options, are those of other tests: each is booted once. In the KVM lab
# `rewrites` is logged by write faults into huge pages, and `ordered` by BPF.
ROUNDS = 4
PROGRAMS = {
    "known": ({}, {"bitmaps": True}, {"rounds": 4}),
    "ordered": ({}, {}, {"rounds": 3, "log": "bitmap", "kernel": "6.12", "capture": "bpf"}),
    "rewrites": ({}, {}, {"rounds": 3, "pml": False, "huge": True}),
    "reads": ({"levels": "3"}, {}, {"rounds": 4, "page_tables": "snapshot"}),
}
OWN = {MAILBOX, *STACKS}
TABLES = range(2048, 2112)
HOTCOLD = {"phase_ms": "1200"}


@pytest.fixture(scope="module", params=PROGRAMS)
def worlds(request, lab, kvm, recorded):
    """The traces of a program, by world."""
    name = request.param
    settings, xen, linux = PROGRAMS[name]
    return {
        "recorder": recorded(name, ROUNDS, settings),
        "xen": lab.run(name, rounds=ROUNDS, settings=settings, **xen),
        "kvm": kvm(name, **linux),
    }


def log(trace):
    """Return the rounds of a log: that of the guest's round 1 first."""
    entries = trace.pml.to_pandas()
    first = trace.meta.source == "recorder"  # its round 0 is what comes before
    number = range(first, trace.n_rounds)
    return [entries[entries["round"] == n] for n in number]


def together(worlds):
    """Yield (number, {world: its entries}) for the rounds that all have."""
    logs = {world: log(trace) for world, trace in worlds.items()}
    count = min(map(len, logs.values()))
    assert count >= 3
    for number in range(count):
        yield number, {world: of[number] for world, of in logs.items()}


def test_the_data_is_the_same_in_the_same_order(worlds):
    for number, of in together(worlds):
        order = {world: data(entries)["gfn"].tolist() for world, entries in of.items()}
        assert order["recorder"] == order["xen"] == order["kvm"], number


def test_all_else_is_the_kits_own(worlds):
    for number, of in together(worlds):
        rest = {w: set(e["gfn"]) - set(data(e)["gfn"]) - set(TABLES) for w, e in of.items()}
        for world in WORLDS:
            assert rest[world] <= OWN, (number, world)


def test_the_hypervisors_log_the_same_tables(worlds):
    for number, of in together(worlds):
        walked = {w: set(of[w]["gfn"]) & set(TABLES) for w in ("xen", "kvm")}
        if number:  # the first walk of the tables is at the end of round 0
            assert walked["xen"] == walked["kvm"]
            reads = worlds["kvm"].meta.domain["name"] == "reads"
            assert walked["kvm"] == (LEAVES[3] | DIRECTORIES[3] if reads else set())


# ---- Linux ----


@pytest.fixture(scope="module", params=WORLDS)
def hotcold(request, lab, kvm):
    if request.param == "recorder":
        return pmlkit.open(pmlkit.bundled("hotcold"))
    if request.param == "xen":
        return lab.run("hotcold", vcpus=2, settings=HOTCOLD)
    return kvm("hotcold", vcpus=2, page_tables="snapshot")


def windows(trace, phase, frame):
    """Yield the frames written from each round of a phase that logged a frame to the next such one.

    The guest writes its regions in turn. So between two writes of a frame lies one of each other,
    however long an emulated processor took for them.
    """
    entries = trace.to_pandas(kinds="w") if trace.meta.kind == "access" else trace.to_pandas()
    by_round = {number: set(of) for number, of in entries.groupby("round")["gfn"]}
    rounds = np.flatnonzero(trace.phase_of_rounds() == phase)
    met = [number for number in rounds if frame in by_round.get(number, ())]
    for first, last in pairwise(met):
        yield set().union(*(by_round.get(number, set()) for number in range(first, last + 1)))


@pytest.mark.parametrize(("phase", "names"), [("hotcold", {"hot", "cold"}), ("hot", {"hot"})])
def test_a_linux_guests_regions_are_the_same(hotcold, phase, names):
    regions = {name: frames(hotcold, name) for name in ("hot", "cold")}
    assert {name: len(of) for name, of in regions.items()} == {"hot": 300, "cold": 1500}
    declared, expected = regions["hot"] | regions["cold"], set().union(*map(regions.get, names))
    slowest = regions["cold" if "cold" in names else "hot"]
    seen = list(windows(hotcold, phase, min(slowest)))
    assert len(seen) >= 2
    for number, written in enumerate(seen):
        assert written & declared == expected, number
