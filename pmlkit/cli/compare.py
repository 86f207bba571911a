# SPDX-License-Identifier: Apache-2.0
"""The command ``pmlkit compare``: techniques on recorded VMs, one table."""

from __future__ import annotations

import shlex
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import IntRange

from pmlkit.cli.options import (
    as_json,
    echo,
    example,
    names,
    only_answer,
    option,
    output,
    span_of_paths,
)
from pmlkit.cli.parameters import ABOVE_0, DURATION_TEXT, TracePath
from pmlkit.cli.show import show
from pmlkit.errors import TraceNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from pmlkit.compare import Comparison, Plan
    from pmlkit.types import Json


_EXAMPLES = example(
    "pmlkit compare redis --window 1s",
    "pmlkit compare redis hotcold --summary",
    "pmlkit compare redis --start 2s --end 8s",
    "pmlkit compare h.trace --techniques pml,vmware,damon --seeds 20 --json",
    "pmlkit compare experiments/compare.yaml --jobs 2 -o results/compare",
)
_EXPERIMENTS = (".yaml", ".yml")


@click.command(epilog=_EXAMPLES)
@click.argument("traces", nargs=-1, type=TracePath(_EXPERIMENTS),
                metavar="[TRACE | EXPERIMENT.yaml]...")  # fmt: skip
@option("--list", "list_them", is_flag=True, help="List the techniques and their sources.")
@option("--techniques", shell_complete=names("pmlkit.techniques:TECHNIQUES"),
        help="Names from --list, separated by commas. [default: all]")  # fmt: skip
@option("--window", type=DURATION_TEXT, help="T of the true working set W(t, T). [default: 1s]")
@option("--time-scale", "scale", default=None,
        help="Scale factor for the published intervals. auto: 30 s (VMware) becomes T. 1: use "
             "them unchanged. [default: auto]")  # fmt: skip
@option("--seeds", type=IntRange(1), default=None,
        help="Number of runs of techniques that draw random numbers. [default: 5]")  # fmt: skip
@span_of_paths
@option("--ns-per-insn", default=None, type=ABOVE_0,
        help="Length of an instruction, if the clock of a TRACE does not contain it. Overheads "
             "need it.")  # fmt: skip
@option("--jobs", default=1, type=IntRange(1), help="Number of traces to process in parallel.")
@option(
    "--published",
    is_flag=True,
    help="Print the experiment of Bitchebe et al., as published and as reproduced here.",
)
@option("--record", is_flag=True, help="Record the missing traces of the experiment.")
@output(
    "FOLDER",
    "Write the tables (LaTeX, HTML, CSV) and the figures to this folder, too.",
    folder=True,
)
@only_answer
@as_json
def compare(
    traces: tuple[str, ...],
    list_them: bool,
    published: bool,
    record: bool,
    output: str,
    jobs: int,
    only_answer: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare all techniques with the true working set.

    Each TRACE is an access trace, or the name of a bundled one. An EXPERIMENT.yaml names several.
    Errors are in percent of W(t, T), and steps in windows T.

    Techniques always observe the recording from its start. With --start and --end, only the windows
    T, steps and events between these times count. An event has the time of the estimate that
    follows it.
    """
    if list_them:
        return _list(as_json)
    if not traces:
        raise UsageError("name a TRACE, or an EXPERIMENT.yaml (`pmlkit compare --help`)")
    given = {name: value for name, value in options.items() if value is not None}
    paths, plans = _resolve(traces, given, record)
    folder = Path(output) if output else None
    if published:
        if {"start", "end"} & set(given):
            raise UsageError("--published uses whole recordings: leave out --start and --end")
        return _published(paths, folder, as_json)
    for window, plan in plans.items():
        into = folder / f"T-{window}" if folder and len(plans) > 1 else folder
        _compare(paths, plan, jobs, into, only_answer, as_json)


def _compare(
    paths: Sequence[Path],
    plan: Plan,
    jobs: int,
    folder: Path | None,
    only_answer: bool,
    as_json: bool,
) -> None:
    from pmlkit import compare as batch
    from pmlkit.cli import console
    from pmlkit.figures import compare_tables

    with console.busy("comparing", quiet=as_json):
        comparison = batch.compare(paths, plan, jobs)
    if folder:
        with console.busy("drawing", quiet=as_json):
            compare_tables.save(comparison, folder)
    best = comparison.best
    lines = ["No technique has a score."] if best is None else [best.answer]
    if only_answer:
        summary = batch.as_dict(comparison)["summary"]
        return show(as_json, {"summary": summary}, console.answer, lines)
    lines.append(f"{comparison.caption}.")
    show(as_json, lambda: batch.as_dict(comparison), console.answer, lines, *_tables(comparison))


def _tables(comparison: Comparison) -> Iterator[Callable[[], None]]:
    from pmlkit.cli import console
    from pmlkit.figures import compare_tables

    for title, sheet in compare_tables.sheets(comparison).items():
        yield partial(console.sheet, compare_tables.narrow(sheet), title)


def _resolve(
    traces: Sequence[str], given: Json, record: bool
) -> tuple[list[Path], dict[str, Plan]]:
    """Resolve the arguments to paths of traces, and the plans to run on them by window."""
    paths: list[Path] = []
    points: list[Json] = []
    for trace in traces:
        if not trace.endswith(_EXPERIMENTS):
            paths.append(_path(trace, "", record))
            continue
        from pmlkit.batch.schema import load
        from pmlkit.recordings import located

        loaded = load(located(trace, "experiments"))
        entries = [entry for entry in loaded.runs if entry.notebook.startswith("04_")]
        if not entries:
            raise UsageError(f"{trace} does not run notebook 04: name another experiment")
        points += [point for entry in entries for point in entry.points]
        paths += [
            _path(name, command, record) for entry in entries for name, command, _ in entry.traces
        ]
    plans: dict[str, Plan] = {}
    for point in points or [{}]:
        window, plan = _plan(point, given)
        if plans.setdefault(window, plan) != plan:
            raise UsageError(f"two comparisons with T = {window} differ: run one after the other")
    return list(dict.fromkeys(paths)), plans


def _path(name: str, command: str | None, record: bool) -> Path:
    """Find a trace; if it is not there, make it by `command` with --record."""
    from pmlkit.recordings import find

    path = find(name)
    if command and not path.exists():
        if not record:
            raise TraceNotFound(name, f"use --record, or make it with `{command}`")
        echo(f"{name}: {command}", err=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        click.get_current_context().find_root().command.main(
            shlex.split(command)[1:], prog_name="pmlkit", standalone_mode=False
        )
    return path


def _plan(point: Json, given: Json) -> tuple[str, Plan]:
    """Make the plan of a grid point; options of the command line override it."""
    from pmlkit import compare

    parameters = {**point, **given}
    unknown = set(parameters) - {field.name for field in fields(compare.Plan)}
    if unknown:
        raise UsageError(f"a comparison has no parameter {', '.join(sorted(unknown))}")
    return str(parameters.get("window", "1s")), compare.plan(**parameters)


def _published(paths: Sequence[Path], folder: Path | None, as_json: bool) -> None:
    from pmlkit.cli import console
    from pmlkit.figures.tables import table
    from pmlkit.techniques import published

    with console.busy("processing them as published", quiet=as_json):
        rows = published.reproduce(paths)
    if folder:
        table(rows, folder / "published", published.CAPTION)
    if as_json:
        click.echo(rows.to_json(orient="records", indent=2))
    else:
        console.sheet(rows, published.CAPTION)
        for sentence in published.DEVIATIONS:
            echo(f"- {sentence}")


def _list(as_json: bool) -> None:
    from pmlkit.techniques import TECHNIQUES

    facts = {
        name: {
            "title": technique.title,
            "source": technique.source,
            "needs": sorted(need.value for need in technique.needs),
            "parameters": asdict(technique()),
        }
        for name, technique in TECHNIQUES.items()
    }
    show(as_json, facts, _print_techniques, facts)


def _print_techniques(facts: Json) -> None:
    from pmlkit.cli import console
    from pmlkit.cli.sheets import make_table, put

    page = make_table("technique", "title", "source")
    for name, technique in facts.items():
        page.add_row(name, technique["title"], technique["source"])
    put(console.console(), page)
