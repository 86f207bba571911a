# SPDX-License-Identifier: Apache-2.0
"""Progress at a terminal, in a log and in a notebook, with a clock that the tests set."""

import io
import sys
import threading
import types

import pytest
from waiting import HANG_S, until

from pmlkit import progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def no_threads(monkeypatch):
    """Nothing is drawn but by `refresh`."""
    monkeypatch.setattr(progress.Reporter, "_start", lambda self: setattr(self, "_stop", Stop()))


class Stop:
    def set(self):
        """Nothing runs."""


@pytest.fixture
def screen():
    stream = io.StringIO()
    stream.isatty = lambda: True
    return stream


def seen(stream):
    """Return what a terminal shows of its last line."""
    return stream.getvalue().rpartition("\r\x1b[2K")[2]


@pytest.fixture
def log(clock, no_threads):
    """Return a function that goes to a time, and returns what was printed since."""
    stream = io.StringIO()
    reporter = progress.Log(stream, clock)
    reporter.first_s = progress.LOG_EVERY_S

    def at(seconds):
        while clock.now < seconds:  # the thread looks each second
            clock.now += 1
            reporter.refresh()
        printed = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return printed

    with progress._with(reporter):
        yield at


def test_a_log_has_a_line_each_ten_seconds(log):
    with progress.task("comparing", total=4) as task:
        task.begin("redis vmware")
        assert log(9) == ""
        task.advance()
        assert log(10) == "comparing: redis vmware: 1 of 4, 0:10, 0:30 left\n"
        assert log(19) == ""
        task.advance()
        assert log(31) == (
            "comparing: redis vmware: 2 of 4, 0:20, 0:20 left\n"
            "comparing: redis vmware: 2 of 4, 0:30, 0:30 left\n"
        )
    assert log(100) == ""


def test_time_left_counts_what_is_done_of_a_step(log):
    with progress.task("counting"), progress.task("reading", total=2) as traces:
        with progress.task("rows", total=10_000) as rows:
            rows.advance(5_000)
            assert log(10) == "counting: reading: rows: 0 of 2, 0:10, 0:30 left\n"  # a quarter
        traces.advance()
        assert log(20) == "counting: reading: 1 of 2, 0:20, 0:20 left\n"


def test_without_a_total_there_is_no_time_left(log):
    with progress.task("simulating"):
        assert log(3700).splitlines()[-1] == "simulating: 1:01:40"


def test_many_steps_are_percent(log):
    with progress.task("reading", total=10**8) as rows:
        rows.advance(43 * 10**6)
        assert log(43).endswith("reading: 43 %, 0:40, 0:53 left\n")


def test_a_whole_counts_the_items_of_its_parts(log):
    with progress.task("back-testing", total=10, of_parts=True):
        assert list(progress.over([1, 2], "reading", str)) == [1, 2]
        for _ in progress.over(["a", "b", "c"], "fitting", "without {}".format):
            with progress.task("rows", total=100) as rows:  # no step of the whole
                rows.advance(100)
            last = log(10)
            break
    assert last == "back-testing: fitting: without a: 2 of 10, 0:10, 0:40 left\n"


def test_an_iterator_has_no_total(log):
    for _ in progress.over(iter([1]), "lines"):
        assert log(10) == "lines: 0:10\n"


def test_a_terminal_shows_a_bar_after_two_seconds_and_removes_it(
    clock, no_threads, screen, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = progress.Terminal(screen, clock)
    with progress._with(terminal), progress.task("sweeping", total=4) as task:
        task.begin("redis")
        clock.now = 1.9
        terminal.refresh()
        assert screen.getvalue() == ""
        clock.now = 4.0
        task.advance()
        terminal.refresh()
        assert (
            seen(screen) == "sweeping: redis  " + "#" * 5 + "-" * 15 + "  1 of 4, 0:04, 0:12 left"
        )
    assert seen(screen) == ""


@pytest.mark.parametrize("encoding, bar", [("utf-8", "━╌"), ("ascii", "#-"), (None, "#-")])
def test_a_bar_is_of_letters_that_the_terminal_has(clock, no_threads, encoding, bar):
    stream = io.StringIO() if encoding is None else io.TextIOWrapper(io.BytesIO(), encoding)
    terminal = progress.Terminal(stream, clock)
    with progress._with(terminal), progress.task("x", total=2) as task:
        task.advance()
        assert terminal._bar() == bar[0] * 10 + bar[1] * 10 + "  "


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_terminal_line_does_not_fold(clock, no_threads, screen, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = progress.Terminal(screen, clock)
    with progress._with(terminal), progress.task("long" * 40, total=7):
        clock.now = 5.0
        terminal.refresh()
        assert len(seen(screen)) < columns


def test_names_from_a_trace_cannot_move_the_cursor(log):
    with progress.task("reading") as task:
        task.begin("evil\x1b[2J\nname")
        line = log(10)
    assert "\x1b" not in line and line.count("\n") == 1


def test_a_line_that_stays_is_above_the_bar(clock, no_threads, screen, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen)
    terminal = progress.Terminal(screen, clock)
    with progress._with(terminal), progress.task("runs"):
        clock.now = 5.0
        terminal.refresh()
        progress.note("a line")
        assert seen(screen) == "a line\n"


class Publisher:
    """Stands for a notebook's output: what it shows, by display."""

    def __init__(self, monkeypatch):
        self.outputs = {}
        monkeypatch.setattr("IPython.display.publish_display_data", self)

    def __call__(self, data, transient, update):
        assert update == (transient["display_id"] in self.outputs)
        self.outputs[transient["display_id"]] = data


def test_a_notebook_shows_a_bar_that_is_gone_at_the_end(clock, no_threads, monkeypatch):
    cell, notebook = Publisher(monkeypatch), progress.Notebook(clock)
    with progress._with(notebook), progress.task("<b>", total=2) as task:
        clock.now = 1.0
        notebook.refresh()
        assert not cell.outputs
        task.advance()
        clock.now = 4.0
        notebook.refresh()
        (shown,) = cell.outputs.values()
        assert shown["text/plain"] == "<b>: 1 of 2, 0:04, 0:04 left"
        assert 'value="0.500"' in shown["text/html"] and "&lt;b&gt;" in shown["text/html"]
    assert list(cell.outputs.values()) == [{"text/html": "", "text/plain": ""}]


@pytest.mark.parametrize("user", [True, False])
def test_a_notebook_without_a_user_shows_nothing(monkeypatch, user):
    def parent():
        return {"content": {"allow_stdin": user}}

    shell = types.SimpleNamespace(kernel=types.SimpleNamespace(get_parent=parent))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.has_user() == user
    assert isinstance(progress._current(), progress.Notebook) == user
    with progress.silent():
        assert not isinstance(progress._current(), progress.Notebook)


def test_a_script_shows_nothing():
    assert not progress._current().draws


@pytest.mark.parametrize(
    "is_terminal, term, kind",
    [(True, "xterm", "Terminal"), (True, "dumb", "Log"), (False, "xterm", "Log")],
)
def test_where_it_is_shown(monkeypatch, is_terminal, term, kind):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    with progress.shown() as reporter:
        assert type(reporter).__name__ == kind
        with progress.shown() as inner:
            assert inner is reporter
        with progress.shown(quiet=True) as quiet:
            assert not quiet.draws


def test_an_interrupt_removes_the_bar_and_ends_the_thread(screen, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    monkeypatch.setattr(progress.Terminal, "first_s", 0.0)
    monkeypatch.setattr(progress.Terminal, "every_s", 0.001)
    before = threading.active_count()
    drawn = threading.Event()
    monkeypatch.setattr(progress.Terminal, "words", lambda self: drawn.set() or "work")
    with (
        pytest.raises(KeyboardInterrupt),
        progress._with(progress.Terminal(screen)),
        progress.task("work"),
    ):
        for _ in progress.over([1], "inside"):
            assert drawn.wait(HANG_S)
            raise KeyboardInterrupt
    assert seen(screen) == ""
    until(lambda: threading.active_count() <= before, "the thread goes on")


def test_a_cell_that_fails_leaves_no_bar(clock, monkeypatch):
    """A traceback keeps the generator, and so its task, open; several bars are one callback."""
    shell = types.SimpleNamespace(events=Events(), kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    notebook = progress.Notebook(clock)
    monkeypatch.setattr(notebook, "clear", lambda: None)
    kept = []
    notebook.open(progress.Task("reading"))
    kept.append(notebook.tasks[0])
    assert shell.events.callbacks == [notebook._cell_ended]
    shell.events.callbacks[0](None)
    assert not notebook.tasks and notebook._stop is None and not shell.events.callbacks
    notebook.close(kept[0])
    assert not notebook.tasks


class Events:
    def __init__(self):
        self.callbacks = []

    def register(self, name, callback):
        assert name == "post_run_cell"
        if callback not in self.callbacks:
            self.callbacks.append(callback)

    def unregister(self, name, callback):
        self.callbacks.remove(callback)


def test_what_a_thread_reads_is_seen(log):
    from pmlkit.kernels.pages import ahead

    lines = []
    with progress.task("counting"):
        for _ in ahead(progress.over(range(10), "reading"), depth=1):
            lines.append(log(10 * (1 + len(lines))))
    assert any("counting: reading: " in line for line in lines)


def test_a_task_that_ends_in_another_order_leaves_the_others(log):
    with progress.task("drawing"):
        rows = progress.over([1], "rows")
        next(rows)
        with progress.task("cells"):
            pass
        rows.close()
        assert log(10) == "drawing: 0:10\n"


def test_a_task_that_a_generator_left_open_ends_with_the_one_around_it(log):
    left = []
    with progress.task("reading"):
        left.append(progress.over([1, 2], "rows"))
        next(left[0])
    with progress.task("drawing"):
        assert log(10) == "drawing: 0:10\n"
