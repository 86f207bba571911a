# SPDX-License-Identifier: Apache-2.0
"""YAML that somebody else has written: counted before it is expanded.

An alias stands for all that its anchor holds, and may be in an anchor itself: ten lines can stand
for a billion values.
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import TYPE_CHECKING

import yaml

from pmlkit.errors import NotUnderstood

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pmlkit.types import Json

__all__ = ["Fields", "LIMIT_BYTES", "check_size", "foreign_yaml", "loads"]


LIMIT_BYTES = 4 << 20
LIMIT_VALUES = 100_000
LIMIT_DEPTH = 50


def foreign_yaml(text: str) -> Any:
    """Read one document.

    Parameters
    ----------
    text : str

    Returns
    -------
    object
        None if there is none.

    Raises
    ------
    yaml.YAMLError
        If it is no YAML.
    ValueError
        If it would grow too large, or is nested too deeply.
    """
    loader = yaml.SafeLoader(text)
    try:
        check_events(text)
        node = loader.get_single_node()
        check_size(node)
        return loader.construct_document(node) if node else None
    finally:
        loader.dispose()


def check_events(text: str) -> None:
    """Refuse a text that has more values, or is nested more deeply, than is taken in.

    Raises
    ------
    ValueError
    yaml.YAMLError
    """
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
    """Refuse a document whose aliases would make it too large; nothing is expanded for that.

    Raises
    ------
    ValueError
    """
    if node is not None:
        _size(node, {}, ())


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Count the values of a node as if each alias was written out."""
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
# JSON of a stream that somebody else writes: read strictly, its fields checked one by one.
#
# Python's own reader takes what no collector sends (NaN, numbers of any length, half characters),
# and what is taken here ends in tables of 64-bit numbers and in UTF-8.


LONGEST_JSON = 1 << 22  # bytes; the longest is a round of a domain of thousands of vCPUs
MOST = 1 << 56  # of any count
LATEST_NS = 1 << 60  # 36 years after the start
_LONGEST_TEXT = 4096  # characters
_DIGITS = 20  # of a number of 64 bits
_MISSING: Any = object()


def loads(data: bytes) -> Json:
    """Read a JSON object.

    Parameters
    ----------
    data : bytes-like

    Returns
    -------
    dict

    Raises
    ------
    NotUnderstood
    """
    if len(data) > LONGEST_JSON:
        raise NotUnderstood(f"{len(data)} bytes of JSON: {LONGEST_JSON} are the most")
    try:
        told = _DECODER.decode(bytes(data).decode())
        if b"\\u" in data:
            json.dumps(told, ensure_ascii=False).encode()  # half of a pair is no character
    except RecursionError as error:
        raise NotUnderstood("its JSON is nested too deep") from error
    except ValueError as error:
        raise NotUnderstood(f"what should be JSON is none ({error})") from error
    if not isinstance(told, dict):
        raise NotUnderstood("its JSON is no object")
    return told


def _int(text: str) -> int:
    if len(text) > _DIGITS or not -(1 << 63) <= int(text) < 1 << 64:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_DIGITS]} is no number")
    return value


# Made once: `json.loads` would make one for each of a stream's many frames.
_DECODER = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_float)


class Fields:
    """The fields of a JSON object: each getter checks the one that it gives.

    Without a `default` the field is needed.

    Parameters
    ----------
    told : dict
    where : str
        What messages put before a field's name.

    Raises
    ------
    NotUnderstood
        By every getter: which field it is, what it says, and what it has to be.
    """

    def __init__(self, told: Json, where: str = "") -> None:
        self.told, self._where = told, where

    def __contains__(self, name: str) -> bool:
        return name in self.told

    def _get(self, name: str, default: Any) -> Any:
        if name in self.told:
            return self.told[name]
        if default is _MISSING:
            raise NotUnderstood(f"{self._where}{name} is missing")
        return default

    def _refuse(self, name: str, wanted: str) -> NotUnderstood:
        said = reprlib.repr(self.told.get(name))
        return NotUnderstood(f"{self._where}{name} is {said}, and has to be {wanted}")

    def whole(self, name: str, low: int = 0, high: int = MOST, default: Any = _MISSING) -> Any:
        """Return a whole number, `low` to `high`."""
        value = self._get(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._refuse(name, f"a whole number, {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: Any = _MISSING) -> Any:
        """Return a number, `low` to `high`."""
        value = self._get(name, default)
        if value is default:
            return value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise self._refuse(name, f"a number, {low:g} to {high:g}")
        return value

    def flag(self, name: str, default: Any = _MISSING) -> bool:
        """Return true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refuse(name, "true or false")
        return value

    def text(self, name: str, default: Any = _MISSING, longest: int = _LONGEST_TEXT) -> Any:
        """Return a text of at most `longest` characters."""
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or len(value) > longest:
            raise self._refuse(name, f"a text of at most {longest} characters")
        return value

    def choice(self, name: str, known: Sequence[str], default: Any = _MISSING) -> Any:
        """Return one of the texts that are known."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in known:
            raise self._refuse(name, " or ".join(repr(word) for word in known))
        return value

    def object(self, name: str, default: Any = _MISSING) -> Fields:
        """Return the fields of an object in this one."""
        value = self._get(name, default)
        if not isinstance(value, dict):
            raise self._refuse(name, "an object")
        return Fields(value, f"{self._where}{name}.")

    def objects(self, name: str, low: int, high: int, default: Any = _MISSING) -> Iterator[Fields]:
        """Yield the fields of each object of a list of `low` to `high`."""
        value = self._get(name, default)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self._refuse(name, f"a list of {low} to {high} objects")
        for number, each in enumerate(value):
            if not isinstance(each, dict):
                raise self._refuse(name, "a list of objects")
            yield Fields(each, f"{self._where}{name}[{number}].")
