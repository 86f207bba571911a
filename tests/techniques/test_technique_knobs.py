# SPDX-License-Identifier: Apache-2.0
"""The two knobs of techniques, looks per T and frames watched, and what they mean everywhere."""

import numpy as np
import pytest
import synthetic_vm as vm
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import techniques
from pmlkit.techniques import TECHNIQUES, scores
from pmlkit.techniques.recent import Recent

NAMES = sorted(TECHNIQUES)
SWEPT = [name for name in NAMES if TECHNIQUES[name].knobs()]
CONTROL_LOOPS = {
    "exclusive-cache", "far-memory", "mpa", "self-ballooning", "senpai", "zballoond",
}  # fmt: skip


def estimates(technique, recorded, **more):
    return techniques.run(technique, recorded, vm.WINDOW_NS, **more).estimates


def turned(name, looks, watched=vm.PAGES):
    return techniques.make(name).turned(looks, watched)


def wandering(seed=3, rounds=200):
    """A working set that changes all the time, a third of it written."""
    rng = np.random.default_rng(seed)
    sets = [np.unique(rng.integers(40 * r, 40 * r + 300, 90) % vm.PAGES) for r in range(rounds)]
    return vm.make(sets, [frames[::3] for frames in sets], disk=True)


def test_all_but_control_loops_can_be_swept():
    assert set(NAMES) - set(SWEPT) == CONTROL_LOOPS


@pytest.mark.parametrize("name", NAMES)
def test_a_technique_made_without_parameters_is_left_alone_by_what_it_lacks(name):
    technique = techniques.make(name)
    same = technique.turned(7, 100)
    changed = {
        field
        for field in technique.parameters()
        if getattr(same, field) != getattr(technique, field)
    }
    assert changed <= set(technique.knobs())
    assert all(getattr(same, knob) == {"looks": 7, "watched": 100}[knob] for knob in same.knobs())


@pytest.mark.parametrize("looks", [1, 5])
@pytest.mark.parametrize("name", SWEPT)
def test_nothing_is_scaled_once_looks_are_given(name, looks):
    """Whatever the time scale: the same estimates, T / looks apart."""
    recorded, technique = wandering(), turned(name, looks, 500)
    table = estimates(technique, recorded, scale=1)
    assert table.equals(estimates(technique, recorded, scale=1 / 300))
    once = name in ("damon", "intermittent", "telescope")
    most = 2 if "mglru" in name else looks  # Linux keeps four generations
    apart = vm.WINDOW_NS if once else vm.WINDOW_NS // min(looks, most)
    assert set(np.diff(table["t_ns"])) == {apart}


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_at_equal_looks_all_that_see_every_access_say_the_same(looks):
    """The referee's finding: what differs is the number of looks, and the price."""
    recorded = wandering()
    truth = scores.truth(recorded, vm.WINDOW_NS)
    names = ("prl", "idle-pages", "pml-page-tables", "flag-sample", "pruned-scan", "cold-age")
    names += ("flag-sample-pml", *(["mglru"] if looks <= 2 else []))
    found = [scores.accuracy(estimates(turned(name, looks), recorded), truth) for name in names]
    assert found[0]["mae"] > 0
    assert found == [found[0]] * len(names)


@pytest.mark.parametrize("name", ["prl", "idle-pages", "pml-page-tables", "flag-sample"])
def test_an_estimate_is_w_as_of_the_look(name):
    recorded = wandering()
    truth = scores.truth(recorded, vm.WINDOW_NS)
    table = estimates(turned(name, 10), recorded)
    assert scores.accuracy(table, truth)["mae"] == 0


def test_the_published_sample_of_flags_is_a_share_of_memory():
    events = techniques.run("flag-sample", vm.constant(500), vm.WINDOW_NS).events
    assert events["flags_read"] / events["flag_looks"] == vm.PAGES // 64


@given(
    st.integers(1, 5),
    st.lists(st.lists(st.integers(0, 2**52), unique=True, max_size=6), max_size=20),
    st.lists(st.integers(0, 8), unique=True),
)
def test_recent_frames_are_those_of_the_last_looks(looks, sets, often):
    recent = Recent(looks)
    sets = [list({*frames, *often[: len(frames)]}) for frames in sets]
    for turn, frames in enumerate(sets, start=1):
        found = recent.add(np.array(frames, np.int64))
        assert found == len(set().union(*sets[max(turn - looks, 0) : turn]))
        assert recent.full == (turn >= looks)
