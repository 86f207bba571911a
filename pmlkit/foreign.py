# SPDX-License-Identifier: Apache-2.0
"""Other people's YAML and JSON, which may be hostile, and their classes, which are trusted."""

from __future__ import annotations

import enum
import importlib
import json
import math
import re
import reprlib
import sys
from typing import TYPE_CHECKING, TypeVar

import yaml

from pmlkit.errors import NotUnderstood, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pmlkit.types import Json

_Class = TypeVar("_Class")

__all__ = [
    "Fields",
    "LIMIT_BYTES",
    "Loader",
    "check_events",
    "check_size",
    "foreign_class",
    "foreign_yaml",
    "loads",
]


# ------------------------------------------------------------------------------
# YAML: its values are counted before it is expanded. An alias is replaced by the value of its
# anchor, which may have aliases as well: ten lines can expand to a billion values.


LIMIT_BYTES = 4 << 20
LIMIT_VALUES = 100_000
LIMIT_DEPTH = 50


_AMBIGUOUS = re.compile(r".*:.*|[-+]?0[0-7_]+")  # to base 60, or to base 8


class Loader(yaml.SafeLoader):
    """PyYAML's loader, without the numbers that YAML 1.1 has and people do not expect.

    It refuses ``1:30`` (90 there) and ``010`` (8 there). ``1e-3`` is a number (a text there).
    """

    def number(self, node: yaml.ScalarNode) -> int | float:
        """Return the value of a number; raise a ConstructorError if YAML 1.2 has another."""
        is_float = node.tag.endswith(":float")
        value = self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)
        if _AMBIGUOUS.fullmatch(node.value):
            problem = f"{node.value} would be read as {value}: write {value}, or put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value


for _tag in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", Loader.number)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def foreign_yaml(text: str) -> object:
    """Parse one document; return None if there is none.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML.
    ValueError
        If it is too large when expanded, or nested too deeply.
    """
    loader = Loader(text)
    try:
        check_events(text)
        node = loader.get_single_node()
        check_size(node)
        return loader.construct_document(node) if node else None
    finally:
        loader.dispose()


def check_events(text: str) -> None:
    """Raise a ValueError if a text has too many values or is nested too deeply."""
    depth = values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > LIMIT_DEPTH:
            raise ValueError(f"it is nested more than {LIMIT_DEPTH} deep")
        if values > LIMIT_VALUES:
            raise ValueError(f"it has more than {LIMIT_VALUES:,} values")


def check_size(node: yaml.Node | None) -> None:
    """Raise a ValueError if a document would be too large when its aliases are expanded."""
    if node is not None:
        _size(node, {}, ())


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Count the values of a node with all aliases expanded."""
    if id(node) in above:
        raise ValueError(f"line {node.start_mark.line + 1} contains itself")
    if id(node) not in known:
        above, total = (*above, id(node)), 1
        for child in _children(node):
            total += _size(child, known, above)
            if total > LIMIT_VALUES:
                where = f"line {node.start_mark.line + 1}"
                raise ValueError(f"{where} stands for more than {LIMIT_VALUES:,} values")
        known[id(node)] = total
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


# ------------------------------------------------------------------------------
# JSON of a collector's stream, parsed strictly. Python's parser accepts NaN, integers of any length
# and lone surrogates, which tables of 64-bit numbers and UTF-8 cannot store.


LONGEST_JSON = 1 << 22  # bytes; the longest object is a round of thousands of vCPUs
MOST = 1 << 56  # of any count
LATEST_NS = 1 << 60  # 36 years after the start
_LONGEST_TEXT = 4096  # characters
_DIGITS = 20  # of a number of 64 bits


class _Required(enum.Enum):
    REQUIRED = enum.auto()


_REQUIRED = _Required.REQUIRED
_Value = object  # a value not checked yet; within `Fields`, `object` is a method
_Default = TypeVar("_Default")


def loads(data: bytes) -> Json:
    """Parse a JSON object; raise `NotUnderstood` if it is something else."""
    if len(data) > LONGEST_JSON:
        raise NotUnderstood(f"{len(data)} bytes of JSON, and the limit is {LONGEST_JSON}")
    try:
        value = _DECODER.decode(bytes(data).decode())
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
    except RecursionError as error:
        raise NotUnderstood("its JSON is nested too deeply") from error
    except ValueError as error:
        raise NotUnderstood(f"a line is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise NotUnderstood("its JSON is not an object")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS or not -(1 << 63) <= int(text) < 1 << 64:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_DIGITS]} is not a number")
    return value


# Created once: `json.loads` would create one for each frame of a stream.
_DECODER = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_float)


class Fields:
    """The fields of a JSON object, with getters that check the value of a field.

    A field without `default` is required.

    Parameters
    ----------
    values : dict
    where : str
        Prefix of the names of fields in messages.

    Raises
    ------
    NotUnderstood
        By every getter; the message has the field, its value, and what it has to be.
    """

    def __init__(self, values: Json, where: str = "") -> None:
        self.values, self._where = values, where

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def _get(self, name: str, default: _Value) -> _Value:
        if name in self.values:
            return self.values[name]
        if default is _Required.REQUIRED:
            raise NotUnderstood(f"{self._where}{name} is missing")
        return default

    def _refuse(self, name: str, wanted: str) -> NotUnderstood:
        value = reprlib.repr(self.values.get(name))
        return NotUnderstood(f"{self._where}{name} is {value}, and must be {wanted}")

    def whole(
        self, name: str, low: int = 0, high: int = MOST, default: _Default | _Required = _REQUIRED
    ) -> int | _Default:
        """Return an integer, `low` to `high`."""
        value = self._get(name, default)
        if value is default and not isinstance(default, _Required):
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._refuse(name, f"a whole number, {low} to {high}")
        return value

    def number(
        self, name: str, low: float, high: float, default: _Default | _Required = _REQUIRED
    ) -> float | _Default:
        """Return a number, `low` to `high`."""
        value = self._get(name, default)
        if value is default and not isinstance(default, _Required):
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refuse(name, f"a number, {low:g} to {high:g}")
        if not low <= value <= high:
            raise self._refuse(name, f"a number, {low:g} to {high:g}")
        return value

    def flag(self, name: str, default: bool | _Required = _REQUIRED) -> bool:
        """Return true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refuse(name, "true or false")
        return value

    def text(
        self,
        name: str,
        default: _Default | _Required = _REQUIRED,
        longest: int = _LONGEST_TEXT,
    ) -> str | _Default:
        """Return a text of at most `longest` characters."""
        value = self._get(name, default)
        if value is default and not isinstance(default, _Required):
            return default
        if not isinstance(value, str) or len(value) > longest:
            raise self._refuse(name, f"a text of at most {longest} characters")
        return value

    def choice(self, name: str, known: Sequence[str], default: str | _Required = _REQUIRED) -> str:
        """Return one of the `known` texts."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in known:
            raise self._refuse(name, " or ".join(repr(word) for word in known))
        return value

    def object(self, name: str, default: Json | _Required = _REQUIRED) -> Fields:
        """Return the fields of a nested object."""
        value = self._get(name, default)
        if not isinstance(value, dict):
            raise self._refuse(name, "an object")
        return Fields(value, f"{self._where}{name}.")

    def objects(self, name: str, low: int, high: int) -> Iterator[Fields]:
        """Yield the fields of each object in a list of `low` to `high` objects."""
        value = self._get(name, _REQUIRED)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self._refuse(name, f"a list of {low} to {high} objects")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise self._refuse(name, "a list of objects")
            yield Fields(item, f"{self._where}{name}[{number}].")


# ------------------------------------------------------------------------------
# Classes. Importing a module runs it, with the rights of the user who named it.


def foreign_class(name: str, base: type[_Class], what: str) -> type[_Class]:
    """Import a class by ``module:Class``; modules of the working directory count.

    Parameters
    ----------
    base : type
        What it has to be derived from.
    what : str
        The same in words, for the error.

    Raises
    ------
    UsageError
        If there is no such module or class, or the class is not derived from `base`, or lacks a
        method of it.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"{name!r} is not the name of a class", "write it as module:Class")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{name} cannot be imported: {error}", "see the folders where Python searches"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UsageError(
            f"{name} is not a {what}", f"derive it from {base.__module__}.{base.__name__}"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UsageError(f"{name} lacks {', '.join(missing)}", f"a {what} defines it")
    return cls
