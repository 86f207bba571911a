# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print. Only `main` turns errors into exit codes.

No heavy module is imported at the top: numpy, pandas, pyarrow and matplotlib take a second. Each
command imports what it calls, so that ``--help`` and shell completion are fast.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import traceback
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit import signals
from pmlkit.cli.options import (
    RECORDING,
    as_json,
    drawing,
    example,
    kinds,
    labels,
    min_count,
    names,
    only_answer,
    option,
    page_tables,
    region,
    sliding,
    span,
    traces_argument,
)
from pmlkit.cli.parameters import LENGTH, TRACE, WINDOW
from pmlkit.cli.show import show, show_trace
from pmlkit.errors import (
    FULL,
    PmlkitError,
    UnknownName,
    UsageError,
    is_out_of_memory,
    one_line,
    output_error,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


REPORT_IT = "this is a defect in pmlkit: please report it with the output of PMLKIT_DEBUG=1"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
WSS_EXAMPLES = example(
    "pmlkit wss hotcold --window 1s",
    "pmlkit wss hotcold --kinds read,written --region hot --summary",
    "pmlkit wss h.trace --window 100ms --min-count 2 --kinds w --sliding --json",
    "pmlkit wss pressure-roomy pressure --label roomy --label tight --window 1s",
)


_LISTS = (
    "Lists: `pmlkit info` (recordings), `record --list` (workloads), `plot --list` (figures), "
    "`compare --list` (techniques), `export --list` (formats)"
)
# Words that users try, and the command that they need.
MEANT = {
    **dict.fromkeys(("list", "ls", "recordings", "traces"), _LISTS),
    **dict.fromkeys(("draw", "figure", "figures"), "Did you mean 'plot'?"),
    **dict.fromkeys(("show", "describe", "check"), "Did you mean 'info'?"),
    **dict.fromkeys(("size", "recommend"), "Did you mean 'advise'?"),
}


class _PastClick(Exception):
    """Wraps exceptions that click would handle itself, with an empty line or another exit code."""


# The commands of other modules of this package, each imported when it is called.
ELSEWHERE = {
    "advise": "advise",
    "annotate": "annotate",
    "calibrate": "period",
    "collect": "collect",
    "compare": "compare",
    "corpus": "corpus",
    "diff": "diff",
    "export": "interop",
    "forecast": "forecast",
    "frontier": "frontier",
    "import": "interop:import_",
    "ingest": "record",
    "lab": "lab",
    "mrc": "mrc",
    "period": "period",
    "reads": "reads",
    "record": "record",
    "run": "run",
    "simulate": "record",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE and cmd_name not in self.commands:
            module, _, name = ELSEWHERE[cmd_name].partition(":")
            self.add_command(getattr(import_module(f"pmlkit.cli.{module}"), name or cmd_name))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _PastClick from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (meant := MEANT.get(args[0])) and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. {meant}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, invoke_without_command=True, context_settings=CONTEXT, epilog=RECORDING)
@click.version_option(package_name="pmlkit", message="pmlkit %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Working sets of virtual machines: record, store, analyse, plot.

    Each command has --help with examples, and --json for programs. Exit codes are 0 (done), 1
    (failed; one line states the reason and the remedy), 2 (wrong usage) and 128+N (ended by signal
    N).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(2)


@cli.command(epilog=example("pmlkit doctor", "pmlkit doctor demo recorder --json"))
@click.argument("capabilities", nargs=-1, metavar="[CAPABILITY]...",
                shell_complete=names("pmlkit.doctor:CAPABILITIES"))  # fmt: skip
@as_json
@click.pass_context
def doctor(ctx: click.Context, capabilities: tuple[str, ...], as_json: bool) -> None:
    """Check what this machine supports, and how to fix the rest.

    The exit code is 1 if a named capability (demo, recorder, lab, xen, kvm) is missing.
    """
    from pmlkit import doctor
    from pmlkit.cli import console

    with console.busy("examining this machine", quiet=as_json):
        examined = doctor.examine(capabilities)
    show(as_json, lambda: [c.as_dict() for c in examined], console.doctor, examined)
    ctx.exit(1 if capabilities and not all(c.ready for c in examined) else 0)


@cli.command(epilog=example("pmlkit info", "pmlkit info hotcold", "pmlkit info h.trace --json"))
@click.argument("trace", type=TRACE, required=False)
@only_answer
@as_json
@click.pass_context
def info(ctx: click.Context, trace: str | None, only_answer: bool, as_json: bool) -> None:
    """Check TRACE and describe it, or list the recordings.

    Without TRACE, list the bundled recordings.

    Every file and count is checked, and the known answers of the workload are measured. The exit
    code is 1 if the trace is damaged or a known answer is not met.
    """
    from pmlkit.cli import console
    from pmlkit.trace.reader import Trace

    if trace is None:
        if only_answer:
            raise UsageError("--summary is of one recording: name a TRACE")
        return _list_recordings(as_json)
    with console.busy("checking every file", quiet=as_json):
        opened = Trace.open(trace)
        opened.check()
    ctx.exit(0 if show_trace(as_json, opened, True, only_answer) else 1)


def _list_recordings(as_json: bool) -> None:
    from pmlkit import recordings
    from pmlkit.cli import console

    known = recordings.overview()
    lines = [f"{len(known)} recordings come with pmlkit. Every command takes their names."]
    show(as_json, known, console.answer, lines, lambda: console.recordings(known))


@cli.command(epilog=WSS_EXAMPLES)
@traces_argument
@labels
@option("--window", type=WINDOW,
        help="T, as a time (250ms) or in rounds (5r). [default: 1s, or the nearest T that TRACE "
             "supports]")  # fmt: skip
@min_count
@sliding
@kinds()
@page_tables
@region
@span
@only_answer
@as_json
def wss(
    traces: tuple[str, ...],
    labels: tuple[str, ...],
    sliding: bool,
    only_answer: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Print the working set of TRACE: a summary, then each window.

    Several traces are printed side by side, with one T; `pmlkit diff` compares two.

    The summary uses full windows only. A row is a window of length T: the time of its end, distinct
    pages, bytes, T, the effective T, and the phase. Further columns count the pages of each region
    that the workload named. The last column states whether the window is full, or cut short by the
    start or the end.
    """
    from pmlkit import answers
    from pmlkit.cli import console, several

    opened, step = several.labelled(traces, labels), "sliding" if sliding else None
    if len(opened) > 1:
        return several.wss(opened, step, only_answer, as_json, **how)
    with console.busy("counting pages", quiet=as_json):
        ((label, trace),) = opened.items()
        answer = replace(answers.working_set(trace, how.pop("window"), step, **how), name=label)
    rows = [] if only_answer else [lambda: console.windows(answer.columns)]
    value = (
        {"summary": answer.as_dict()} if only_answer else lambda: console.records(answer.columns)
    )
    show(as_json, value, console.answer, answer.lines, *rows)


def _next_word(ctx: click.Context, param: click.Parameter, begun: str) -> list[Any]:
    """Complete a trace and, after the first one, the name of a figure."""
    from pmlkit.figures.catalogue import FIGURES

    # Before the next word is typed, click takes the trace for the figure.
    figures = [name for name in FIGURES if name.startswith(begun)] if ctx.params["figure"] else []
    return figures or TRACE.shell_complete(ctx, param, begun)


@cli.command(
    epilog=example(
        "pmlkit plot --list",
        "pmlkit plot hotcold wss --terminal",
        "pmlkit plot hotcold wss -o f/hot",
        "pmlkit plot redis heat --venue ieee --columns 2 -o f/redis",
        "pmlkit plot pressure pressure-roomy percentiles -o f/both",
    )
)
@click.argument("traces", nargs=-1, type=TRACE, metavar="TRACE...", shell_complete=_next_word)
@click.argument("figure", required=False, shell_complete=names("pmlkit.figures.catalogue:FIGURES"))
@labels
@drawing("Write it")
@option("--list", "list_them", is_flag=True, help="List the figures, one per line.")
@option("--window", type=WINDOW, help="T, if the figure uses one.")
@option("--columns", type=IntRange(1, 2), help="Columns of the paper that it spans. [default: 1]")
@option("--venue", type=Choice(["acm", "ieee", "usenix", "lncs"], case_sensitive=False),
        help="Sets the width of a column. [default: acm]")  # fmt: skip
@option("--width", type=LENGTH, help="Set the width of the figure: 3.5in, 89mm.")
@option("--height", type=LENGTH, help="Set the height of the figure: 2in, 50mm.")
@option("--terminal", is_flag=True, help="Print it as text: wss, heat or mrc.")
@span
@as_json
def plot(
    traces: tuple[str, ...],
    figure: str | None,
    labels: tuple[str, ...],
    output: str,
    list_them: bool,
    terminal: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Draw FIGURE of TRACE for a paper, or as text for a terminal.

    The figures wss, window, percentiles and mrc also draw several traces, a line each.
    """
    from pmlkit import figures
    from pmlkit.cli import console, several

    if list_them:
        titles = {name: figures.about(name) for name in figures.FIGURES}
        return show(as_json, titles, console.named, "figure", titles)
    if terminal and not output:
        from pmlkit.cli.terminal import print_figure

        if figure and not traces and figure not in figures.FIGURES:
            traces, figure = (figure,), None  # a trace alone
        if len(traces) > 1:
            raise UsageError("a figure for a terminal is of one TRACE: give one")
        trace = next(iter(several.labelled(traces, labels).values())) if traces else None
        return print_figure(trace, figure or "wss", as_json, **how)
    if not traces or figure is None:
        raise UsageError("name a TRACE, then a FIGURE (`pmlkit plot --list` has them)")
    if figure not in figures.FIGURES:
        raise UnknownName("figure", figure, figures.FIGURES)
    if not output or terminal:
        both = " of the two, not both" if output else ""
        raise UsageError(f"give one{both}: -o STEM for files, or --terminal for text")
    opened = several.labelled(traces, labels)
    drawn = opened if len(opened) > 1 else next(iter(opened.values()))
    with console.busy("drawing", quiet=as_json):
        written = figures.save(figures.draw(drawn, figure, **how), output)
    paths = [str(path) for path in written]
    show(as_json, paths, click.echo, "\n".join(paths))


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    args : list of str, optional
        Default: the arguments of the process.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 2 wrong usage; 128 + N if signal N ended it.
    """
    signals.forget()
    _print_any_path()
    try:
        with signals.raising():
            code = cli.main(args, prog_name="pmlkit", standalone_mode=False)
            sys.stdout.flush()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # raised within rich
            return _fail(error.__context__)
        raise  # shell completion exits this way
    except BaseException as error:
        if os.environ.get("PMLKIT_DEBUG"):
            traceback.print_exc()
        return _fail(error)
    return code if isinstance(code, int) else 0


def _print_any_path() -> None:
    """Print bytes of paths that are not UTF-8 as escapes, as `one_line` does."""
    codecs.register_error("pmlkit", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pmlkit")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return one_line(error.object[error.start : error.end]), error.end


def _fail(error: BaseException) -> int:
    """Print an error as one line; return its exit code."""
    if isinstance(error, _PastClick | click.Abort):
        error = error.__cause__ or KeyboardInterrupt()
    _drop_output()
    if isinstance(error, BrokenPipeError):
        return 0  # the reader has closed the pipe (`pmlkit wss ... | head`)
    code, text = _verdict(error)
    if code == 130 and sys.stderr.isatty():
        click.echo(err=True)  # ends the line on which the terminal shows ^C
    with contextlib.suppress(OSError):  # stderr is closed, or its disk is full
        click.echo(f"pmlkit: {one_line(text)}", err=True)
    return code


def _drop_output() -> None:
    """Discard buffered output that cannot be written: Python would fail on it again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # stdout may be a test's buffer, no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _verdict(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for an error."""
    if number := signals.received():
        is_ours = isinstance(error, PmlkitError | signals.Ended)
        shown = error if is_ours else signals.Ended(number)
        return 128 + number, shown.at_shell if isinstance(shown, PmlkitError) else str(shown)
    if isinstance(error, PmlkitError):
        return (2 if isinstance(error, UsageError) else 1), error.at_shell
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pmlkit"
        return error.exit_code, f"{error.format_message()} (see `{path} --help`)"
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if is_out_of_memory(error):
        return 1, (
            "not enough memory or threads: use a shorter --start/--end, raise the limits (`ulimit "
            "-v`, `ulimit -u`), or use a machine with more"
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "pmlkit").startswith("pmlkit"):
        package = (error.name or "").partition(".")[0]
        return (
            1,
            f"the Python package {package} is missing: `pmlkit doctor` states how to install it",
        )
    if isinstance(error, OSError):
        if not error.filename and error.errno in FULL:  # what writes files names them
            return 1, output_error("the standard output", error).at_shell
        where = f"{error.filename}: " if error.filename else ""
        hint = ": check its permissions" if where and isinstance(error, PermissionError) else ""
        return 1, f"{where}{error.strerror or error}{hint}"
    return 1, f"{type(error).__name__}: {error}: {REPORT_IT}"
