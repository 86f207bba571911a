# SPDX-License-Identifier: Apache-2.0
"""Read an experiment, ``experiments/NAME.yaml``: notebooks x parameters x traces.

The rules are in ``experiment.schema.json`` (JSON Schema 2020-12, which editors also support).
Errors name the line of the file.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from pmlkit.errors import FileRefused, PmlkitError, closest
from pmlkit.files import read_regular
from pmlkit.foreign import LIMIT_BYTES, Loader, check_events, check_size
from pmlkit.lazy import without
from pmlkit.recordings import ROOT

with without("rfc3987_syntax"):  # builds a grammar of addresses: four times as long as the rest
    import jsonschema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from jsonschema.exceptions import ValidationError

    from pmlkit.types import Json, PathLike

    Place = tuple[str | int, ...]  # keys and indices on the way to a value
    Lines = dict[Place, int]


__all__ = ["Entry", "Experiment", "ExperimentError", "load"]

SCHEMA = Path(__file__).parent / "experiment.schema.json"
LIMIT_RUNS = 20_000
_SHOWN = 200  # characters of a wrong value
RESERVED = ("trace", "traces", "results", "out")
_KINDS = {"object": "a mapping", "array": "a list", "string": "a text", "boolean": "yes or no"}


class ExperimentError(PmlkitError):
    """An experiment is not usable. Attributes: `path`, `line` (from 1, or None), `why`."""

    def __init__(
        self,
        path: PathLike,
        line: int | None,
        why: str,
        hint: str = "pmlkit/batch/experiment.schema.json has the rules",
    ) -> None:
        self.path, self.line, self.why = os.fspath(path), line, why
        where = f"line {line} of {self.path}" if line else self.path
        super().__init__(f"{where}: {why}", hint)


class NamedTrace(NamedTuple):
    """A trace's name, the command that creates it (or ``""``), and its place in the file."""

    name: str
    made_by: str = ""
    where: Place = ()


@dataclass(frozen=True)
class Entry:
    """A notebook, its traces and parameters.

    Attributes
    ----------
    notebook : str
        A name in ``notebooks/``, or a path.
    traces : list of NamedTrace
    together : bool
        One run gets all traces.
    points : list of dict
        The parameters of each run on a trace.
    where : tuple
        The place in the file, as `Experiment.error` takes it.
    gather : dict of str to dict
        Its pieces for an article (`pmlkit.batch.gather`).
    """

    notebook: str
    traces: list[NamedTrace]
    together: bool
    points: list[Json]
    where: Place
    gather: dict[str, Json] = field(default_factory=dict)

    def on(self, traces: Sequence[str]) -> Entry:
        """Return the entry with these traces instead of its own; they have no place in the file."""
        return replace(self, traces=[NamedTrace(trace) for trace in traces])


@dataclass(frozen=True)
class Experiment:
    """The contents of an experiment's file.

    Attributes
    ----------
    path : Path
    name : str
        The file's stem.
    title, about : str
    runs, summary : list of Entry
    lines : dict of tuple to int
        The line of each place, which is a path of keys and indices.
    document : str
        The LaTeX file for gathered pieces, relative to `path`; or ``""``.
    command : str
        What runs it, as text to be copied.
    """

    path: Path
    name: str
    title: str
    about: str
    runs: list[Entry]
    summary: list[Entry]
    lines: Lines
    document: str = ""
    command: str = ""

    def on(self, traces: Sequence[str]) -> Experiment:
        """Return the experiment with these traces in every run that takes traces."""
        return replace(self, runs=[run.on(traces) if run.traces else run for run in self.runs])

    def error(self, where: Place, why: str, hint: str) -> ExperimentError:
        """Return the error about a place in the file."""
        return ExperimentError(self.path, _line(self.lines, where), why, hint)


def load(path: PathLike) -> Experiment:
    """Read an experiment and check it against the schema.

    Raises
    ------
    ExperimentError
        If the file cannot be read, is not YAML, or breaks a rule; names the rule and the line.
    """
    path = Path(path)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.stem):
        hint = "use letters, digits, dots, dashes and underscores"
        raise ExperimentError(path, None, "its name becomes a folder's", hint)
    document, lines = _validated(path, *_parse(path, _read(path)))
    _check_points(path, document, lines)
    shared = _traces(document.get("traces", []), ("traces",))
    return Experiment(
        path=path,
        name=path.stem,
        title=document["title"],
        about=document.get("about", ""),
        runs=_entries(document, "runs", shared),
        summary=_entries(document, "summary", []),
        lines=lines,
        document=document.get("document", ""),
    )


def _entries(document: Json, part: str, shared: list[NamedTrace]) -> list[Entry]:
    return [
        Entry(
            notebook=entry["notebook"],
            traces=_traces(entry["traces"], (part, n, "traces")) if "traces" in entry else shared,
            together=entry.get("together", False),
            points=_points(entry),
            where=(part, n),
            gather=entry.get("gather", {}),
        )
        for n, entry in enumerate(document.get(part, []))
    ]


def _traces(listed: Sequence[str | Json], where: Place) -> list[NamedTrace]:
    items = [item if isinstance(item, dict) else {"trace": item} for item in listed]
    return [NamedTrace(i["trace"], i.get("made_by", ""), (*where, n)) for n, i in enumerate(items)]


def _check_points(path: PathLike, document: Json, lines: Lines) -> None:
    """Check the number of points of every grid before expanding it."""
    for part in ("runs", "summary"):
        for n, entry in enumerate(document.get(part, [])):
            grids = entry.get("grid", {})
            grids = grids if isinstance(grids, list) else [grids]
            points = sum(math.prod(map(len, axes.values())) for axes in grids)
            if points > LIMIT_RUNS:
                line = _line(lines, (part, n, "grid"))
                why = f"{part}[{n}].grid has {points:,} points, and the limit is {LIMIT_RUNS:,}"
                raise ExperimentError(path, line, why, "remove values, or make two experiments")


def _points(entry: Json) -> list[Json]:
    """Return the parameters of each run: the shared ones, and a combination of the grid's."""
    grids = entry.get("grid", {})
    points = []
    for axes in grids if isinstance(grids, list) else [grids]:
        for values in itertools.product(*axes.values()):
            points.append(entry.get("parameters", {}) | dict(zip(axes, values, strict=True)))
    return points


# Reading


def _read(path: Path) -> str:
    try:
        return read_regular(path, LIMIT_BYTES).decode()
    except FileRefused as error:
        raise ExperimentError(path, None, error.why, "give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(path, None, "it is not UTF-8 text", "write it as text") from error
    except OSError as error:
        hint = _offer(path)
        raise ExperimentError(path, None, error.strerror or str(error), hint) from error


def _offer(path: Path) -> str:
    """Return a hint that names the experiments in the file's folder and the bundled ones."""
    folders = dict.fromkeys([path.parent, ROOT / "experiments"])
    known = {p.name: p for folder in folders for p in sorted(folder.glob("[!.]*.yaml"))}
    names = [name for name, file in known.items() if _is_one(file)]
    if near := closest(path.stem, [Path(name).stem for name in names]):
        return f"do you mean {near}.yaml?"
    return f"the experiments there are {', '.join(names)}" if names else "check the path"


def _is_one(path: Path) -> bool:
    try:
        return bool(load(path).runs)
    except PmlkitError:
        return False


def _parse(path: PathLike, text: str) -> tuple[object, Lines]:
    """Return the document, and the line of every place in it."""
    loader = None
    try:
        loader = Loader(text)
        check_events(text)
        node = loader.get_single_node()
        check_size(node)
        lines = dict(_walk(path, node, ()))
        document = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        why = str(error.problem or error.context)
        raise ExperimentError(path, line, why, "write it as YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ExperimentError(
            path, None, f"it cannot be read as YAML ({error})", "mend it"
        ) from error
    finally:
        if loader:
            loader.dispose()
    return document, lines


def _walk(path: PathLike, node: yaml.Node | None, where: Place) -> Iterator[tuple[Place, int]]:
    if node is None:
        return
    yield where, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for n, child in enumerate(node.value):
            yield from _walk(path, child, (*where, n))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            line, place = key.start_mark.line + 1, (*where, key.value)
            if not isinstance(key, yaml.ScalarNode):
                raise ExperimentError(path, line, "a key must be a plain word", "quote it")
            if key.value in seen:
                raise ExperimentError(path, line, f"{key.value!r} is there twice", "keep one")
            seen.add(key.value)
            yield from _walk(path, child, place)
            yield place, line  # of the key: a value may begin below it


def _line(lines: Lines, where: Place) -> int:
    """Return the line of a place or, if it has none, of the nearest enclosing place."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)


# The rules


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def _validated(path: PathLike, document: object, lines: Lines) -> tuple[Json, Lines]:
    """Return the document if it keeps the rules."""
    try:
        # A misspelt key comes before the key that is missing for it.
        errors = sorted(
            _validator().iter_errors(document),
            key=lambda e: (_at(e, lines), e.validator == "required"),
        )
    except RecursionError:  # an alias within its own anchor
        raise ExperimentError(path, 1, "it contains itself", "remove the alias") from None
    if errors:
        first = _deepest(errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ExperimentError(path, _at(first, lines), _describe(first) + more)
    assert isinstance(document, dict)  # the schema requires it
    return document, lines


def _deepest(error: ValidationError) -> ValidationError:
    """Return the innermost reason why a value fits no alternative."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
    return error


def _at(error: ValidationError, lines: Lines) -> int:
    where: Place = tuple(error.absolute_path)
    if strays := _strays(error):
        where = (*where, strays[0])
    return _line(lines, where)


def _strays(error: ValidationError) -> list[str]:
    """Return the unknown keys of a mapping."""
    value: Any = error.instance
    if error.validator == "additionalProperties" and error.validator_value is False:
        return [key for key in value if key not in _known_keys(error)]
    # The name of a parameter: the error is about the name, its path the mapping's.
    return [value] if "propertyNames" in error.absolute_schema_path else []


def _known_keys(error: ValidationError) -> list[str]:
    return list(error.schema["properties"]) if isinstance(error.schema, dict) else []


def _describe(error: ValidationError) -> str:
    """Describe in plain words the broken rule and its place."""
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    place = place.lstrip(".") or "the file"
    value: Any = error.instance
    limit: Any = error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        why = (
            "is set by pmlkit itself" if value in RESERVED else "is not a name that Python can use"
        )
        return f"{place}: {value!r} {why}"
    if strays := _strays(error):
        known = _known_keys(error)
        near = closest(str(strays[0]), known)
        meant = f"do you mean {near!r}?" if near else f"it may have {', '.join(known)}"
        return f"{place} has {strays[0]!r}, which is unknown; {meant}"
    if error.validator == "required":
        missing = [name for name in limit if name not in value]
        return f"{place} has no {missing[0]!r}"
    if error.validator == "type":
        wanted = _KINDS.get(str(limit), "a text in quotes, or a number")
        return f"{place} has to be {wanted}, and is {_short(value)}"
    if error.validator in ("minItems", "minLength"):
        return f"{place} is empty"
    if error.validator == "maxLength":
        return f"{place} has {len(value):,} characters, and the limit is {limit:,}"
    return f"{place}: {error.message[:_SHOWN]}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
