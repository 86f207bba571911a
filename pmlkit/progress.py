# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: the work done, the work left, and the time left.

Functions of the package report what they do, and need no argument for it:

>>> from pmlkit import progress
>>> with progress.task("adding", total=3) as task:
...     for number in range(3):
...         task.begin(f"number {number}")
...         task.advance()
>>> sum(progress.over(range(3), "adding"))
3

The display depends on the caller. A command shows it with `shown`: as a bar at a terminal, as a
line each ten seconds in a log. A notebook with a user shows a bar below the cell, which is gone
when the work is done. A script, and a notebook that papermill runs, show nothing.

Work that takes less than two seconds shows nothing. A thread draws, so that one long call of
compiled code is seen, too. Kernels do not report: their callers do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Sized
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pmlkit.errors import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Any, TypeVar

    Item = TypeVar("Item")

__all__ = [
    "Log",
    "Notebook",
    "Reporter",
    "Task",
    "Terminal",
    "can_print",
    "has_user",
    "note",
    "over",
    "shown",
    "silent",
    "task",
]

PATIENCE_S = 2.0  # shorter work shows nothing
LOG_EVERY_S = 10.0
COUNTED = 1000  # with more steps, percent are shown
BAR = 20  # columns
_CLEAR = "\r\x1b[2K"


class Task:
    """A piece of work, as `task` opens it.

    Parameters
    ----------
    what : str
        In a few words: "reading", "comparing".
    total : int or None
        Steps, of any size; None: not known.
    of_parts : bool
        Count the items of each `over` within this one as steps of its own.

    Attributes
    ----------
    text : str
        The current step.
    done : int
        Steps.
    """

    def __init__(self, what: str, total: int | None = None, of_parts: bool = False) -> None:
        self.what, self.total, self.of_parts = what, total, of_parts
        self.text, self.done, self.began_s = "", 0, 0.0
        self.parent: Task | None = None

    def begin(self, text: str) -> None:
        """Name the current step."""
        self.text = text

    def stage(self, line: str) -> None:
        """Name the current step in a line that stays, and as the text after a colon."""
        self.text = line
        note(line)

    def advance(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self.done += steps


class Reporter:
    """Shows tasks; this one shows nothing.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    """

    first_s = PATIENCE_S  # before anything is shown
    every_s = 0.25
    draws = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tasks: list[Task] = []
        self._due_s = 0.0
        self._lock = threading.RLock()
        self._stop: threading.Event | None = None

    def open(self, task: Task) -> None:
        """Begin a task within the last open one."""
        with self._lock:
            task.parent = self.tasks[-1] if self.tasks else None
            task.began_s = self.clock()
            self.tasks.append(task)
            if task.parent is None and self.draws:
                self._due_s = task.began_s + self.first_s
                self._start()

    def close(self, task: Task) -> None:
        """End a task, and clear its display."""
        with self._lock:
            gone = {task}  # and tasks within it that were not closed, as by a generator
            for other in self.tasks:
                if other.parent in gone:
                    gone.add(other)
            self.tasks = [other for other in self.tasks if other not in gone]
            if not self.tasks:
                self.end()

    def end(self) -> None:
        """End all tasks: the traceback of an error may keep a generator, and so its task, open."""
        with self._lock:
            self.tasks = []
            if self._stop is not None:
                self._stop.set()
                self._stop = None
                self.clear()

    def refresh(self) -> None:
        """Show the tasks if it is time for it."""
        with self._lock:
            now = self.clock()
            if self.tasks and now >= self._due_s:
                self._due_s = now + self.every_s
                self.show(now)

    def note(self, line: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self.clear()
            print(visible(line), file=sys.stderr, flush=True)

    def show(self, now: float) -> None:
        """Draw the open tasks."""

    def clear(self) -> None:
        """Remove what was drawn."""

    def words(self) -> str:
        """Return the open tasks and their current steps."""
        words = [word for task in self.tasks for word in (task.what, task.text) if word]
        return one_line(": ".join(word for word, _ in itertools.groupby(words)))

    def counts(self, now: float) -> str:
        """Return steps, time so far and time left."""
        task, share = self._main(), self.share()
        so_far = now - self.tasks[0].began_s
        parts = []
        if task.total and task.total <= COUNTED:
            parts.append(f"{min(task.done, task.total)} of {task.total}")
        elif share is not None:
            parts.append(f"{int(100 * share)} %")
        parts.append(_time(so_far))
        if share:
            took = now - task.began_s
            parts.append(f"{_time(took / share - took)} left")
        return ", ".join(parts)

    def share(self) -> float | None:
        """Return the finished share of the outermost task with a total; None if no task has one."""
        place = self.tasks.index(self._main())
        share = None
        for task in reversed(self.tasks[place:]):
            if task.total:
                within = 0.0 if task.of_parts else share or 0.0
                share = min((task.done + within) / task.total, 1.0)
        return share

    def _main(self) -> Task:
        return next((task for task in self.tasks if task.total), self.tasks[0])

    def _start(self) -> None:
        self._stop = threading.Event()
        threading.Thread(target=self._tick, args=(self._stop,), daemon=True).start()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(min(self.every_s, 1.0)):
            with contextlib.suppress(OSError, ValueError):  # the stream is closed
                self.refresh()


def _time(seconds: float) -> str:
    """Format seconds as 0:07, 12:00 or 1:05:00.

    >>> _time(7.4), _time(3900)
    ('0:07', '1:05:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Log(Reporter):
    """A line each ten seconds, for files and pipes.

    Parameters
    ----------
    stream : file
    clock : callable
    """

    first_s = every_s = LOG_EVERY_S
    draws = True

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.stream = stream

    def show(self, now: float) -> None:
        """Print the line."""
        print(f"{self.words()}: {self.counts(now)}", file=self.stream, flush=True)


class Terminal(Reporter):
    """One line with a bar, drawn again and again, and gone when the work is done.

    Parameters
    ----------
    stream : file
    clock : callable
    """

    draws = True

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.stream, self._drawn = stream, False

    def show(self, now: float) -> None:
        """Draw the line over the last one; words are cut where it would fold."""
        width = shutil.get_terminal_size().columns - 1
        end = f"  {self._bar()}{self.counts(now)}"
        words = self.words()
        if len(words) + len(end) > width:
            words = words[: max(width - len(end) - 3, 0)] + "..."
        self.stream.write((_CLEAR + words + end)[: len(_CLEAR) + width])
        self.stream.flush()
        self._drawn = True

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            self.stream.write(_CLEAR)
            self.stream.flush()
        self._drawn = False

    def _bar(self) -> str:
        share = self.share()
        if share is None:
            return ""
        full, empty = ("━", "╌") if can_print(self.stream, "━╌") else ("#", "-")
        columns = round(BAR * share)
        return full * columns + empty * (BAR - columns) + "  "


def can_print(stream: IO[str], text: str) -> bool:
    """Return whether a stream's encoding has these characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Notebook(Reporter):
    """A bar below the cell that runs; its place in the output is empty when the work is done."""

    every_s = 0.5
    draws = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._id: str | None = None

    def show(self, now: float) -> None:
        """Draw the bar, at first as an output of the cell."""
        import html

        share, words, counts = self.share(), self.words(), self.counts(now)
        value = "" if share is None else f' value="{share:.3f}"'
        bar = f'<progress max="1"{value} style="vertical-align: middle"></progress>'
        note = f"<small>{bar} {html.escape(words)}: {counts}</small>"
        self._publish({"text/html": note, "text/plain": f"{words}: {counts}"})

    def clear(self) -> None:
        """Empty the output."""
        if self._id is not None:
            self._publish({"text/html": "", "text/plain": ""})
        self._id = None

    def _start(self) -> None:
        super()._start()
        if (ipython := _ipython()) is not None:
            ipython.events.register("post_run_cell", self._cell_ended)

    def _cell_ended(self, *_: object) -> None:
        self.end()
        if (ipython := _ipython()) is not None:
            ipython.events.unregister("post_run_cell", self._cell_ended)

    def _publish(self, data: dict[str, str]) -> None:
        from IPython import display

        again = self._id is not None
        self._id = self._id or os.urandom(8).hex()
        publish: Callable[..., None] = display.publish_display_data
        publish(data, transient={"display_id": self._id}, update=again)


_NOTEBOOK = Notebook()
_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


def _current() -> Reporter:
    """Return the current reporter."""
    reporter = _reporter.get()
    if reporter is not None:
        return reporter
    return _NOTEBOOK if has_user() else Reporter()


def _ipython() -> Any:
    """Return IPython's shell; None outside of it."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module else None


def has_user() -> bool:
    """Return whether this is a notebook's kernel with a user, who can be asked for input."""
    kernel = getattr(_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent()["content"].get("allow_stdin"))


@contextlib.contextmanager
def task(what: str, total: int | None = None, of_parts: bool = False) -> Iterator[Task]:
    """Report the block as a task; parameters as in `Task`.

    Yields
    ------
    Task
        Count its steps with ``advance``; name what is done by ``begin``.
    """
    reporter, opened = _current(), Task(what, total, of_parts)
    reporter.open(opened)
    try:
        yield opened
    finally:
        reporter.close(opened)


def over(
    items: Iterable[Item], what: str = "", name: Callable[[Item], object] | None = None
) -> Iterator[Item]:
    """Yield items, and report them as the steps of a task.

    Parameters
    ----------
    items : iterable
        Its length, if it has one, is the number of steps.
    what : str
        As in `Task`.
    name : callable, optional
        Returns what is shown while an item is worked on.
    """
    total = len(items) if isinstance(items, Sized) else None
    with task(what, total) as steps:
        for item in items:
            if name is not None:
                steps.begin(str(name(item)))
            yield item
            steps.advance()
            if steps.parent is not None and steps.parent.of_parts:
                steps.parent.advance()


def note(line: str) -> None:
    """Print a line that stays, on standard error, above the display."""
    reporter = _reporter.get()
    (reporter or Reporter()).note(line)


def shown(quiet: bool = False) -> contextlib.AbstractContextManager[Reporter]:
    """Context whose tasks are shown on standard error; within another such context, by that."""
    if quiet:
        return silent()
    current = _reporter.get()
    if current is not None:
        return contextlib.nullcontext(current)
    # TERM=dumb (Emacs, some CI) does not clear lines.
    bar = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return _with(Terminal(sys.stderr) if bar else Log(sys.stderr))


def silent() -> contextlib.AbstractContextManager[Reporter]:
    """Context whose tasks are not shown: in threads behind a widget, or where JSON is printed."""
    return _with(Reporter())


@contextlib.contextmanager
def _with(reporter: Reporter) -> Iterator[Reporter]:
    token = _reporter.set(reporter)
    try:
        yield reporter
    finally:
        _reporter.reset(token)
        reporter.end()
