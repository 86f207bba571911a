# SPDX-License-Identifier: Apache-2.0
"""Advice: it fits in the budget when it is run, its numbers, its words."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import synthetic_vm as vm

import pmlkit
from pmlkit import law, techniques, workingset
from pmlkit.cli import app
from pmlkit.costs import Clock
from pmlkit.errors import NeedsError, ResolutionError, UsageError
from pmlkit.law import advice as advice_words
from pmlkit.law import advise, size
from pmlkit.law.swapping import Swapping
from pmlkit.techniques import Recorded, scores
from pmlkit.techniques.memory import MemoryModel
from pmlkit.units import exact_ns, parse_share

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def advice():
    return advise.advise("hotcold", "1%", "1s", seeds=3)


@pytest.fixture(scope="module")
def of_log():
    return advise.advise("numpy-jobs", "1%", "5s")


@pytest.mark.parametrize("budget", ["0.1%", "3%"])
def test_the_advice_fits_in_the_budget_when_it_is_run(budget):
    found = advise.advise("hotcold", budget, "1s", seeds=2)
    assert found.checked.overhead <= parse_share(budget) * 1.02
    assert found.choice.overhead == pytest.approx(found.checked.overhead, rel=0.05)
    assert found.less is None or found.less.overhead <= found.choice.overhead / 2
    assert found.more is None or found.more.error <= 0.8 * found.choice.error


def test_what_was_predicted_is_found_when_it_is_run(advice):
    assert advice.checked.runs == (3 if advice.choice.technique.random else 1)
    assert advice.choice.low * 0.9 <= advice.checked.error <= advice.choice.high * 1.1


def test_no_other_setting_has_less_error_for_no_more_cost(advice):
    table = advice.front
    assert table["overhead"].is_monotonic_increasing
    assert table["error"].is_monotonic_decreasing
    best = table[table["overhead"] <= 0.01].iloc[-1]
    assert (best["technique"], best["looks"]) == (advice.choice.technique.name, advice.choice.looks)


def test_the_size_is_that_of_the_working_sets(advice):
    trace = pmlkit.open("hotcold")
    pages = workingset.sweep(trace, ["1s"])
    full = pages[pages["full"]]["pages"]
    assert advice.size.peak == full.max()
    assert advice.size.p99 == pytest.approx(full.quantile(0.99), rel=0.02)
    assert advice.size.windows == 6


@pytest.mark.parametrize(
    "part", [{"start": "2s", "end": "4s"}, {"phase": "load"}, {"between": ("load", "get")}]
)
def test_the_size_of_a_part_is_that_of_its_windows_alone(part):
    found = advise.advise("redis", window="500ms", check=False, **part)
    pages = workingset.estimate(pmlkit.open("redis"), "500ms", "sliding", **part)
    full = pages[pages["full"]]["pages"]
    assert found.size.peak == full.max()
    assert found.size.mean == pytest.approx(full.mean(), rel=0.01)
    assert found.size.vm_bytes is None and "only for a whole recording" in found.size.whole
    assert found.answer.endswith(f" of the time {found.part}.") and found.part


def test_a_part_is_as_if_only_it_had_been_recorded(make_trace):
    one, whole = (
        techniques.Recorded.of(make_trace(f"{last}.trace", rounds=last, phases=[("b", 2)]))
        for last in (8, 12)
    )
    part = whole.cut(0, 8)
    assert part.phases == one.phases
    assert part.duration_ns == one.duration_ns
    for name in ("accesses", "writes", "log"):
        cut, uses = getattr(part, name), getattr(one, name)
        assert cut.gfn.tolist() == uses.gfn.tolist()
        assert cut.starts.tolist() == uses.starts.tolist()
    late = whole.cut(3, 12)
    assert late.phases == (("b", 0),)
    assert late.accesses.gfn.tolist() == whole.accesses.between(3, 12).tolist()
    assert late.accesses.starts[-1] == len(late.accesses.gfn)


def test_a_part_that_is_shorter_than_t_is_refused():
    with pytest.raises(ResolutionError, match="too long: the measured part"):
        advise.advise("hotcold", window="2s", start="1s", end="2s")


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_size_needed_holds_the_working_set_for_that_share_of_time(share):
    trace = pmlkit.open("hotcold")
    found = size.size_of(law.Curves(Recorded.of(trace)), SECOND, share)
    pages = workingset.sweep(trace, ["1s"])
    full = pages[pages["full"]]["pages"].to_numpy()
    assert np.mean(full <= found.needed) >= share - 0.01  # rounds are nearly of one length
    assert np.mean(full < found.needed) <= share + 0.01
    if share == 1:
        assert found.needed == found.peak


@pytest.mark.parametrize("cover", ["50%", 0.9, "100%"])
def test_the_size_is_for_the_share_of_time_that_was_asked_for(make_trace, cover):
    clock = {"kind": "host", "ns_per_insn": None}  # no technique is searched without one
    trace = make_trace(rounds=200, clock=clock)
    found = advise.advise(trace, window="100ms", cover=cover).size
    assert found == size.size_of(law.Curves(Recorded.of(trace)), SECOND // 10, parse_share(cover))


def test_the_phase_that_drives_the_size_is_named():
    blocks = [vm.block(100, 0)] * 400 + [vm.block(900, 5000)] * 100 + [vm.block(100, 0)] * 400
    recorded = replace(vm.make(blocks), phases=(("calm", 0), ("storm", 400), ("after", 500)))
    found = size.size_of(law.Curves(recorded), vm.WINDOW_NS)
    assert (found.driver, found.without) == ("storm", 100)
    assert found.needed >= 900
    assert "Phase storm drives the size" in " ".join(found.changes)
    calm = replace(vm.make([vm.block(100, 0)] * 900), phases=(("calm", 0), ("after", 500)))
    assert size.size_of(law.Curves(calm), vm.WINDOW_NS).driver == ""


def test_other_windows_are_those_that_the_recording_has():
    recorded = vm.constant(500, rounds=1000)
    curves = law.Curves(recorded)
    unit = recorded.resolution_ns
    found = size.size_of(curves, 10 * unit)
    assert found.other_windows == ((5 * unit, 500), (20 * unit, 500))
    assert [ns for ns, _ in size.size_of(curves, 5 * unit).other_windows] == [10 * unit]
    assert size.size_of(curves, 500 * unit).other_windows == ((250 * unit, 500),)


def test_how_sure_the_size_is_goes_by_the_windows_that_are_independent():
    random = np.random.default_rng(1).integers(50, 500, 400)
    blocks = [vm.block(int(n), 0) for n in random for _ in range(vm.WINDOW_NS // vm.ROUND_NS)]
    many = size.size_of(law.Curves(vm.make(blocks)), vm.WINDOW_NS)
    assert f"a chance of about 1 in {round(many.independent) + 1}" in many.sure
    assert many.independent > 200
    ramp = size.size_of(law.Curves(vm.ramp(low=200, high=1000, rounds=900)), vm.WINDOW_NS)
    assert "too few to state how likely a larger one is" in ramp.sure


def test_without_a_clock_there_is_a_size_and_no_technique(make_trace):
    clock = {"kind": "host", "ns_per_insn": None}
    trace = make_trace(rounds=200, clock=clock)
    found = advise.advise(trace, window="100ms")
    assert found.choice is None and found.front.empty
    assert found.answer.startswith("x needs ")
    assert "How to measure it is not known" in found.lines[0]
    assert json.loads(json.dumps(found.as_dict(), default=float))["choice"] is None
    assert found.answer in html.unescape(found._repr_html_())
    known = advise.advise(trace, budget="100%", window="100ms", ns_per_insn=1.0, check=False)
    assert known.choice is not None


def test_a_larger_budget_is_never_worse():
    errors = [
        advise.advise("hotcold", share, "1s", check=False).choice.error
        for share in (0.0005, 0.005, 0.05)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_estimate_times_cover_holds_the_working_set_for_most_of_the_time():
    recorded = vm.ramp(low=200, high=1000, rounds=300)
    technique = techniques.make("prl")
    found = law.predict(technique, law.Curves(recorded), vm.WINDOW_NS)
    run = techniques.run(technique, recorded, vm.WINDOW_NS)
    truth = scores.truth(recorded, vm.WINDOW_NS)
    enough = found.cover * scores.at(run.estimates, truth.t_ns[truth.scored])
    assert 0.93 < np.mean(enough >= truth.pages[truth.scored] - 1e-9) < 0.99


def test_a_log_of_writes_says_what_it_cannot_know(of_log):
    assert not of_log.reads
    assert of_log.checked is None
    assert "writes" in of_log.answer
    assert any("Not known" in line for line in of_log.about_size)
    assert set(of_log.front["technique"]) <= {"pml", "qemu-bitmap", "qemu-sampling", "soft-dirty"}


def test_the_recommended_window_is_the_shortest_that_is_steady():
    curves = law.Curves(vm.constant(500, rounds=2000))
    assert advise.steady_window(curves) == 100_000_000
    # A tenth of 0.8 s is less than 0.1 s: 3 pages in turn, so W is steady from 40 ms on.
    short = law.Curves(vm.make([vm.block(1, 1024 + number % 3) for number in range(80)]))
    assert advise.steady_window(short) == 50_000_000
    # 500 pages are used one after the other, in 500 rounds of 10 ms: W grows up to T = 5 s.
    turning = law.Curves(vm.make([vm.block(1, 1024 + number % 500) for number in range(20_000)]))
    assert advise.steady_window(turning) == 5_000_000_000


def test_the_vm_has_what_its_kernel_keeps_as_well():
    sets = [vm.block(300, 1024 + 300 * (number // 100)) for number in range(300)]
    recorded = vm.make(sets)  # its kernel: 96 pages of the image, 200 allocated
    found = size.size_of(law.Curves(recorded), vm.WINDOW_NS, 0.5)
    kept = 96 + 200 + MemoryModel().slack_pages
    assert (found.needed, found.reserve_bytes) == (300, kept * 4096)
    assert found.vm_bytes == (300 + kept) * 4096 < found.peak_bytes == (900 + kept) * 4096
    enough = replace(found, needed=1000.0)  # what the kernel used is in W, too
    assert enough.vm_bytes == found.peak_bytes
    assert "nothing is ever swapped" in enough.whole
    assert not any("No swapping" in line for line in enough.changes)  # it is the answer


def returning():
    """Return a VM that uses 1,024 pages for 10 s, 1,024 others, and the first ones again."""
    blocks = (vm.block(1024), vm.block(1024, vm.FIRST + 1024), vm.block(1024))
    return vm.make([block for block in blocks for _ in range(1000)])


def test_a_vm_that_is_too_small_says_what_it_costs():
    found = size.size_of(law.Curves(returning()), vm.WINDOW_NS, 0.5)
    kept = 96 + 200 + MemoryModel().slack_pages
    assert found.vm_bytes == (1024 + kept) * 4096
    swapping = found.swapping
    assert swapping.returns_per_s == pytest.approx(1024 / 30)
    # A page takes 300,000 instructions of 8 ns.
    assert swapping.slowdown == pytest.approx(1 + 1024 * 0.0024 / 30)
    # Up to 625 pages may return, so 2048 + kept - 625 pages are needed: 9.84 MiB.
    assert swapping.enough_bytes == 10 << 20
    assert "34 pages a second return" in found.whole
    assert "about 1.08 times as long. With 10 MiB, waiting adds 5 % at most" in found.whole


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (0, "no page returns from a swap disk with 64 MiB."),
        (0.123, "0.12 pages a second return from a swap disk with 64 MiB, and waiting"),
        (9876.5, "9,876 pages a second return from a swap disk with 64 MiB, and waiting"),
    ],
)
def test_how_often_pages_return_is_said_with_the_digits_that_matter(returns, words):
    assert words in Swapping(64 << 20, returns, 1.01, 64 << 20).text


def test_no_recorded_size_may_be_enough():
    recorded, pages = returning(), 2300
    guest = recorded.guest.assign(total_bytes=(pages - 96) * 4096)
    found = size.size_of(
        law.Curves(replace(recorded, memory_pages=pages, guest=guest)), vm.WINDOW_NS, 0.5
    )
    assert found.swapping.enough_bytes is None
    assert "No size up to that of the recorded VM keeps the waiting within 5 %" in found.whole


def test_a_size_that_holds_all_needs_no_replay():
    found = size.size_of(law.Curves(vm.constant(500, rounds=300)), vm.WINDOW_NS)
    assert (found.vm_bytes, found.swapping) == (found.peak_bytes, None)


def test_a_recording_is_not_replayed_in_a_larger_vm():
    recorded, pages = returning(), 2000  # less than the size, and than the peak
    guest = recorded.guest.assign(total_bytes=(pages - 96) * 4096)
    recorded = replace(recorded, memory_pages=pages, guest=guest)
    assert size.size_of(law.Curves(recorded), vm.WINDOW_NS, 0.5).swapping is None


def test_without_a_clock_a_slow_down_is_not_known():
    recorded = replace(returning(), time=Clock("a machine", None))
    found = size.size_of(law.Curves(recorded), vm.WINDOW_NS, 0.5)
    assert found.swapping is None and "model" not in found.whole


@pytest.mark.parametrize("change", [{"guest": None}, {"memory_pages": None}])
def test_a_recording_without_the_kernels_counts_has_no_size_of_the_vm(change):
    recorded = replace(vm.constant(500, rounds=300), **change)
    found = size.size_of(law.Curves(recorded), vm.WINDOW_NS)
    assert found.vm_bytes is None and "only for a whole recording" in found.whole


def test_words(advice):
    assert advice.answer.startswith("hotcold needs ")
    assert "to hold what it uses in T = 1 s for 99 % of the time" in advice.answer
    for words in ("To measure it:", "per T", "error at"):
        assert words in advice.measure
    assert repr(advice).splitlines()[0] == advice.answer
    assert "background" not in advice._repr_html_()  # nor a colour: it is read in dark and light
    assert any(line.startswith("Checked by running it") for line in advice.lines)
    assert advice.answer in html.unescape(advice._repr_html_())
    assert len(advice_words.shown(advice)) <= advice_words.LISTED + 1
    assert (advice_words.shown(advice)[""] == "*").sum() == 1


def test_a_vm_that_uses_no_page_has_no_advice(make_trace):
    with pytest.raises(NeedsError, match="no page in use"):
        advise.advise(make_trace(events=[[]] * 40))


def test_the_answer_begins_with_the_size_of_the_vm_and_its_parts_add_up(advice):
    sizes = [float(text) for text in re.findall(r"([\d.]+) MiB", advice.answer)]
    assert sizes[0] == pytest.approx(advice.size.vm_bytes / (1 << 20), rel=0.005)
    assert sizes[0] == pytest.approx(sizes[1] + sizes[2], rel=0.01)


@pytest.mark.parametrize("window", ["1s", None])
def test_a_budget_below_all_costs_leaves_the_size(window):
    found = advise.advise("hotcold", "0.0001%", window, check=False)
    within = advise.advise("hotcold", "1%", window or exact_ns(found.window_ns), check=False)
    assert (found.choice, found.answer) == (None, within.answer)
    assert found.window_ns == within.window_ns
    assert "no technique costs 0.0001 % of the VM's time or less" in found.measure
    assert "Allow a larger budget, or a longer T" in found.measure


def test_what_cannot_be():
    with pytest.raises(UsageError, match=r"0\.5%"):
        advise.advise("hotcold", "much")
    with pytest.raises(UsageError, match="more than 0"):
        advise.advise("hotcold", 0)
    with pytest.raises(UsageError, match="at most 100 %"):
        advise.advise("hotcold", cover="101%")


def test_the_command_prints_json(capsys):
    assert app.main(["advise", "hotcold", "--no-check", "--window", "1s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"].startswith("hotcold needs ")
    assert found["summary"]["needed_bytes"] == 4096 * found["size_pages"]["needed"]
    assert found["choice"]["overhead"] <= found["budget"] == 0.005
    assert found["checked"] is None


@pytest.mark.parametrize("words", [("--budget", "x"), ("--window", "30s"), ("--window", "3ms")])
def test_errors_are_one_line(words, capsys):
    assert app.main(["advise", "hotcold", *words]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1
