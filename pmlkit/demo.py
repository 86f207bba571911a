# SPDX-License-Identifier: Apache-2.0
"""The demo: the notebooks on the bundled recordings, and one page that shows what came out.

Every notebook runs in an operating system process of its own. What they wrote is read back from
the folder: the page needs nothing but the files.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pmlkit
from pmlkit.errors import UsageError, output_error
from pmlkit.notebooks import failure, notebooks_folder, start_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import Popen
    from typing import Any, Self

    from rich.console import Console

    from pmlkit.types import PathLike


__all__ = ["Run", "plan", "run"]

# The recordings that the demo shows when it is not told which: known answers, then real programs.
PREFERRED = ("hotcold", "rrww", "sqlite", "redis")
# notebook -> how many of the traces it is run on: enough to see, within three minutes.
NOTEBOOKS = {"02_working_set": 4, "05_figures": 2, "01_collect": 1, "07_miss_ratio": 1}

SUFFIXES = {".pdf", ".svg", ".png", ".csv", ".parquet", ".tex"}


@dataclass(frozen=True)
class Run:
    """One notebook on one trace.

    Attributes
    ----------
    notebook : str
        Its stem, such as ``"02_working_set"``.
    trace : str
        A bundled trace's name, or a path.
    """

    notebook: str
    trace: str

    @property
    def name(self) -> str:
        """The trace's name, without its folder."""
        return Path(self.trace).name.removesuffix(".trace")

    @property
    def stem(self) -> str:
        """The name of what the run writes."""
        return f"{self.notebook}-{self.name}"


def plan(traces: Sequence[str] | None = None) -> list[Run]:
    """Say which notebooks the demo runs on which traces.

    Parameters
    ----------
    traces : sequence of str, optional
        Names of bundled traces, or paths; by default up to four bundled ones.

    Returns
    -------
    list of Run
        The longest first, so that two processes end at about the same time.

    Raises
    ------
    pmlkit.errors.UsageError
        If there is no trace to show, or two have the same name.
    """
    there = pmlkit.bundled()
    traces = [t if t in there else str(Path(t).resolve()) for t in traces or _default(there)]
    if not traces:
        raise UsageError(
            "the demo has no trace: record one with `pmlkit record hotcold -o X.trace`"
        )
    names = [Run("", trace).name for trace in traces]
    if len(set(names)) < len(names):
        raise UsageError("two of the demo's traces have the same name: rename one")
    # The real programs come last in `traces`, and make the better pictures.
    real_first = traces[::-1]
    return [
        Run(notebook, trace)
        for notebook, count in NOTEBOOKS.items()
        for trace in (traces if notebook == "01_collect" else real_first)[:count]
    ]


def _default(there: Sequence[str]) -> list[str]:
    known = [name for name in PREFERRED if name in there]
    return (known + [name for name in there if name not in known])[:4]


def run(
    out: PathLike = "results/demo",
    traces: Sequence[str] | None = None,
    jobs: int = 2,
    console: Console | None = None,
) -> Path:
    """Run the demo.

    Parameters
    ----------
    out : path-like
        Folder for the page and everything that it shows; files of an earlier demo are replaced.
    traces : sequence of str, optional
        See `plan`.
    jobs : int
        Notebooks that run at the same time.
    console : rich.console.Console, optional
        Where progress goes; the standard error by default.

    Returns
    -------
    pathlib.Path
        The page, ``out/index.html``.

    Raises
    ------
    pmlkit.notebooks.NotebookError
        If a notebook fails: which, in which cell, and what it said.
    pmlkit.errors.OutputError
        If `out` cannot be written.
    """
    from pmlkit.demo_page import write_page  # with pandas and jinja2: later than `--help`

    started = time.monotonic()
    out = Path(out).resolve()
    runs = plan(traces)
    _prepare(out, runs)
    seconds = _run_all(runs, out, jobs, console)
    return write_page(out, runs, seconds, time.monotonic() - started)


def _prepare(out: Path, runs: Sequence[Run]) -> None:
    try:
        # The page comes last: as long as it is not there, the demo is not done.
        (out / "index.html").unlink(missing_ok=True)
        (out / "notebooks").mkdir(parents=True, exist_ok=True)
        for folder in (out / "figures" / run.stem for run in runs):
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if file.suffix in SUFFIXES:
                    file.unlink()  # of an earlier demo; the page shows what is there
    except OSError as error:
        raise output_error(out, error) from error


def _run_all(
    runs: Sequence[Run], out: Path, jobs: int, console: Console | None
) -> dict[Run, float]:
    """Keep up to `jobs` notebooks running; the first failure ends the others."""
    from pmlkit.demo_page import write_notebook

    waiting, active, seconds = deque(runs), {}, {}  # type: ignore[var-annotated]
    with _Progress(console, len(runs)) as show:
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    item = waiting.popleft()
                    active[item] = _start(item, out), time.monotonic()
                    show.started(item)
                for item in [item for item, (process, _) in active.items() if _ended(process)]:
                    process, since = active.pop(item)
                    seconds[item] = time.monotonic() - since
                    _check(process, item, out)
                    write_notebook(out, item)
                    show.finished(item, seconds[item])
                time.sleep(0.05)
        finally:
            for process, _ in active.values():
                process.terminate()
                process.wait()
    return seconds


def _ended(process: Popen[Any]) -> bool:
    return process.poll() is not None


def _start(item: Run, out: Path) -> Popen[Any]:
    return start_notebook(
        notebooks_folder() / f"{item.notebook}.ipynb",
        executed_path(out, item),
        {"trace": item.trace, "out": str(out / "figures" / item.stem)},
    )


def executed_path(out: PathLike, item: Run) -> Path:
    """Return where the executed notebook of a run is."""
    return Path(out) / "notebooks" / f"{item.stem}.ipynb"


def _check(process: Popen[Any], item: Run, out: PathLike) -> None:
    executed = executed_path(out, item)
    if process.returncode:
        raise failure(executed, f"{item.notebook} on {item.trace}", process.returncode)
    executed.with_suffix(".log").unlink(missing_ok=True)


class _Progress:
    """A bar over all runs and a line for each active one; plain lines where no terminal is."""

    def __init__(self, console: Console | None, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self.console = console or Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.total, self.done, self.tasks = total, 0, {}  # type: ignore[var-annotated]

    def __enter__(self) -> Self:
        self.bar.start()
        self.all = self.bar.add_task("notebooks", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def started(self, item: Run) -> None:
        self.tasks[item] = self.bar.add_task(f"{item.notebook} on {item.trace}", total=1)

    def finished(self, item: Run, seconds: float) -> None:
        self.done += 1
        self.bar.remove_task(self.tasks.pop(item))
        self.bar.advance(self.all)
        self.console.print(
            f"{self.done}/{self.total} {item.notebook} on {item.trace}: {seconds:.0f} s",
            highlight=False,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m pmlkit.demo`` is ``pmlkit demo``: errors become exit codes there."""
    from pmlkit.cli import main as command

    return command(["demo", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
