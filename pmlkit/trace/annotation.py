# SPDX-License-Identifier: Apache-2.0
"""Phases that a trace is given afterwards, and times by the names of phases.

The phases of a recording are marks of its workload. They are in ``trace.json`` and sealed with it.
`annotate` gives phases to any trace, from a CSV or a mapping. They are written next to the trace,
into ``NAME.trace.phases.json``, and the trace itself stays as it is. The file contains the digest
of its trace, so the phases of another recording, or of an earlier one of this name, are refused.

Where the file is, `Trace.phases` has these phases in place of the recorded ones, and so has
everything that reads it. `TraceMeta.phases` and known answers stay those of the recording.

A phase begins with the round in which it starts. It ends before the round in which its end lies.
Gaps between phases have the name ``""``. Phases must not overlap.

Times of a trace (``start``, ``end``) can be names: ``mark:NAME`` is the start of the phase NAME,
``end:NAME`` is its end. If a phase occurs several times, ``NAME#2`` is the second.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pmlkit.errors import (
    FileRefused,
    NeedsError,
    PmlkitError,
    UnknownName,
    UsageError,
    argument,
    one_line,
    output_error,
)
from pmlkit.files import read_regular, whole
from pmlkit.trace import manifest
from pmlkit.trace.description import Fault, fields, foreign_json, one_of, rows, values_fault
from pmlkit.trace.description import whole as whole_number
from pmlkit.units import exact_ns, is_bare, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Json, PathLike

__all__ = [
    "Span",
    "annotate",
    "bounds",
    "check_joined",
    "check_met",
    "checked",
    "is_named",
    "load",
    "of_csv",
    "parse",
    "part_text",
    "remove",
    "seal",
    "sidecar",
    "starts",
    "time_ns",
]

FORMAT, VERSION = "pmlkit-phases", 1
LIMIT_BYTES = 4 << 20
MOST = 10_000  # phases of a trace
LONGEST = 200  # characters of a name

# `trace` is a `Trace` throughout, whose module imports this one.


class Span(NamedTuple):
    """A phase: its name, and its start and end in ns; an end of None is that of the trace."""

    name: str
    start_ns: int
    end_ns: int | None


# ------------------------------------------------------------------------------
# Phases from texts.


def parse(text: str) -> Span:
    """Read ``NAME=START..END``, such as ``load=0..5s``; a side left out is the trace's.

    Raises
    ------
    UsageError
    """
    name, equals, times = text.rpartition("=")
    start, dots, end = times.partition("..")
    if not (equals and dots and name.strip()):
        raise UsageError(
            f"{text!r} is not a phase: write it as NAME=START..END, such as load=2s..5s"
        )
    ends = parse_duration_ns(end) if end.strip() else None
    return Span(name.strip(), parse_duration_ns(start) if start.strip() else 0, ends)


_NAMES = {
    "name": ("name", "phase", "label"),
    "start": ("start", "begin", "from", "t_start"),
    "end": ("end", "stop", "to", "t_end"),
    "length": ("length", "duration"),
}
_UNITS = {"ns": 0, "us": 3, "µs": 3, "ms": 6, "s": 9, "sec": 9, "seconds": 9}
_HEADER = re.compile(r"([a-z_]+?)[ _]*(?:[(\[]?(ns|us|µs|ms|s|sec|seconds)[)\]]?)?")
_SECONDS = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def of_csv(path: PathLike) -> list[Span]:
    """Read phases from a CSV with the columns name, start and, if wanted, end or length.

    Parameters
    ----------
    path : path-like
        With commas, semicolons or tabs. Times are since the recording's start: in seconds, in the
        unit that the column's name ends in (``start_ms``, ``start (ms)``), or with a unit each
        (``250ms``). Without a header, the columns are name, start and end. Rows may be in any
        order. A phase without an end lasts until the next one.

    Raises
    ------
    UsageError
        Names the line that is wrong, and why.
    """
    text = _text(path)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError(f"{os.fspath(path)} has no phases: write a line such as load,2s,5s")
    separator = max(",;\t", key=lines[0][1].count)
    cells = [(n, _cells(path, n, line, separator)) for n, line in lines]
    columns, body, width = _columns(path, cells)
    for number, row in body:
        if any(row[width:]):
            raise _wrong(path, number, "has too many cells: write decimals with a point, 2.5")
    if len(body) > MOST:
        raise UsageError(f"{os.fspath(path)} has {len(body):,} phases, and {MOST:,} are the most")
    spans = sorted((_span(path, n, row, columns) for n, row in body), key=lambda s: s.start_ns)
    return spans


def _text(path: PathLike) -> str:
    try:
        data = read_regular(path, LIMIT_BYTES)
        return data.decode("utf-8-sig")
    except FileRefused as error:
        raise UsageError(f"{os.fspath(path)} cannot be read: {error.why}") from error
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8"
        raise UsageError(f"{os.fspath(path)} is not a CSV of phases: {why}") from error


def _cells(path: PathLike, number: int, line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True))]
    except (csv.Error, StopIteration) as error:
        raise _wrong(path, number, f"is not CSV ({error})") from error


def _wrong(path: PathLike, number: int, why: str) -> UsageError:
    return UsageError(f"line {number} of {os.fspath(path)} {why}")


class _Column(NamedTuple):
    """Where a value is, and the decimals of its unit in ns."""

    at: int
    decimals: int


def _columns(
    path: PathLike, cells: list[tuple[int, list[str]]]
) -> tuple[dict[str, _Column], list[tuple[int, list[str]]], int]:
    """Return the columns by what they hold, the rows below a header, and how many cells one has."""
    number, head = cells[0]
    if len(head) > 1 and _is_time(head[1]):
        plain = ("name", "start", "end")
        return {what: _Column(at, 9) for at, what in enumerate(plain)}, cells, len(plain)
    columns: dict[str, _Column] = {}
    for at, title in enumerate(head):
        match = _HEADER.fullmatch(title.lower())
        for what, names in _NAMES.items():
            if match and match[1] in names:
                if what in columns:
                    raise _wrong(path, number, f"names the {what} twice")
                columns[what] = _Column(at, _UNITS[match[2] or "s"])
    if not {"name", "start"} <= columns.keys():
        raise _wrong(path, number, "has to name the columns: name,start,end")
    return columns, cells[1:], len(head)


def _is_time(text: str) -> bool:
    try:
        return _ns(text, 9) is not None
    except UsageError:
        return False


def _span(path: PathLike, number: int, row: list[str], columns: Mapping[str, _Column]) -> Span:
    def time(what: str) -> int | None:
        column = columns.get(what)
        if column is None or column.at >= len(row) or not row[column.at]:
            return None
        try:
            return _ns(row[column.at], column.decimals)
        except UsageError as error:
            raise _wrong(path, number, f"has a wrong {what}: {error}") from error

    at = columns["name"].at
    name, start = row[at] if at < len(row) else "", time("start")
    if fault := _name_fault(name):
        raise _wrong(path, number, fault)
    if start is None:
        raise _wrong(path, number, "has no start")
    end, length = time("end"), time("length")
    return Span(name, start, start + length if end is None and length is not None else end)


def _name_fault(name: object) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "has no name"
    if len(name) > LONGEST or not name.isprintable():
        return f"has a name of more than {LONGEST} characters, or with some that cannot be printed"
    return None


def _ns(text: str, decimals: int) -> int:
    """Read a time: a number in a unit of 10**decimals ns, or a duration with its unit."""
    if not _SECONDS.fullmatch(text):
        return parse_duration_ns(text)
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise UsageError(f"{text!r} is not a time") from error
    if not 0 <= value.adjusted() + 20 <= 40 and value:
        raise UsageError(f"{text!r} is out of range")
    ns = int((value * 10**decimals).to_integral_value())
    if not 0 <= ns < 1 << 63:
        raise UsageError(f"{text!r} is out of range: times are since the recording's start")
    return ns


# ------------------------------------------------------------------------------
# Phases that fit a trace.


def checked(trace: Any, phases: Mapping[str, Any] | Iterable[Span]) -> list[Span]:
    """Return phases in order of time with their ends, if they fit a trace.

    Parameters
    ----------
    phases : dict of str to (start, end), or iterable of Span
        Times are ``"2s"`` or nanoseconds. A start of None is the trace's; an end of None is the
        next start, or the trace's end.

    Returns
    -------
    list of Span
        An end after the trace's end is set to it.

    Raises
    ------
    UsageError
        If there is no phase, two overlap, one is outside of the trace, or within one round.
    NeedsError
        If the trace has no times.
    """
    if not trace.duration_ns:
        raise NeedsError(trace, "times", "phases need a trace whose rounds have times")
    if isinstance(phases, Mapping):
        phases = [_span_of(trace, name, times) for name, times in phases.items()]
    spans = sorted(phases, key=lambda span: (span.start_ns, span.name))
    if not spans or len(spans) > MOST:
        raise UsageError(f"there are {len(spans):,} phases: give 1 to {MOST:,}")
    after = [*spans[1:], None]
    closed = [_closed(trace, span, next_one) for span, next_one in zip(spans, after, strict=True)]
    for before, behind in itertools.pairwise(closed):
        if behind.start_ns < (before.end_ns or 0):
            both = f"{_words(before)} and {_words(behind)}"
            raise UsageError(f"phases overlap ({both}): let one end before the next starts")
    own = {(row["name"], row["t_ns"]) for row in starts(trace, closed)}
    for span in closed:
        if (span.name, span.start_ns) not in own:
            why = "starts and ends within one round: give it a longer time"
            raise UsageError(f"the phase {_words(span)} {why}")
    return closed


def _span_of(trace: Any, name: str, times: Any) -> Span:
    try:
        pair: Any = None if isinstance(times, str) else times  # two letters are no pair
        start, end = pair
        start_ns = 0 if start is None else _unnamed_ns(trace, start)
        return Span(name, start_ns, None if end is None else _unnamed_ns(trace, end))
    except (TypeError, ValueError) as error:  # no pair
        why = "give a start and an end, such as ('2s', '5s')"
        raise UsageError(f"the phase {name!r} is {times!r}: {why}") from error
    except UsageError as error:
        raise UsageError(f"the phase {name!r} is {times!r}: {error}") from error


def _closed(trace: Any, span: Span, after: Span | None) -> Span:
    """Return a phase with an end within the trace."""
    last = trace.duration_ns
    if fault := _name_fault(span.name):
        raise UsageError(f"a phase {fault}")
    if not 0 <= span.start_ns < last:
        raise UsageError(
            f"the phase {span.name!r} starts at {exact_ns(span.start_ns)}, and {trace.path.name} "
            f"lasts {exact_ns(last)}: times are since the recording's start"
        )
    end = (after.start_ns if after else last) if span.end_ns is None else span.end_ns
    if end <= span.start_ns:
        raise UsageError(
            f"the phase {span.name!r} ends at {exact_ns(end)}: give an end after its start, "
            f"{exact_ns(span.start_ns)}"
        )
    return Span(span.name, span.start_ns, min(end, last))


def _words(span: Span) -> str:
    end = "the end" if span.end_ns is None else exact_ns(span.end_ns)
    return f"{span.name!r} ({exact_ns(span.start_ns)} to {end})"


def starts(trace: Any, spans: Sequence[Span]) -> list[Json]:
    """Return the starts of phases as `TraceMeta.phases` has them; gaps have the name ``""``.

    Phases that start and end within one round are left out.
    """
    last = trace.duration_ns
    marks: list[tuple[str, int]] = []
    for span, after in itertools.zip_longest(spans, spans[1:]):
        end = last if span.end_ns is None else span.end_ns
        marks.append((span.name, span.start_ns))
        if end < last and (after is None or end < after.start_ns):
            marks.append(("", end))
    found: list[Json] = [
        {"name": name, "round": trace.rounds_between(t_ns)[0], "t_ns": t_ns, "insn": -1}
        for name, t_ns in marks
    ]
    rounds = [row["round"] for row in found] + [trace.n_rounds]
    return [row for row, after in zip(found, rounds[1:], strict=True) if row["round"] < after]


# ------------------------------------------------------------------------------
# The file next to a trace.


def _name_rule(value: object) -> Fault | None:
    return Fault("", value, "a name that can be printed") if _name_fault(value) else None


def _text_rule(value: object) -> Fault | None:
    return None if isinstance(value, str) else Fault("", value, "text")


_DOCUMENT = fields(
    format=one_of(FORMAT),
    version=one_of(VERSION),
    trace=_text_rule,
    phases=rows(fields(name=_name_rule, start_ns=whole_number(), end_ns=whole_number())),
)


def sidecar(path: PathLike) -> Path:
    """Return the path of the phases of the trace at `path`: next to its folder."""
    folder = Path(os.path.realpath(path))
    return folder.with_name(f"{folder.name}.phases.json")


def annotate(
    trace: Any, phases: Mapping[str, Any] | Iterable[Span] | PathLike, overwrite: bool = False
) -> Path:
    """Give phases to a trace, from now on; return the path of the file next to it.

    Parameters
    ----------
    trace : Trace
    phases : as of `checked`, or path-like
        A path is that of a CSV (`of_csv`).
    overwrite : bool
        Replace phases that were given before.

    Raises
    ------
    UsageError, NeedsError
        As of `of_csv` and `checked`; also for a log that is nested in another trace.
    OutputExists, OutputError
    """
    if _home(trace.path) != Path(os.path.realpath(trace.path)):
        raise UsageError(f"{trace.path} is part of {_home(trace.path)}: annotate that one")
    if isinstance(phases, str | os.PathLike):
        phases = of_csv(phases)
    spans = checked(trace, phases)
    document: Json = {
        "format": FORMAT,
        "version": VERSION,
        "trace": trace.digest,
        "phases": [span._asdict() for span in spans],
    }
    path = sidecar(trace.path)
    with whole(path, overwrite) as partial:
        partial.write_bytes(_encoded(document))
    return path


def _encoded(document: Json) -> bytes:
    return manifest.json_bytes({**document, "digest": manifest.digest(document)})


def remove(trace: Any) -> bool:
    """Remove the phases that were given to a trace; return whether there were any."""
    path = sidecar(trace.path)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise output_error(path, error) from error
    return True


def load(trace: Any) -> list[Span] | None:
    """Read the phases that were given to a trace; None if there are none.

    Raises
    ------
    PmlkitError
        If the file is damaged, or belongs to another recording.
    """
    home = _home(trace.path)
    path = sidecar(home)
    try:
        data = read_regular(path, LIMIT_BYTES)
    except FileNotFoundError:
        return None
    except (FileRefused, OSError) as error:
        raise _refused(path, home, f"cannot be read ({one_line(str(error))})") from error
    try:
        document = foreign_json(data)
    except ValueError as error:
        raise _refused(path, home, str(error)) from error
    sealed = document if isinstance(document, dict) else {}
    stated = sealed.pop("digest", None)
    fault = values_fault(document) or _DOCUMENT(sealed) or _order_fault(sealed)
    if fault or stated != manifest.digest(sealed) or data != _encoded(sealed):
        why = f"is wrong: {fault}" if fault else "has been changed since it was written"
        raise _refused(path, home, why)
    own = Path(os.path.realpath(trace.path)) == home
    digest = trace.digest if own else manifest.digest(manifest.load(home))
    if sealed["trace"] != digest:
        raise _refused(path, home, "belongs to another recording, or an earlier one of this name")
    return [Span(**row) for row in sealed["phases"]]


def seal(path: PathLike) -> list[str]:
    """Return the digest of the phases that the trace at `path` was given, or nothing.

    Results depend on these phases as they do on the trace.
    """
    try:
        data = read_regular(sidecar(_home(path)), LIMIT_BYTES)
    except FileNotFoundError:
        return []
    return [hashlib.blake2b(data, digest_size=32).hexdigest()]


def _order_fault(document: Json) -> Fault | None:
    last = 0
    for index, row in enumerate(document["phases"]):
        if not last <= row["start_ns"] < row["end_ns"]:
            return Fault(f".phases[{index}]", row["start_ns"], "after the phase before")
        last = row["end_ns"]
    return None


def _home(path: PathLike) -> Path:
    """Return the recording that a trace belongs to: the one that it is nested in, or itself."""
    folder = Path(os.path.realpath(path))
    named = folder.name in ("pml.trace", "sample.trace")
    nested = named and (folder.parent / manifest.NAME).is_file()
    return _home(folder.parent) if nested else folder


def _refused(path: Path, home: Path, why: str) -> PmlkitError:
    hint = f"write it again or remove it: `pmlkit annotate {home} --remove`"
    return PmlkitError(f"the phases in {path} {why}".replace("\n", " "), hint)


# ------------------------------------------------------------------------------
# Times by name.


def is_named(time: object) -> bool:
    """Return whether a time is given by a name: ``mark:NAME`` or ``end:NAME``."""
    return isinstance(time, str) and time.startswith(("mark:", "end:"))


def part_text(start: str | int | None, end: str | int | None) -> str:
    """Describe the part of a trace between two times; nothing if it is the whole trace.

    Examples
    --------
    >>> from pmlkit.trace.annotation import part_text
    >>> part_text("2s", "mark:get"), part_text("mark:get", "end:get")
    ('from 2 s to the start of phase get', 'in phase get')
    """
    if start is None and end is None:
        return ""
    phase = str(start).removeprefix("mark:")
    if (start, end) == (f"mark:{phase}", f"end:{phase}"):
        return f"in phase {phase}"
    until = "the end" if end is None else _edge_text(end)
    return f"from {_edge_text(start or 0)} to {until}"


def _edge_text(time: str | int) -> str:
    """Format a time: as a duration, or by the phase whose edge it is."""
    if is_named(time):
        which, _, name = str(time).partition(":")
        return f"the {'start' if which == 'mark' else 'end'} of phase {name}"
    return exact_ns(parse_duration_ns(time))


def time_ns(trace: Any, time: str | int | None) -> int | None:
    """Return a time of a trace in ns: a duration, ``mark:NAME``, ``end:NAME``, or None.

    Raises
    ------
    UsageError
        If it is no time, or a bare number that is shorter than a round: its unit is missing.
    UnknownName
        If the trace has no such phase.
    """
    if time is None:
        return None
    if not (isinstance(time, str) and is_named(time)):
        return _unnamed_ns(trace, time)
    which, _, name = time.partition(":")
    first, stop = _rounds_of(trace, name)
    return int(trace.start_of(first if which == "mark" else stop))


def _unnamed_ns(trace: Any, time: str | int) -> int:
    """Return a duration in ns; refuse an integer that is shorter than a round."""
    ns = parse_duration_ns(time)
    if is_bare(time) and 0 < ns < (trace.resolution_ns or 0):
        what = f"a time of {time} is {time} ns, less than a round of {trace.path.name}"
        raise UsageError(what, f"write it with its unit, such as '{time}s' or '{time}ms'")
    return ns


def bounds(trace: Any, name: str) -> tuple[int, int]:
    """Return where a phase of a trace starts and ends, ns: at the starts of rounds.

    Raises
    ------
    UsageError
        If it starts and ends within one round.
    UnknownName
    """
    first, stop = _rounds_of(trace, name)
    if first == stop:
        raise UsageError(
            f"the phase {name!r} of {trace.path.name} starts and ends within one round"
        )
    return trace.start_of(first), trace.start_of(stop)


def check_joined(trace: Any, names: Sequence[str]) -> None:
    """Raise a UsageError unless each of these phases of a trace ends where the next one starts."""
    for name, after in itertools.pairwise(names):
        if bounds(trace, name)[1] != bounds(trace, after)[0]:
            raise UsageError(
                f"the phase {after!r} of {trace.path.name} does not follow {name!r}: give one "
                f"{argument('phase')}, or {argument('between')} {names[0]} and another phase"
            )


def check_met(spans: Sequence[Span]) -> None:
    """Raise a UsageError unless each of these phases ends where the next one starts."""
    for span, after in itertools.pairwise(spans):
        if span.end_ns not in (None, after.start_ns):
            raise UsageError(f"{_words(after)} does not follow {_words(span)}: close the gap")


def _rounds_of(trace: Any, name: str) -> tuple[int, int]:
    """Return the first round of a phase, and the one after its last."""
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is not a name of a phase: give a text")
    names = [phase["name"] for phase in trace.phase_starts]
    rounds = [phase["round"] for phase in trace.phase_starts]
    if not names:
        annotate = f"`pmlkit annotate {trace.path} phases.csv`"
        hint = f"name some with {annotate}, or {argument('phase', 'NAME=2s..5s')}"
        raise NeedsError(trace, "phases", hint)
    places = [index for index, known in enumerate(names) if known == name]
    base, hash_mark, number = name.rpartition("#")
    if not places and hash_mark and re.fullmatch(r"[1-9][0-9]{0,6}", number):
        of_base = [index for index, known in enumerate(names) if known == base]
        places = of_base[int(number) - 1 : int(number)]
    if not places:
        known = [known for known in dict.fromkeys(names) if known]
        raise UnknownName("phase", name, known, trace.path.name)
    if len(places) > 1:
        last = f"{name}#{len(places)}"
        raise UsageError(
            f"{trace.path.name} has {len(places)} phases {name!r}: choose from {name}#1 to {last}"
        )
    at = places[0]
    return rounds[at], rounds[at + 1] if at + 1 < len(rounds) else trace.n_rounds
