# SPDX-License-Identifier: Apache-2.0
"""`pmlkit corpus`: list, record, check and score WSS-Bench."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit import progress
from pmlkit.cli.options import as_json, echo, example, names, only_answer, option, output, say
from pmlkit.cli.parameters import PATH
from pmlkit.cli.show import show
from pmlkit.errors import PmlkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from pmlkit.corpus import Program, Verdict
    from pmlkit.types import Json


_EXAMPLES = example(
    "pmlkit corpus list",
    "pmlkit corpus record --half development -o corpus",
    "pmlkit corpus check corpus",
    "pmlkit corpus score corpus --technique mine:Mine -o scores",
)
HALF = Choice(["development", "held-out", "large", "disk"])
_names = click.argument(
    "names", nargs=-1, metavar="[NAME]...", shell_complete=names("pmlkit.corpus:names")
)
_half = option("--half", type=HALF, help="Select this half, or guests of neither: large, disk.")
_repeats = option("--repeats", is_flag=True, help="Include recordings with other seeds.")
_folder = click.argument("folder", type=PATH, metavar="DIR")


@click.group(epilog=_EXAMPLES)
def corpus() -> None:
    """Record WSS-Bench, 24 real programs, and score on them.

    DIR contains development/NAME.trace and held-out/NAME.trace. experiments/protocol.md states the
    permitted use of each half.
    """


@corpus.command("list", epilog=example("pmlkit corpus list --half development"))
@_half
@_repeats
@as_json
def list_(half: str | None, repeats: bool, as_json: bool) -> None:
    """List the programs and the state of their recordings."""
    from pmlkit import corpus as bench

    chosen = bench.programs(half=half, repeats=repeats)
    show(as_json, [{**asdict(p), "command": p.command()} for p in chosen], _print, chosen)


def _print(chosen: Sequence[Program]) -> None:
    from pmlkit.cli import console
    from pmlkit.cli.sheets import make_table, put

    headers = ("program", "half", "seed", "seconds", "rounds", "entries", "digest")
    page = make_table(*headers, right=range(2, 6))
    for p in chosen:
        numbers = (p.seed, p.seconds, p.rounds, f"{p.entries:,}")
        page.add_row(p.label, p.half, *map(str, numbers), p.digest or "not recorded yet")
    put(console.console(), page)


@corpus.command(epilog=example("pmlkit corpus record redis xz -o corpus"))
@_names
@_half
@_repeats
@output("DIR", "Folder of the recordings.", folder=True, required=True)
@as_json
def record(
    names: tuple[str, ...], half: str | None, repeats: bool, output: str, as_json: bool
) -> None:
    """Record the programs that are missing in DIR.

    Each takes some minutes of a core. After an interruption, repeat the call: complete recordings
    are skipped.
    """
    from pmlkit import corpus as bench
    from pmlkit.cli import console

    chosen, states = bench.programs(names, half, repeats), {}
    with console.busy("corpus", quiet=as_json):
        for program in progress.over(chosen, name=lambda program: program.label):
            with console.recording(quiet=as_json) as callback:
                trace = bench.record(program, output, callback)
            states[program.label] = "there" if trace is None else f"{trace.meta.entries:,} entries"
            if trace is not None and not trace.meta.complete:
                raise click.Abort
            if not as_json:
                say(f"{len(states)} of {len(chosen)}: {program.label}: {states[program.label]}")
    show(as_json, states, lambda: None)


@corpus.command(epilog=example("pmlkit corpus check corpus redis"))
@_folder
@_names
@_half
@_repeats
@option("--register", is_flag=True, help="First register recordings that are not registered yet.")
@as_json
def check(
    folder: str,
    names: tuple[str, ...],
    half: str | None,
    repeats: bool,
    register: bool,
    as_json: bool,
) -> None:
    """Compare the recordings in DIR with the registered digests.

    The exit code is 1 if one differs, or if none is there. Recordings differ if the
    versions of Debian's packages or of QEMU differ.
    """
    from pmlkit import corpus as bench
    from pmlkit.cli import console

    if register:
        bench.register(folder, bench.programs(names, half, repeats))
    chosen = bench.programs(names, half, repeats)
    with console.busy("checking", quiet=as_json):
        each = progress.over(chosen, name=lambda program: program.label)
        verdicts = [bench.check(program, folder) for program in each]
    rows = [{"name": v.program.label, "state": v.state, "why": v.why} for v in verdicts]
    show(as_json, rows, _print_verdicts, verdicts)
    if all(verdict.state == "missing" for verdict in verdicts):
        hint = "give the folder that `pmlkit corpus record -o` wrote"
        raise PmlkitError(f"{folder} has none of these recordings", hint)
    if any(verdict.state == "differs" for verdict in verdicts):
        raise click.exceptions.Exit(1)


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    from pmlkit.cli import console
    from pmlkit.cli.sheets import make_table, put

    page = make_table("program", "state", "")
    for v in verdicts:
        page.add_row(v.program.label, v.state, v.why)
    put(console.console(), page)


@corpus.command(
    epilog=example(
        "pmlkit corpus score corpus --technique mine:Mine -o scores/mine",
        "pmlkit corpus score corpus --technique mine:Mine --half held-out "
        "--settings scores/mine -o scores/mine-held-out",
    )
)
@_folder
@option("--technique", metavar="MODULE:CLASS", help="A technique's class.")
@option(
    "--forecaster",
    metavar="MODULE:CLASS",
    help="Class of a quantile regressor, instead of a technique.",
)
@option("--half", type=HALF, default="development", help="Which half.")
@option("--window", "windows", multiple=True, help="T; repeat the option for more. [100ms, 1s, 5s]")
@option(
    "--jobs", default=1, type=IntRange(1, 64), help="Number of processes; each takes a recording."
)
@option("--settings", type=PATH, metavar="SCORES", help="Use the settings that this score chose.")
@output("SCORES", "Folder for the tables and the page.", folder=True, required=True)
@only_answer
@as_json
def score(
    folder: str,
    technique: str | None,
    forecaster: str | None,
    half: str,
    windows: tuple[str, ...],
    jobs: int,
    settings: str | None,
    output: str,
    only_answer: bool,
    as_json: bool,
) -> None:
    """Run a technique or a forecaster on the recordings in DIR.

    A technique runs at all its settings.

    For each T and budget, the page lists the error at the setting that is best on these programs.
    With --settings, it uses the setting that another score chose, as required for the held-out
    half.

    A forecaster is fitted to the development half, without the program that it forecasts.
    """
    if (technique is None) == (forecaster is None):
        raise UsageError("give either --technique or --forecaster")
    if forecaster:
        if windows or settings:
            raise UsageError("--window and --settings are for techniques: leave them out")
        answer = _score_forecaster(folder, forecaster, half, output, as_json)
    else:
        how = (folder, str(technique), half, windows, jobs, settings, output, as_json)
        answer = _score_technique(*how)
    answer.show(only_answer, as_json)


@dataclass(frozen=True)
class _Answer:
    """An answer of a score, its rows for JSON, and its details as text."""

    lines: Sequence[str]
    summary: Json
    rows: pd.DataFrame
    details: str

    def show(self, only_answer: bool, as_json: bool) -> None:
        from pmlkit.cli import console

        if only_answer:
            return show(as_json, {"summary": self.summary}, console.answer, self.lines)
        rows = self.rows.to_dict("records")
        show(as_json, rows, console.answer, self.lines, lambda: echo(self.details))


def _score_technique(
    folder: str,
    technique: str,
    half: str,
    windows: tuple[str, ...],
    jobs: int,
    settings: str | None,
    output: str,
    quiet: bool,
) -> _Answer:
    from dataclasses import replace

    from pmlkit import corpus as bench
    from pmlkit import frontier, scoreboard
    from pmlkit.cli import console

    chosen = scoreboard.read(settings).settings if settings else None
    paths, plan = bench.traces(folder, half), frontier.plan(windows or None)
    with console.busy("scoring", quiet=quiet):
        result = scoreboard.score(technique, paths, plan, jobs)
    result = replace(result, chosen=chosen)
    scoreboard.save(result, output)
    rows = scoreboard.standing(result)
    return _Answer(result.lines, result.as_dict(), rows, scoreboard.details(result))


def _score_forecaster(folder: str, name: str, half: str, output: str, quiet: bool) -> _Answer:
    from pmlkit import corpus as bench
    from pmlkit import scoreboard
    from pmlkit.cli import console
    from pmlkit.forecast import verdict

    paths, training = bench.traces(folder, half), bench.traces(folder)
    with console.busy("scoring", quiet=quiet):
        table = scoreboard.score_forecaster(name, paths, training)
    scoreboard.save_forecasts(table, name, output)
    lines = scoreboard.forecast_lines(table, name)
    summary = {"answer": " ".join(lines), "forecaster": name}
    return _Answer(lines, summary, verdict.summary(table), scoreboard.forecast_details(table))


@corpus.command(epilog=example("pmlkit corpus compare scores/mine scores/theirs"))
@click.argument("ours", type=PATH)
@click.argument("theirs", type=PATH)
@as_json
def compare(ours: str, theirs: str, as_json: bool) -> None:
    """Compare two scores at equal budgets, program by program.

    A difference below 0 favours OURS. The p is that of the exact test that flips the signs of
    differences.
    """
    from pmlkit import scoreboard
    from pmlkit.cli import console

    scores = scoreboard.read(ours), scoreboard.read(theirs)
    table = scoreboard.compare(*scores)
    title = f"{scores[0].technique} minus {scores[1].technique}: shares of the mean W"
    show(as_json, lambda: table.to_dict("records"), console.sheet, table, title)
