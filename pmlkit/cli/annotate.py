# SPDX-License-Identifier: Apache-2.0
"""`pmlkit annotate`: add phases to an existing trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmlkit.cli.options import as_json, echo, example, option, overwrite, trace_argument
from pmlkit.cli.parameters import PATH
from pmlkit.cli.show import show
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json


@click.command(
    epilog=example(
        "pmlkit annotate x.trace phases.csv",
        "pmlkit annotate x.trace --phase load=0s..5s --phase run=5s..",
        "pmlkit annotate x.trace --remove",
    )
)
@trace_argument
@click.argument("file", type=PATH, required=False, metavar="[PHASES.csv]")
@option("--phase", "phases", multiple=True, metavar="NAME=START..END", help="A phase, in place of "
        "the file; may be repeated.")  # fmt: skip
@option("--remove", is_flag=True, help="Remove the phases that were added to TRACE.")
@overwrite
@as_json
def annotate(
    trace: str,
    file: str | None,
    phases: tuple[str, ...],
    remove: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Give TRACE the phases of a CSV file.

    The columns are name, start and end (or length), in seconds since the recording's start or with
    a unit each (250ms). Every command and figure has these phases from then on, in place of the
    recorded ones. They are in a file next to TRACE, which itself stays as it is. Without a file,
    the phases are printed in this form.
    """
    from pmlkit.trace import annotation
    from pmlkit.trace.reader import Trace

    if bool(file) + bool(phases) + remove > 1:
        raise UsageError("give a file, --phase or --remove: one of them")
    opened = Trace.open(trace)
    if remove:
        was = annotation.remove(opened)
        line = f"{trace}: {'has its recorded phases again' if was else 'has no added phases'}"
        return show(as_json, {"trace": trace, "removed": was}, echo, line, indent=None)
    if file or phases:
        given = file or [annotation.parse(text) for text in phases]
        path = annotation.annotate(opened, given, overwrite)
        opened = Trace.open(trace)
        rows = _rows(opened)
        line = f"{path}: {len(rows)} phase{'s' * (len(rows) != 1)} of {trace}"
        return show(as_json, {"path": str(path), "phases": rows}, echo, line)
    rows = _rows(opened)
    cells = ((_cell(r["name"]), _seconds(r["start_ns"]), _seconds(r["end_ns"])) for r in rows)
    lines = ["name,start,end", *map(",".join, cells)]
    show(as_json, {"trace": trace, "phases": rows}, echo, "\n".join(lines))


def _rows(trace: Trace) -> list[Json]:
    """Return the phases of a trace: name, start and end."""
    from pmlkit.trace import summary

    return [
        {"name": phase.name, "start_ns": phase.start_ns, "end_ns": phase.start_ns + phase.length_ns}
        for phase in summary.phases(trace)
    ]


def _seconds(ns: int) -> str:
    """Format a time in seconds, exactly."""
    return f"{ns // 10**9}.{ns % 10**9:09d}".rstrip("0").rstrip(".")


def _cell(name: str) -> str:
    """Quote a name for a CSV."""
    plain = not set(name) & set('",;\t\n')
    return name if plain else '"' + name.replace('"', '""') + '"'
