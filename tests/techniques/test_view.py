# SPDX-License-Identifier: Apache-2.0
"""A view shows what was declared, up to now, and nothing more: whatever else is changed in the
recording, no technique says anything else.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm

from pmlkit import cli
from pmlkit.errors import NeedsError, UsageError
from pmlkit.missratio.sampled import sampled
from pmlkit.techniques import TECHNIQUES, Need, channels, make, run
from pmlkit.techniques.pml import Pml
from pmlkit.techniques.recorded import Recorded, Uses
from pmlkit.techniques.view import look

NAMES = sorted(TECHNIQUES)
WINDOW = vm.WINDOW_NS
# What each channel is made of. Everything else of a recording is poison to it.
READS = {
    Need.PML: {"log"},
    Need.REFERENCES: {"accesses"},
    Need.DIRTY: {"writes"},
    Need.TABLES: {"accesses", "mapped", "entries", "leaves", "log"},
    Need.ACCESSED: {"accesses"},
    Need.TRAPS: {"accesses"},
    Need.CONTENT: {"writes"},
    Need.DISK: {"disk"},
    Need.GUEST: {"guest"},
    Need.MEMORY: {"accesses", "writes", "guest"},
    Need.AGING: {"accesses"},
    Need.SOFT_DIRTY: {"accesses", "writes"},
    Need.SAMPLES: {"accesses"},
}
PARTS = ("accesses", "writes", "log", "entries", "leaves", "guest", "disk", "phases")


@pytest.fixture(scope="module")
def recorded():
    rng = np.random.default_rng(1)
    sets, written = [], []
    for r in range(120):
        base = vm.block(200 + 5 * (r // 20))
        some = rng.choice(vm.PAGES, 40, replace=False)
        used = np.unique(np.concatenate((base, some)))
        sets.append(rng.permutation(used))
        written.append(sets[-1][: len(used) // 2])
    return vm.make(sets, written, phases=(("a", 0), ("b", 60)), disk=True)


def poison(recorded, spared, seed=5):
    """Replace by noise whatever is not spared."""
    rng = np.random.default_rng(seed)
    noise = {
        name: _noise(recorded.n_rounds, rng)
        for name in ("accesses", "writes", "log", "entries", "leaves")
        if name not in spared
    }
    if "guest" not in spared:
        table = recorded.guest.copy()
        columns = table.columns.drop("t_ns")
        table[columns] = rng.integers(0, 1 << 30, (len(table), len(columns)))
        noise["guest"] = table
    if "disk" not in spared:
        table = recorded.disk.copy()
        table["sector"] = rng.integers(0, 1 << 20, len(table))
        table["write"] = rng.integers(0, 2, len(table)).astype(bool)
        noise["disk"] = table
    return replace(recorded, name="poisoned", phases=(("nonsense", 3),), **noise)


def _noise(rounds, rng):
    sets = [rng.choice(vm.PAGES, rng.integers(1, 800), replace=False) for _ in range(rounds)]
    return Uses.of(np.repeat(np.arange(rounds), list(map(len, sets))), np.concatenate(sets), rounds)


def observe(name, recorded, seed=3):
    result = run(name, recorded, window=WINDOW, seed=seed)
    return result.estimates, result.events


def same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[1] == other[1]


def spared_by(name):
    return set().union(*(READS[need] for need in TECHNIQUES[name].needs))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_declared_is_not_seen(name, recorded):
    before = observe(name, recorded)
    assert len(before[0]) > 0
    same(before, observe(name, poison(recorded, spared_by(name))))


@pytest.mark.parametrize("name", NAMES)
def test_poison_in_what_is_declared_is_seen(name, recorded):
    """The test above would find a technique that peeks: one that may look does see the poison."""
    declared = spared_by(name)
    poisoned = poison(recorded, set(PARTS) - declared)
    assert not observe(name, recorded)[0].equals(observe(name, poisoned)[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_future_is_not_seen(name, recorded):
    """A VM that is switched off early was estimated the same until then."""
    whole, cut = observe(name, recorded)[0], observe(name, vm.until(recorded, 83))[0]
    early = whole[whole["t_ns"] <= cut["t_ns"].max()].reset_index(drop=True)
    columns = ["t_ns", "pages"]
    pd.testing.assert_frame_equal(early[columns], cut[columns], check_exact=True)


@pytest.mark.parametrize(
    "name", ["vmware", "flag-sample", "qemu-sampling", "damon", "intermittent", "badis"]
)
def test_frames_that_were_not_looked_at_are_not_seen(name, recorded, monkeypatch):
    """Of the accessed flags, traps and digests only the frames that were asked about count."""
    asked = np.zeros(vm.PAGES, bool)
    real = channels._latest

    def remembering(uses, clock, size):
        answer = real(uses, clock, size)

        def ask(frames):
            asked[frames] = True
            return answer(frames)

        return ask

    with monkeypatch.context() as patch:
        patch.setattr(channels, "_latest", remembering)
        small = make(name, **_few(name))
        before = observe(small, recorded)
    assert 0 < asked.sum() < vm.PAGES
    scrambled = {part: _scramble(getattr(recorded, part), asked) for part in ("accesses", "writes")}
    same(before, observe(small, replace(recorded, **scrambled)))


def _few(name):
    """Parameters with which a technique does not get round to looking at every frame."""
    return {"vmware": {"watched": 20}, "intermittent": {"watched": 100}}.get(name, {})


def _scramble(uses, asked):
    """Swap the accesses of all other frames among themselves."""
    others = np.flatnonzero(~asked)
    new = np.arange(vm.PAGES)
    new[others] = np.random.default_rng(0).permutation(others)
    return Uses(new[uses.gfn], uses.starts)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_has_the_declared_channels_and_no_way_to_the_recording(name, recorded):
    view = look(recorded, TECHNIQUES[name].needs, WINDOW)
    channels_there = {need for need in Need if hasattr(view, need.value)}
    assert channels_there == TECHNIQUES[name].needs
    for value in _reachable(view):
        assert not isinstance(value, Recorded | Uses | pd.DataFrame | np.ndarray), value


def _reachable(start):
    """Follow every attribute that is no dunder, and whatever is in containers."""
    seen, todo = {}, [start]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, np.random.Generator):
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            todo += list(value)
        elif not isinstance(value, str | int | float | type | np.ndarray | pd.DataFrame):
            names = [n for n in dir(value) if not (n.startswith("__") and n.endswith("__"))]
            todo += [getattr(value, n) for n in names]
    return seen.values()


def test_a_channel_that_the_recording_lacks_is_named(recorded):
    without = replace(recorded, disk=None, guest=None)
    with pytest.raises(NeedsError, match="no disk requests: record with `pmlkit record --swap`"):
        run("geiger", without, window=WINDOW)
    with pytest.raises(NeedsError, match="guest's own view"):
        run("zballoond", without, window=WINDOW)


def test_same_seed_same_answer_and_another_seed_another(recorded):
    for name in NAMES:
        first = observe(name, recorded, seed=1)
        same(first, observe(name, recorded, seed=1))
        if TECHNIQUES[name].random:
            assert not first[0].equals(observe(name, recorded, seed=2)[0]), name
        else:
            same(first, observe(name, recorded, seed=2))


# Time


def test_time_moves_in_rounds_and_ends_with_the_recording(recorded):
    view = look(recorded, (), WINDOW)
    assert list(view.every(30_000_000)) == [30_000_000 * (i + 1) for i in range(40)]
    assert list(view.every(10_000_000)) == []


def test_rounds_of_uneven_length_are_waited_for():
    odd = replace(vm.constant(5, rounds=5), t_ns=np.array([0, 10, 14, 20, 45, 50]) * 1_000_000)
    assert list(look(odd, (), WINDOW).every(10_000_000)) == [10_000_000, 20_000_000, 45_000_000,
                                                            50_000_000]  # fmt: skip


def test_published_intervals_are_scaled_rounded_and_said(recorded):
    view = look(recorded, (), WINDOW, scale=1 / 300)
    assert view.published("30s") == 100_000_000
    assert view.published("5ms", scaled=False) == 10_000_000
    assert view.published("100ms", scaled=False) == 100_000_000
    notes = view.result()[2]
    assert notes == ["30s became 100 ms", "5ms became 10 ms"]


def test_costs_are_counted_where_they_arise(recorded):
    view = look(recorded, {Need.ACCESSED, Need.TRAPS}, WINDOW)
    frames = vm.block(10)
    view.traps.protect(frames)
    for turn, _ in enumerate(view.every(WINDOW)):
        view.accessed.harvest(frames)
        view.traps.caught(frames)
        view.report(turn)
    table, events, _ = view.result()
    # Every page of the working set is unmapped and faults once; asking again costs nothing.
    unmapped = {"pages_unmapped": 10, "transition": 1}
    assert events == {"flags_read": 120, "flag_looks": 12, "faults": 10} | unmapped
    assert list(table["faults"]) == [10] + [0] * 11
    assert list(table["pages"]) == list(range(12))


def test_unmapping_has_one_price_for_a_sample_and_for_a_stretch(recorded):
    views = [look(recorded, {Need.TRAPS}, WINDOW) for _ in range(2)]
    views[0].traps.protect(vm.block(10))
    views[1].traps.unmap(vm.FIRST, vm.FIRST + 10)
    assert [view.result()[1] for view in views] == [{"pages_unmapped": 10, "transition": 1}] * 2


def test_an_unknown_event_and_an_empty_period_are_refused(recorded):
    view = look(recorded, (), WINDOW)
    with pytest.raises(UsageError, match="not an event with a price"):
        view.charge(magic=1)
    with pytest.raises(UsageError, match="give more than 0"):
        next(view.every(0))


def test_an_unknown_technique_or_parameter_is_named():
    with pytest.raises(UsageError, match="'pmll': do you mean 'pml'.*choose from pml, "):
        make("pmll")
    with pytest.raises(UsageError, match="no parameter 'page': it has watched, looks, period"):
        make("vmware", page=3)


def test_a_technique_is_a_module_and_an_entry_of_the_registry(monkeypatch, capsys):
    class Mine(Pml):
        """As `Pml`, of another name."""

        name = "mine"
        title = "Mine"

    monkeypatch.setitem(TECHNIQUES, "mine", Mine)
    assert cli.main(["compare", "hotcold", "--techniques", "mine,pml", "--json"]) == 0
    mine, pml = json.loads(capsys.readouterr().out)["scores"]
    assert (mine["title"], mine["mape"]) == ("Mine", pml["mape"])


@pytest.mark.parametrize("name", NAMES)
def test_every_technique_says_what_it_is(name):
    technique = TECHNIQUES[name]
    assert technique.name == name and technique.title and technique.needs
    assert any(char.isdigit() for char in technique.source) or "QEMU" in technique.source
    assert technique.__doc__ and not technique.__doc__.startswith(f"{technique.__name__}(")
    for parameter in technique.parameters():
        assert f"{parameter}" in technique.__doc__, parameter


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 40])
def test_the_parts_of_t_are_together_as_long_as_t(recorded, count):
    for rounds in range(1, 121):
        view = look(recorded, (), rounds * vm.ROUND_NS)
        period_ns, parts = view.parts(count)
        assert period_ns % vm.ROUND_NS == 0 and 1 <= parts <= count
        off = abs(period_ns * parts // vm.ROUND_NS - rounds)
        if off > 0.1 * rounds:
            assert off <= 1 and "represent T" in str(view.result()[2])
        if rounds % count == 0:
            assert (period_ns, parts) == (rounds // count * vm.ROUND_NS, count)


def test_t_is_divided_into_as_many_parts_as_rounds_allow(recorded):
    view = look(recorded, (), WINDOW)
    assert view.parts(2) == (WINDOW // 2, 2)
    assert view.result()[2] == []
    assert view.parts(40) == (vm.ROUND_NS, vm.PER_WINDOW)
    assert view.result()[2] == ["10 parts of T, not 40: rounds are too long for more"]


def test_a_sample_is_an_even_share_and_a_smaller_one_lies_in_it():
    frames = np.arange(100_000)
    few, many = sampled(frames, 0.01, seed=4), sampled(frames, 0.05, seed=4)
    assert (few.sum(), many.sum()) == pytest.approx((1000, 5000), rel=0.01)
    assert not (few & ~many).any()
    assert (few != sampled(frames, 0.01, seed=5)).any()


def test_short_rounds_let_damon_sample_as_published():
    quick = replace(vm.constant(500), t_ns=np.arange(301) * 5_000_000, resolution_ns=5_000_000)
    assert run("damon", quick, window=WINDOW).notes == []


def test_a_scan_costs_the_memory_there_is_not_the_highest_address():
    """Frames above the memory's size (a hole below them) are found, and are no more memory."""
    sets = [np.append(vm.block(100), 1 << 40)] * 30
    view = look(vm.make(sets), {Need.ACCESSED}, WINDOW)
    next(iter(view.every(WINDOW)))
    assert view.accessed.scan().tolist() == [*range(vm.FIRST, vm.FIRST + 100), 1 << 40]
    assert view.result()[1] == {"pages_scanned": vm.PAGES, "flags_cleared": 101}
    assert len(view.accessed.scan()) == 0
