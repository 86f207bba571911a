# SPDX-License-Identifier: Apache-2.0
"""Which T: the arithmetic of logs and bitmaps, and advice on VMs whose answer is known."""

import json
import platform
import re
from dataclasses import replace

import pytest

import pmlkit
from pmlkit import cli, period, workingset
from pmlkit.costs import Clock, Cost, prices
from pmlkit.errors import ClocksDiffer, NeedsError, UsageError
from pmlkit.figures import period_trade_off
from pmlkit.period import costs as calibrate
from pmlkit.period.costs import Constant, Constants
from pmlkit.period.kvm import KVM_INSN
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import MEMORY_GUESSED

NAMES = ("exit", "entry", "round", "rearm", "scan", "copy", "poll")


HOST = Clock("the host web1")


def constants(clock=None, **amounts):
    """Instructions, or ns of a clock."""
    costs = {name: Cost(float(amounts.get(name, 0)), clock) for name in NAMES}
    return Constants(**{name: Constant(cost, "host", "given") for name, cost in costs.items()})


@pytest.fixture(scope="module")
def steady(make_shared_trace):
    """A VM that writes the same 1024 pages in each of 64 rounds of 10 ms."""
    events = [[(gfn, Kind.WRITE) for gfn in range(1024)] for _ in range(64)]
    return make_shared_trace(events=events)


def test_the_sizing_of_the_founding_note_done_right():
    # 512 entries fill a buffer of 4 KiB; each entry is 8 bytes and stands for a page of 4 KiB.
    assert period.log_bytes(512) == 4096
    # 512 MiB are 131,072 pages: as many bits are 16 KiB, not 512 MiB.
    assert period.bitmap_bytes(512 << 20) == 16 << 10
    assert period.bitmap_bytes(4096) == 1


@pytest.mark.parametrize(
    ("rate", "slots"), [(0, 2), (512 * 10, 2), (512 * 100, 32), (512 * 1000, 256), (1e12, 4096)]
)
def test_a_ring_takes_twice_what_is_logged_in_a_stall(rate, slots):
    assert period.ring_slots(rate) == slots


BPF = {"kind": "bpf", "place": "fentry"}


@pytest.mark.parametrize(
    ("release", "capture", "case"),
    [
        ("6.1.0-18-amd64", {"kind": "ftrace"}, ("6.1", "ftrace")),
        ("6.1.0-18-amd64", {**BPF, "times": "exit"}, ("6.1", "fentry")),
        ("6.1.0-18-amd64", {**BPF, "times": "entry"}, ("6.1", "fentry-unmarked")),
        ("6.12.9", {"kind": "bpf", "place": "kprobe"}, ("6.12", "kprobe")),
        ("", {}, ("6.1", "ftrace")),
    ],
)
def test_a_trace_of_kvm_has_kvms_costs(make_trace, release, capture, case):
    """A full buffer is 512 pages that are logged and captured; there is no pause, and no policy."""
    events = [[(gfn, Kind.WRITE) for gfn in range(1024)] for _ in range(64)]
    options, host = {"capture": capture}, {"release": release}
    trace = make_trace(kind="pml", events=events, source="kvm", options=options, host=host)
    costs = calibrate.base_of(trace, transition_insn=500.0)
    log, captured, rearm = KVM_INSN[case]
    assert costs.exit.cost == Cost(512 * (log + captured) + 500)
    assert [costs.rearm.cost, costs.round.cost, costs.entry.cost] == [Cost(rearm), Cost(0), Cost(0)]
    assert f"Linux {case[0]}, captured by {case[1]}" in costs.exit.source
    advice = period.advise(trace)
    assert advice.rearm == "round"
    assert advice.words[0].endswith(f"for each CPU (--buffer {advice.slots * 16}).")
    assert "dom0" not in " ".join(advice.words)


def test_the_costs_are_the_formula(steady):
    costs = constants(exit=1000, round=5000, rearm=3, entry=7, copy=11, scan=0.5, poll=1e6)
    table = period.advise(steady, constants=costs).table.set_index("rounds")
    for rounds in (1, 4):
        row = table.loc[rounds]
        assert row.pages == 1024
        period_ns = row.period_ns
        guest = 1024 / 512 * 1000 + 5000 + 1024 * 3
        host = 1024 * (7 + 11) + steady.pml.memory_pages * 0.5 + period_ns / 1e9 * 1e6
        assert row.guest_overhead == pytest.approx(guest / period_ns)
        assert row.host_overhead == pytest.approx(host / period_ns)
        assert row.exits_per_s == pytest.approx(2 / (period_ns / 1e9))
        assert row.fill_ns == pytest.approx(period_ns / 2)
        assert row.log_bytes == 8192
        assert row.sensitivity == 0


def test_the_shortest_period_that_is_cheap_enough(steady):
    round_ns = steady.duration_ns / 64
    for rounds in (1, 4):
        # What just the asked number of rounds can pay for, at 1 %.
        advice = period.advise(steady, constants=constants(round=0.01 * rounds * round_ns))
        assert advice.period_ns == pytest.approx(rounds * round_ns)
        assert advice.met
    hopeless = period.advise(steady, constants=constants(round=1e12))
    assert not hopeless.met
    assert hopeless.period_ns == hopeless.table.period_ns.max()
    assert hopeless.answer.startswith("No T is cheap enough")


def test_a_working_set_that_grows_with_t_is_said_to(make_trace):
    events = [[(64 * i + j, Kind.WRITE) for j in range(64)] for i in range(64)]
    advice = period.advise(make_trace(events=events, memory_bytes=64 << 20), constants=constants())
    assert not advice.met
    assert advice.table.sensitivity.iloc[0] == pytest.approx(1)
    assert "No affordable T gives a stable answer" in advice.answer
    assert advice.summary["growth_if_doubled"] == pytest.approx(1)


def test_the_words_hold_the_numbers_and_the_kinds(steady):
    text = " ".join(period.advise(steady).words)
    assert "x 8 bytes" in text and "buffers of 512 entries" in text
    assert "of these kinds: assumed, lab" in text
    assert "Assumed, not measured: scan (0.02 ns at 3 GHz; 6 GB/s)" in text
    host = " ".join(period.advise(steady, constants=constants()).words)
    assert "Assumed, not measured" not in host


# Clocks


@pytest.fixture
def on(make_trace):
    """Return the steady VM, on a machine with a clock."""
    events = [[(gfn, Kind.WRITE) for gfn in range(1024)] for _ in range(64)]

    def make(ns_per_insn, **more):
        clock = {"kind": "icount" if ns_per_insn else "host", "ns_per_insn": ns_per_insn}
        name = f"on{ns_per_insn}{more.get('host', {}).get('node', '')}.trace"
        return make_trace(name, kind="pml", events=events, clock=clock, **more)

    return make


def guest_overhead(trace, **more):
    table = period.advise(trace, **more).table.set_index("rounds")
    return table.loc[1, "guest_overhead"]


def test_an_overhead_is_instructions_in_instructions(on):
    """1,024 pages in a round of 10 ms: 1,250,000 instructions of the recorder's machine."""
    costs = constants(exit=1000, round=5000, rearm=3)
    insn = 2 * 1000 + 5000 + 3 * 1024
    assert guest_overhead(on(8.0), constants=costs) == pytest.approx(insn / 1_250_000)
    assert guest_overhead(on(10.0), constants=costs) == pytest.approx(insn / 1_000_000)


def test_a_hosts_costs_are_of_a_hosts_time(on):
    costs = constants(HOST, exit=1000, round=5000, rearm=3)
    trace = on(None, source="xen", host={"node": "web1"})
    assert guest_overhead(trace, constants=costs) == pytest.approx(10_072 / 10e6)
    with pytest.raises(ClocksDiffer, match="the time of the host web1 .* the host db1"):
        guest_overhead(on(None, source="xen", host={"node": "db1"}), constants=costs)


def test_unlike_clocks_are_refused_or_related(on, capsys, tmp_path):
    host = on(None, source="xen", host={"node": "web1"})
    # The host's trace has no cost of its own, and the table's are in instructions.
    assert cli.main(["period", str(host.path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "a cost in instructions" in line and "give --ns-per-insn" in line
    insn = 2 * 3802 + prices()["rounds"].insn + 1024 * prices()["log_entries"].insn
    assert guest_overhead(host, ns_per_insn=0.5) == pytest.approx(insn * 0.5 / 10e6)
    # A host's calibration, and a recording that counts instructions.
    calibration = tmp_path / "web1.json"
    calibrate.save(constants(HOST, exit=1000, round=5000, rearm=3), calibration)
    words = ["period", str(on(8.0).path), "--calibration", str(calibration)]
    assert cli.main(words) == 1
    assert "a cost in the time of the host web1" in capsys.readouterr().err
    assert cli.main([*words, "--ns-per-insn", "0.5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["table"]
    assert rows[0]["guest_overhead"] == pytest.approx(10_072 / 0.5 * 8 / 10e6)


def test_t_says_what_machine_it_is_of(on):
    words = period.advise(on(8.0), constants=constants()).words
    assert words[0].startswith(
        "Settings: T = 10 ms (1.25 M instructions, at 125 M instructions a second),"
    )
    host = on(None, source="xen", host={"node": "web1"})
    words = period.advise(host, constants=constants(HOST)).words
    assert words[0].startswith("Settings: T = 10 ms, a ring")
    assert "re-arm 1,024 x 0.0 ns" in words[2]


def test_what_the_host_spends_is_not_known_in_another_machines_time(on):
    costs = replace(constants(HOST), scan=Constant(Cost(1.0, Clock("the host desk")), "x", "y"))
    advice = period.advise(on(None, source="xen", host={"node": "web1"}), constants=costs)
    assert advice.table["host_overhead"].isna().all()
    assert "not known, as its costs have different clocks" in advice.words[2]


def test_the_length_of_an_instruction_is_the_hosts_not_this_machines():
    desk = Constant(Cost(1.0, Clock("the host desk")), "measured here", "y")
    made = replace(constants(HOST), scan=desk).given(0.5)
    assert (made.exit.cost.clock, made.scan) == (HOST.given(0.5), desk)
    alone = replace(constants(), scan=desk).given(0.5)
    assert alone.scan.cost.clock == Clock("the host desk", 0.5)


def test_costs_of_an_older_calibration_are_refused(tmp_path):
    """They were ns of a machine that they did not name."""
    old = {name: {"ns": 1000.0, "kind": "assumed", "source": "x"} for name in NAMES}
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(UsageError, match="make one with `pmlkit calibrate`"):
        calibrate.load(tmp_path / "old.json")


def test_too_short_a_trace(make_trace):
    with pytest.raises(NeedsError, match="4 rounds"):
        period.advise(make_trace(events=[[(1, Kind.WRITE)]] * 3))


def test_too_short_a_part(steady):
    with pytest.raises(NeedsError, match="4 rounds or more between start and end"):
        period.advise(steady, start="900s")
    part = period.advise(steady, end="80ms")  # 8 rounds: T goes up to half of that
    assert part.table.rounds.max() == 4


def test_the_figure_carries_its_numbers(steady):
    advice = period.advise(steady)
    figure = period_trade_off(steady, advice)
    assert figure.data["periods"] is advice.table
    assert len(figure.axes) == 3
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["guest", "host", "limit for the guest"]


def test_the_command(steady, tmp_path, capsys):
    stem = tmp_path / "f" / "period"
    assert cli.main(["period", str(steady.path), "--json", "-o", str(stem)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["met"] is True
    assert len(report["table"]) > 4
    assert stem.with_suffix(".pdf").exists()
    assert cli.main(["period", str(steady.path)]) == 0
    text = " ".join(capsys.readouterr().out.split())  # lines are folded
    assert text.startswith(f"{report['summary']['answer']} Settings: T = ")
    assert cli.main(["period", str(steady.path), "--summary", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"summary": report["summary"]}


@pytest.fixture(scope="module")
def growing(make_shared_trace):
    """A VM that writes 32 other pages in each of 64 rounds: W goes on growing with T."""
    events = [[(32 * r + i, Kind.WRITE) for i in range(32)] for r in range(64)]
    return make_shared_trace(events=events)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--overhead", "0.001"),
        ("--accuracy", "100%"),
        ("--transition", "1e6"),
        ("--stall", "10s"),
        ("--start", "320ms"),
        ("--end", "320ms"),
        ("--calibration", "CALIBRATION"),
    ],
)
def test_every_option_of_the_command_moves_its_answer(growing, tmp_path, capsys, option, value):
    calibrate.save(constants(round=5e6, exit=1e6), tmp_path / "CALIBRATION")
    value = str(tmp_path / value) if value == "CALIBRATION" else value

    def answer(*more):
        assert cli.main(["period", str(growing.path), "--json", *more]) == 0
        report = json.loads(capsys.readouterr().out)
        # Not what it was asked for, which it repeats.
        return {n: report[n] for n in ("period_ns", "slots", "rearm", "met", "table")}

    assert answer(option, value) != answer()
    assert answer() == answer()


# Constants


def test_what_is_measured_here_says_so_and_comes_back(tmp_path, capsys):
    made = calibrate.measure(0.02)
    assert made.kinds == ["assumed", "lab", "measured here"]
    assert made.scan.cost.amount > 0 and made.copy.cost.amount > 0
    assert made.scan.cost.clock == Clock(f"the host {platform.node()}")
    calibrate.save(made, tmp_path / "c.json")
    assert calibrate.load(tmp_path / "c.json") == made
    assert cli.main(["calibrate", "--for", "20ms", "-o", str(tmp_path / "d.json")]) == 0
    assert "measured here" in capsys.readouterr().out
    assert calibrate.load(tmp_path / "d.json").kinds == made.kinds


def test_a_file_that_is_no_calibration(tmp_path):
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(UsageError, match="not a calibration"):
        calibrate.load(tmp_path / "c.json")


def test_a_hosts_trace_has_its_own_constants(here, tmp_path):
    from pmlkit.sources.host.collection import Collection, CollectOptions

    options = CollectOptions(rounds=4, period_s=0.05, state=str(here.folder / "run"))
    trace = Collection("guest", tmp_path / "x.trace", options).run()
    made = calibrate.from_trace(Trace.open(trace.path))
    # The fake host's: a microsecond an exit, two for each drained buffer, 3 ns a re-armed page.
    assert made.exit.cost.amount == pytest.approx(1000)
    assert made.exit.cost.clock == trace.meta.time == Clock(f"the host {platform.node()}")
    assert made.rearm.cost.amount == pytest.approx(3)
    pauses = trace.rounds.pause_ns.sum() - 3 * trace.rounds.rearmed.sum()
    assert made.round.cost.amount == pytest.approx(max(pauses, 0) / 4)
    entries = trace.meta.overheads["entries"]
    assert made.entry.cost.amount == pytest.approx(2000 * trace.meta.overheads["drains"] / entries)
    assert {made.exit.kind, made.entry.kind, made.round.kind, made.poll.kind} == {"host"}
    assert "assumed" in made.kinds  # what it did not tell


def test_exits_that_had_to_wait_are_said():
    made = calibrate.from_trace(pmlkit.open(pmlkit.bundled("rrww-lab")))
    assert made.exit.source.endswith("111 exits, 17 of which waited until a buffer was drained")
    made = calibrate.from_trace(pmlkit.open(pmlkit.bundled("touch-lab")))
    assert made.exit.source.endswith("mean of 8 exits")


@pytest.mark.parametrize("events, cost", [("exits", "exit_tsc"), ("entries", "drain_tsc")])
def test_a_count_without_its_cost_is_refused_in_one_line(make_trace, capsys, events, cost):
    trace = make_trace(kind="pml", overheads={"tsc_khz": 1000, events: 3})
    assert cli.main(["period", str(trace.path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has no {cost} beside its 3 {events}" in line


def test_what_an_emulator_measured_is_in_instructions():
    pml = pmlkit.open(pmlkit.bundled("rrww-lab")).pml
    made = calibrate.from_trace(pml)
    # Its time stamp counter counts them.
    assert made.exit.cost == Cost(pml.meta.overheads["exit_tsc"] / pml.meta.overheads["exits"])
    assert (made.exit.kind, made.copy.kind) == ("emulated", "assumed")


def test_the_table_of_prices_is_what_is_assumed():
    made = calibrate.assumed()
    assert made.exit.cost == Cost(802 + 3000) and made.entry.cost == Cost(30)
    assert made.round.cost == Cost(prices()["rounds"].price)
    assert made.rearm.cost == Cost(prices()["log_entries"].price)
    assert {each.kind for each in made.by_name().values()} == {"lab", "assumed"}


@pytest.mark.parametrize("name", ["touch-lab", "sqlite-lab", "rrww-lab"])
def test_what_harvests_take_is_not_the_pause_of_a_round(name):
    trace = pmlkit.open(pmlkit.bundled(name))
    made, pml = calibrate.from_trace(trace), trace.pml
    insn = pml.meta.time.ns_per_insn
    # Walk, bitmap and re-arming are what is left; the harvests took several times as much.
    left = sum(r["walk_tsc"] + r["rearm_tsc"] for r in pml.meta.overheads["rounds"])
    rearmed = int(pml.rounds.rearmed.sum())
    fitted = made.round.cost.amount * pml.n_rounds + made.rearm.cost.amount * rearmed
    assert left / 1.5 < fitted < 3 * left
    assert fitted < 0.5 * pml.rounds.pause_ns.sum() / insn


def test_assumptions_are_options_and_move_the_answer(steady):
    slow = calibrate.assumed(transition_insn=9000)
    assert slow.exit.cost == Cost(802 + 9000)
    assert "and 9,000 for the processor (assumed)" in slow.exit.source
    quick = period.advise(steady, constants=calibrate.assumed(), stall_ns=1e6)
    assert quick.slots < period.advise(steady, constants=slow).slots


def test_calibrating_on_a_host(here, tmp_path, capsys):
    file = tmp_path / "dom0.json"
    call = ["calibrate", "--domain", "guest", "--for", "1s", "-o", str(file)]
    assert cli.main([*call, "--state", str(here.folder / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    kinds = {name: one["kind"] for name, one in report.items()}
    assert kinds == {
        **dict.fromkeys(("exit", "entry", "round", "rearm", "poll"), "host"),
        **dict.fromkeys(("scan", "copy"), "measured here"),
    }
    assert report["exit"]["amount"] == pytest.approx(1000)
    assert report["exit"]["machine"] == f"the host {platform.node()}"
    assert calibrate.load(file).exit.kind == "host"
    assert not here.log_dirty()


def test_calibrating_where_there_is_no_such_domain(here, tmp_path, capsys):
    call = ["calibrate", "--domain", "nobody", "--for", "20ms", "-o", str(tmp_path / "x.json")]
    assert cli.main([*call, "--state", str(here.folder / "run")]) == 1
    assert "there is no domain nobody" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
    assert cli.main(["calibrate", "--host", "dom0"]) == 2
    assert "name the domain with --domain" in capsys.readouterr().err


def test_the_log_is_read_four_times_however_many_periods_there_are(make_trace, monkeypatch):
    trace = make_trace(rounds=200, kind="pml")
    reads, real = [], Trace.iter_entries
    monkeypatch.setattr(Trace, "iter_entries", lambda *a, **k: reads.append(1) or real(*a, **k))
    assert len(period.advise(trace).table) > 15
    assert len(reads) == 4


def test_a_period_tells_what_the_kernels_of_one_window_tell(make_trace):
    trace = make_trace(rounds=31, kind="pml")
    table = period.advise(trace).table.set_index("rounds")
    for rounds in table.index:
        consecutive = workingset.estimate(trace, f"{rounds}r", page_tables="keep")["pages"]
        sliding = workingset.estimate(trace, f"{rounds}r", "sliding", page_tables="keep")["pages"]
        assert table.loc[rounds, "peak_pages"] == consecutive.max()
        assert table.loc[rounds, "pages"] == pytest.approx(sliding[rounds - 1 :].mean())


def test_what_the_host_spends_is_not_made_up_from_the_highest_address(make_trace, capsys):
    """The cost of scanning a bitmap goes by the memory, whose size an import may not know."""
    events = [[(gfn, Kind.WRITE) for gfn in (1, 2, 1 << 51)] for _ in range(16)]
    trace = make_trace(
        kind="pml", events=events, memory_bytes=((1 << 51) + 1) << 12, memory_map=[],
        options={MEMORY_GUESSED: True},
    )  # fmt: skip
    advice = period.advise(trace)
    assert advice.table["host_overhead"].isna().all()
    assert {row["host_overhead"] for row in advice.as_dict()["table"]} == {None}
    text = " ".join(advice.words)
    assert "what the host spends is not known" in text and "The bitmap" not in text
    assert cli.main(["period", str(trace.path)]) == 0
    assert re.search(r"10 ms .* not known", capsys.readouterr().out)
