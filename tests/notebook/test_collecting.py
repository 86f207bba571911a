# SPDX-License-Identifier: Apache-2.0
"""Rounds as they are seen: out of a trace played back, on the terminal, in the growing figure."""

import re
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path

import IPython
import numpy as np
import pytest
from needs import needs_qemu, slow

from pmlkit.cli import live
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.figures.live import LiveFigure
from pmlkit.notebook import live as collecting
from pmlkit.sources.recorder import messages
from pmlkit.sources.recorder.messages import Message
from pmlkit.sources.watch import Follower, RecordingWatcher, Seen
from pmlkit.spool import SpoolWriter
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

EVENTS = [[(1, Kind.WRITE), (2, Kind.READ), (2, Kind.WRITE)], [(1, Kind.READ)], [(9, Kind.READ)]]
SEEN = Seen(3, 2_000_000_000, 1_000_000_000, 256, 512, 2560, 7, 5, 0.25, 1500, 20_000_000)


def test_a_trace_is_played_back_with_its_working_sets(make_trace):
    made = make_trace(events=EVENTS)
    run = collecting.start("bundled", str(made.path), "nowhere")
    seen = list(run)
    assert [(s.round, s.pages, s.distinct) for s in seen] == [(0, 2, 2), (1, 1, 2), (2, 1, 3)]
    assert [s.t_ns for s in seen] == made.rounds.t_end_ns.tolist()
    assert sum(s.entries for s in seen) == made.meta.entries
    assert isinstance(run.trace, Trace)


def test_a_long_trace_is_played_back_in_a_hundred_steps(make_trace):
    made = make_trace(events=[[(i, Kind.WRITE)] for i in range(250)])
    seen = list(collecting.start("bundled", str(made.path), "nowhere"))
    assert len(seen) == 84
    assert {s.pages for s in seen[:-1]} == {3}
    assert seen[-1].distinct == 250


def test_watching_ends_with_the_trace_and_a_figure_with_its_data(make_trace, tmp_path):
    run = collecting.start("bundled", str(make_trace(events=EVENTS).path), "nowhere")
    assert collecting.watch(run, tmp_path / "out").meta.kind == "access"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"live.pdf", "live.svg", "live.png", "live.csv"} <= written


def test_an_unknown_source():
    with pytest.raises(UsageError, match="bundled, recorder, lab, xen, kvm"):
        collecting.start("guess", "x", "nowhere")


def test_the_figure_has_a_row_per_round_and_marks_losses():
    figure = LiveFigure()
    assert list(figure.follow([SEEN])) == [SEEN]
    assert figure.figure.data["rounds"].to_dict("records") == [SEEN.as_dict()]
    labels = [line.get_label() for line in figure.figure.axes[0].lines]
    assert labels == ["working set, T = 1 s", "all pages so far", "entries lost"]


def test_a_played_back_trace_has_the_t_of_several_rounds(make_trace):
    figure, trace = LiveFigure(), make_trace(rounds=250)
    list(figure.follow(collecting.Replay(lambda: trace)))
    assert "working set, T = 30 ms as it arrived" in figure.figure.caption  # rounds of 10 ms


def test_a_collection_that_fails_at_once_leaves_no_empty_figure(monkeypatch):
    drawn = []
    monkeypatch.setattr(LiveFigure, "draw", lambda self: drawn.append(len(self.table())))

    class Fails:
        trace = None

        def __init__(self, *rounds):
            self.rounds = rounds

        def run(self, show):
            for seen in self.rounds:
                show(seen)
            raise PmlkitError("this is not dom0")

    for rounds in ((), (SEEN,)):
        with pytest.raises(PmlkitError):
            collecting.watch(Fails(*rounds))
    assert set(drawn) == {1}


def test_a_single_round_is_a_marker_and_more_are_a_line():
    figure = LiveFigure()
    shapes = []
    for _ in figure.follow([SEEN, SEEN]):
        figure.draw()
        shapes.append([line.get_marker() for line in figure.figure.axes[0].lines[:2]])
    assert shapes == [["o", "o"], ["None", "None"]]


def test_a_notebook_says_what_is_being_done_until_there_is_a_figure(monkeypatch):
    shown = []

    class Handle:
        def update(self, what, **how):
            shown.append((what, how))

    def display(what, display_id, **how):
        assert display_id
        Handle().update(what, **how)
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", lambda: "a kernel")
    monkeypatch.setattr(IPython.display, "display", display)
    figure = LiveFigure()
    for line in ("booting", "it is up"):
        figure.say(line)
    figure.add(SEEN)
    figure.say("it has ended")
    text = [({"text/plain": line}, {"raw": True}) for line in ("booting", "it is up")]
    assert shown[:2] == text
    ((picture, _),) = shown[2:]
    assert set(picture) == {"image/png", "text/plain"} and "Figure" in picture["text/plain"]


# What stands in for a command that says what it does, waits until that was heard, and fails.
SAYS = """
import pathlib, sys, time
print("    1 s  dom0 is up", file=sys.stderr, flush=True)
while not pathlib.Path(HEARD).exists():
    time.sleep(0.01)
sys.exit(END)
"""


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("'pmlkit: no guest: name one'", r"^no guest: name one$"),
        ("9", r"^`pmlkit lab run g .*` ended with status 9 \(1 s dom0 is up\)$"),
    ],
)
def test_what_a_command_says_is_heard_before_the_first_round(monkeypatch, tmp_path, end, error):
    heard, told = tmp_path / "heard", []
    run = collecting.start("lab", "g", tmp_path)
    code = f"HEARD = {str(heard)!r}{SAYS.replace('END', end)}"
    monkeypatch.setattr(run, "_command", lambda: [sys.executable, "-c", code])

    def tell(line):
        told.append(line)
        if line == "1 s  dom0 is up":
            heard.touch()

    with pytest.raises(PmlkitError, match=error):
        run.run(print, tell)
    assert told[:2] == ["preparing the lab", "1 s  dom0 is up"]


def test_a_line_of_the_log_says_what_a_round_was():
    assert live.line(SEEN) == (
        "round 3: 2.000 s, working set 256 pages (1 MiB) in 1 s, 2,560 entries/s, 5 exits/s, "
        "7 lost, ring 25 %, paused 1.5 us, 2 % of a CPU"
    )


def test_a_line_leaves_out_what_is_not_known():
    """Of the counts, a KVM host's log has the entries, and its other sources have none."""
    known = {"pages": 256, "lost": 7, "agent_cpu_ns": 20_000_000}
    assert live.line(Seen(3, 2_000_000_000, 1_000_000_000, entries=2560, **known)) == (
        "round 3: 2.000 s, working set 256 pages (1 MiB) in 1 s, 2,560 entries/s, "
        "7 lost, paused 0 ns, 2 % of a CPU"
    )
    assert live.line(Seen(3, 2_000_000_000, 1_000_000_000, **known)) == (
        "round 3: 2.000 s, working set 256 pages (1 MiB) in 1 s, 7 lost, paused 0 ns, 2 % of a CPU"
    )


def test_nothing_is_shown_to_programs(capsys):
    with live.watching("guest", quiet=True) as show:
        show(SEEN)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_table(monkeypatch, capsys):
    import io

    from rich.console import Console

    from pmlkit.cli import console

    screen = io.StringIO()
    page = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(console, "console", lambda error=False: page)
    with live.watching("guest") as show:
        show(SEEN)
    shown = screen.getvalue()
    assert "collecting guest" in shown and "1 MiB" in shown and "2,560" in shown


def test_a_table_has_empty_cells_for_what_is_not_known(monkeypatch):
    import io

    from rich.console import Console

    from pmlkit.cli import console

    screen = io.StringIO()
    page = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(console, "console", lambda error=False: page)
    with live.watching("guest") as show:
        show(Seen(3, 2_000_000_000, 1_000_000_000, 256, lost=7))
    plain = re.sub("\x1b[^m]*m", "", screen.getvalue())
    row = next(line for line in plain.splitlines() if "1 MiB" in line)
    assert row.split() == ["3", "2.0", "s", "1", "s", "1", "MiB", "7", "0", "ns", "0", "%"]


def test_the_figure_takes_rounds_of_which_only_the_size_is_known(tmp_path):
    figure = LiveFigure()
    figure.add(Seen(0, 1_000_000_000, 1_000_000_000, 256))
    figure.draw()
    assert {path.suffix for path in figure.save(tmp_path / "live")} >= {".csv", ".parquet"}


def test_a_terminal_sees_the_curve_and_all_that_was_lost(monkeypatch):
    import io

    from rich.console import Console

    from pmlkit.cli import console

    screen = io.StringIO()
    page = Console(file=screen, force_terminal=True, width=100, height=30)
    monkeypatch.setattr(console, "console", lambda error=False: page)
    with live.watching("guest") as show:
        for number in range(20):
            pages = 2560 if number == 10 else 256
            show(replace(SEEN, round=number, t_ns=(1 + number) * 10**9, pages=pages))
    shown = screen.getvalue().rpartition("collecting guest")[2]
    assert "working set per round, MiB; 140 entries lost since the start" in shown
    peak = next(line for line in shown.splitlines() if line.startswith("10 "))
    column = peak.partition("|")[2].index(":") / (100 - 6)
    assert column == pytest.approx(10 / 19, abs=0.03)
    axis = next(line for line in shown.splitlines() if "+--" in line or "++-" in line)
    assert len(peak) <= 100 and len(axis) <= 100


def test_a_low_terminal_sees_no_curve(monkeypatch):
    import io

    from rich.console import Console

    page = Console(file=io.StringIO(), force_terminal=True, width=100, height=12)
    curve = live._Curve(page)
    for number in range(3):
        curve.add(replace(SEEN, t_ns=number))
    assert curve.text().plain == ""


def test_a_recording_is_seen_as_its_spool_grows(tmp_path):
    """Frames by hand, in the plugin's layout; a spool that is removed is read to its end."""
    file = tmp_path / "frames.spool"
    watcher = Follower(file, RecordingWatcher)
    assert list(watcher.poll()) == []  # not yet there
    with SpoolWriter(file, {"memory_bytes": 16 * 4096}) as writer:

        def span(kind, *words):
            told = messages._SPAN.pack(0, 1, 0, 0, 0, 0) + np.array(words, "<u4").tobytes()
            writer.append(kind, told)

        span(Message.ACCESS, 3 << 3 | 1, 3 << 3 | 2, 7 << 3 | 1)
        span(Message.PML, 3)
        assert list(watcher.poll()) == []
        writer.append(Message.ROUND_END, messages._ROUND.pack(0, 5, 0, 100, 9, 350, 2, 1))
        (seen,) = watcher.poll()
        assert (seen.round, seen.t_ns, seen.length_ns, seen.exits) == (0, 350, 250, 5)
        assert (seen.pages, seen.distinct, seen.entries) == (2, 2, 3)
        span(Message.ACCESS, 7 << 3 | 1, 9 << 3 | 1)
        writer.append(Message.ROUND_END, messages._ROUND.pack(1, 0, 9, 350, 9, 400, 2, 0))
    file.unlink()
    (seen,) = watcher.poll()
    assert (seen.round, seen.distinct, seen.entries, seen.exits) == (1, 3, 2, 0)
    watcher.close()
    watcher.close()


def test_the_lab_is_asked_for_what_was_asked_for(tmp_path):
    run = collecting.start("lab", "known", tmp_path, rounds=7, memory_mib=96)
    words = run._command()
    options = dict(zip(words, words[1:], strict=False))
    assert words[3:6] == ["lab", "run", "known"]
    assert (options["--rounds"], options["--period"]) == ("7", "200ms")
    assert (options["--guest-memory"], options["-o"]) == ("96M", str(tmp_path / "known.trace"))
    assert "--overwrite" in words
    assert "--json" not in words  # which keeps the command from saying what it does


@slow
@needs_qemu
def test_a_guest_is_seen_while_it_is_recorded(tmp_path):
    shown = []
    run = collecting.start("recorder", "hotcold", tmp_path, memory_mib=256)
    assert run.run(shown.append) is run.trace
    assert [seen.round for seen in shown] == list(range(run.trace.n_rounds))
    assert [seen.t_ns for seen in shown] == run.trace.rounds.t_end_ns.tolist()
    used = run.trace.to_pandas().groupby("round").gfn.nunique()
    # A round in which the host had no time for the guest has no entries.
    assert [seen.pages for seen in shown[:9]] == used.reindex(range(9), fill_value=0).tolist()
    assert shown[-1].distinct == run.trace.to_pandas().gfn.nunique()


@needs_qemu
def test_a_recording_that_fails_says_why(tmp_path):
    run = collecting.start("recorder", "nonesuch", tmp_path)
    with pytest.raises(PmlkitError, match="there is no such workload"):
        run.run(print)
    assert run.trace is None


@slow
@needs_qemu
def test_ctrl_c_ends_a_recording_and_keeps_what_came(tmp_path):
    seen = []

    def interrupt(each):
        seen.append(each)
        if len(seen) == 1:
            raise KeyboardInterrupt

    busy = str(Path(__file__).parents[1] / "sources/guests/busy.c")  # never ends by itself
    trace = collecting.start("recorder", busy, tmp_path, memory_mib=128).run(interrupt)
    assert not trace.meta.complete
    assert trace.n_rounds == len(seen)


def test_a_recording_is_watched_at_a_cost_of_its_entries():
    # Pages of 64 GiB were summed up at each round: 11 ms of one without entries.
    watcher = RecordingWatcher({"memory_bytes": 64 << 30})
    rng = np.random.default_rng(1)
    known, began = set(), time.process_time()
    for number in range(20_000):
        times = (number, number, number + 1, number + 1)
        frames = rng.integers(0, 1000, 5) if number % 1000 == 0 else []
        words = struct.pack(f"<{len(frames)}I", *(int(gfn) << 3 | 1 for gfn in frames))
        watcher.take(Message.ACCESS, struct.pack("<IIQqQq", number, 1, *times) + words)
        end = struct.pack("<IIQqQqQQ", number, 0, *times, len(frames), 0)
        seen = watcher.take(Message.ROUND_END, end)
        known.update(map(int, frames))
        assert (seen.distinct, seen.entries) == (len(known), len(frames))
    assert time.process_time() - began < 20
