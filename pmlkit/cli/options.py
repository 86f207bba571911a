# SPDX-License-Identifier: Apache-2.0
"""Options and arguments that commands share; their types are in `parameters`."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING

import click

from pmlkit import progress
from pmlkit.cli.parameters import KINDS, PATH, TIME, TRACE
from pmlkit.errors import PmlkitError, UsageError, at_shell, visible
from pmlkit.files import refuse_inside_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeAlias

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

    Command: TypeAlias = Callable[..., object]
    Declaration: TypeAlias = Callable[[Command], Command]


def names(where: str) -> Callable[..., list[str]]:
    """Return a shell completion over ``module:name``: names, or a function that returns them.

    The module is imported only when a shell asks. Names may be a list with commas.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
        module, _, name = where.partition(":")
        values = getattr(import_module(module), name)
        before, comma, begun = begun.rpartition(",")
        known = values() if callable(values) else values
        return [f"{before}{comma}{one}" for one in known if one.startswith(begun)]

    return complete


def of_trace(what: Callable[[Trace], Iterable[str]]) -> Callable[..., list[str]]:
    """Return a shell completion over names in the command's trace."""

    def complete(ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
        from pmlkit.recordings import open_trace

        # Before the option has its value, click has not parsed the arguments.
        given = ctx.params.get("trace") or ctx.params.get("traces") or ctx.args
        try:
            trace = open_trace(given if isinstance(given, str) else given[0])
            return [name for name in dict.fromkeys(what(trace)) if name.startswith(begun)]
        except (PmlkitError, TypeError, IndexError):  # no trace yet, or it cannot be opened
            return []

    return complete


def _named_phases(trace: Trace) -> list[str]:
    return [phase["name"] for phase in trace.phase_starts if phase["name"]]


def example(*lines: str) -> str:
    """Format a command's examples for the end of its help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


# Examples of `pmlkit record` and of `pmlkit` itself, which does not import its commands.
RECORDING = example(
    "pmlkit record --list",
    "pmlkit record hotcold --memory 256 -o h.trace",
    "pmlkit record ./mine.c --window 10Minsn -o mine.trace",
)


def option(*names: str, **facts: Any) -> Declaration:
    """Declare an option; its help shows its default, if it has one."""
    has_default = facts.get("default") is not None and not facts.get("is_flag")
    return click.option(*names, **{"show_default": has_default, **facts})


def output(metavar: str, what: str, folder: bool = False, **more: object) -> Declaration:
    """Declare ``-o``, a file or trace to write, or a folder for several files.

    A place inside a trace is refused before the work, and not after it.
    """

    def outside(_ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
        if path:
            refuse_inside_trace(path, is_folder=folder)
        return path

    return option("-o", "--output", type=PATH, metavar=metavar, help=what, callback=outside, **more)


def drawing(what: str) -> Declaration:
    """Declare ``-o`` of a figure."""
    files = "STEM.pdf, .svg, .png, with the data as .csv, .parquet. STEM.pdf writes only that file."
    return output("STEM", f"{what}: {files}")


def say(line: str) -> None:
    """Print a line to stderr, above any progress display."""
    progress.note(line)


def echo(text: str, err: bool = False) -> None:
    """Print text; its control characters are escaped."""
    click.echo(visible(text), err=err)


def as_options(text: str) -> str:
    """Name the arguments in a text as options of the command that runs."""
    context = click.get_current_context(silent=True)
    parameters = context.command.params if context else []
    options = {
        param.name: max(param.opts, key=len)
        for param in parameters
        if isinstance(param, click.Option) and param.name
    }
    return at_shell(text, options)


def span(command: Command, opened: bool = True) -> Command:
    """Declare the options that choose a part of a trace: ``--start``, ``--end``, ``--phase``...

    The command gets ``start`` and ``end``, which may name a phase. If ``--phase`` defines phases,
    its traces are `opened` and have these phases, instead of paths.
    """

    @functools.wraps(command)
    def chosen(*arguments: Any, phases: tuple[str, ...], between: Any, **options: Any) -> object:
        given = {name: options[name] for name in ("start", "end") if options[name] is not None}
        if bool(phases) + bool(between) + bool(given) > 1:
            raise UsageError(
                "--phase, --between, and --start with --end choose a part: use one of them"
            )
        if between:
            options["start"], options["end"] = (f"mark:{name}" for name in between)
        if phases:
            traces = {"trace", "traces"} & options.keys() if opened else set()
            options |= _of_phases(phases, {name: options[name] for name in traces})
        return command(*arguments, **options)

    for declare in _SPAN:
        chosen = declare(chosen)  # type: ignore[assignment]
    return chosen


_SPAN = (
    option("--between", nargs=2, metavar="MARK MARK", shell_complete=of_trace(_named_phases),
           help="Select the part from the start of one phase to the start of another."),
    option("--phase", "phases", multiple=True, metavar="NAME[=START..END]",
           shell_complete=of_trace(_named_phases),
           help="Select this phase only, NAME#2 for its second occurrence. load=2s..5s defines a "
                "phase. Several phases must be consecutive."),
    option("--end", type=TIME, metavar="TIME", help="Ignore everything after this "
           "time, such as 8s, or mark:NAME or end:NAME of a phase."),
    option("--start", type=TIME, metavar="TIME", help="Ignore everything before this "
           "time, such as 2s, or mark:NAME or end:NAME of a phase."),
)  # fmt: skip


def span_of_paths(command: Command) -> Command:
    """Declare the options of `span` for a command that opens its traces itself."""
    return span(command, opened=False)


def _of_phases(phases: Sequence[str], given: Json) -> Json:
    """Return the meaning of ``--phase``: ``start`` and ``end``, and traces with phases."""
    from pmlkit.trace import annotation

    traces = {name: value for name, value in given.items() if value}
    defined = [annotation.parse(text) for text in phases if _defines(text)]
    if defined and len(defined) < len(phases):
        raise UsageError("--phase names phases, or defines them as NAME=START..END: not both")
    if defined:
        defined.sort(key=lambda span: span.start_ns)
        annotation.check_met(defined)
        if not traces:
            end_ns = defined[-1].end_ns
            end = None if end_ns is None else f"{end_ns}ns"
            return {"start": f"{defined[0].start_ns}ns", "end": end}
        named = {name: _with_phases(value, defined) for name, value in traces.items()}
        names = [span.name for span in defined]
        last = f"{names[-1]}#{names.count(names[-1])}" if names.count(names[-1]) > 1 else names[-1]
        first = f"{names[0]}#1" if names.count(names[0]) > 1 else names[0]
        return {"start": f"mark:{first}", "end": f"end:{last}", **named}
    if len(phases) > 1 and not traces:
        raise UsageError("several phases: define them as NAME=START..END, or use --between")
    for path in _flat(traces) if len(phases) > 1 else []:
        annotation.check_joined(_open(path), phases)
    return {"start": f"mark:{phases[0]}", "end": f"end:{phases[-1]}"}


def _defines(text: str) -> bool:
    return ".." in text.rpartition("=")[2] and "=" in text


def _flat(traces: Json) -> list[Any]:
    values = (value if isinstance(value, tuple) else (value,) for value in traces.values())
    return [path for value in values for path in value]


def _open(path: Any) -> Trace:
    from pmlkit.recordings import open_trace

    return open_trace(path)


def _with_phases(value: Any, phases: Sequence[Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_with_phases(path, phases) for path in value)
    return _open(value).with_phases(phases)


def kinds(**more: Any) -> Declaration:
    """Declare ``--kinds``."""
    words = (
        "read, written, executed, page-tables (of a PML log), separated by commas; or letters "
        "from rwxp."
    )
    complete = names("pmlkit.trace.kinds:WORDS")
    return option("--kinds", **{"default": "rwx", **more}, type=KINDS, metavar="KINDS",
                  shell_complete=complete, help=f"What counts: {words}")  # fmt: skip


region = option("--region", shell_complete=of_trace(lambda trace: trace.regions["name"]),
                help="Select only the frames of this region.")  # fmt: skip
page_tables = option("--page-tables", default="drop", type=click.Choice(["drop", "keep", "expand"]),
                     help="Page tables in a PML log are left out (drop), counted (keep), or "
                          "replaced by the pages that they map (expand).")  # fmt: skip
min_count = option("--min-count", default=1, type=click.IntRange(1),
                   help="Count a page only if it was used M times in T.")  # fmt: skip
sliding = option("--sliding", is_flag=True, help="End a window at the end of each round.")
as_json = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
only_answer = option("--summary", "only_answer", is_flag=True,
                     help="Print only the answer, no table; as `summary` in JSON.")  # fmt: skip
overwrite = option("--overwrite", is_flag=True, help="Replace an existing output.")
trace_argument = click.argument("trace", type=TRACE)
traces_argument = click.argument("traces", nargs=-1, required=True, type=TRACE, metavar="TRACE...")
labels = option("--label", "labels", multiple=True, metavar="NAME",
                help="Name of a TRACE in tables and figures; one for each trace.")  # fmt: skip
