# SPDX-License-Identifier: Apache-2.0
"""The schema of ``trace.json``, for writer and reader.

A rule takes a value and returns None or a `Fault`. (`jsonschema`, which checks experiments, takes
longer to import than Arrow and pandas.)
"""

from __future__ import annotations

import datetime
import json
import math
import re
import reprlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from pmlkit.costs import NS_PER_INSN
from pmlkit.trace.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pmlkit.types import Json

    Rule = Callable[[object], "Fault | None"]

__all__ = ["DESCRIPTION", "FILES", "Fault", "foreign_json"]

LIMIT_BYTES = 16 << 20
LIMIT_VALUES = 1 << 20  # a value takes about 100 bytes of memory, but "[]," 3 bytes of the file
LIMIT_DEPTH = 32
PAGE_SIZE = 4096
# Other sizes are for imports, whose pages may be blocks of a disk. Recordings have PAGE_SIZE.
PAGE_SIZES = tuple(1 << power for power in range(9, 31))
LOSSES = ("counted", "not counted")
_UINT32, _INT64, _UINT64 = (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
_GFN_BITS = 52  # of 64-bit addresses, in pages


class Fault(NamedTuple):
    """A wrong field: its path (``phases[3].round``), its value, and what it must be."""

    where: str
    value: object
    wanted: str

    def __str__(self) -> str:
        return f"{self.where.lstrip('.')} is {reprlib.repr(self.value)}: it must be {self.wanted}"


# Building blocks of rules


def _rule(holds: Callable[[object], bool], wanted: str) -> Rule:
    return lambda value: None if holds(value) else Fault("", value, wanted)


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) in (int, float)


def whole(low: int = 0, high: int = _INT64) -> Rule:
    """Return the rule of an integer from `low` to `high`."""
    # A bool is an int in Python, and 1.0 equals 1.
    return _rule(lambda v: type(v) is int and low <= v <= high, f"a whole number, {low} to {high}")


def number(low: float = 0, high: float = math.inf) -> Rule:
    """Return the rule of a finite number, from `low` to `high`."""
    limits = f"{low} or more" if high == math.inf else f"{low:g} to {high:g}"
    return _rule(
        lambda v: _is_number(v) and low <= v <= high and v < math.inf, f"a number, {limits}"
    )


def one_of(*choices: object) -> Rule:
    """Return the rule of a value that is one of some."""
    wanted = " or ".join(map(str, choices))
    return _rule(lambda v: any(type(v) is type(c) and v == c for c in choices), wanted)


def nullable(rule: Rule) -> Rule:
    """Return the rule of a value that may be None."""

    def check(value: object) -> Fault | None:
        fault = None if value is None else rule(value)
        return fault and fault._replace(wanted=f"{fault.wanted}, or null")

    return check


def rows(rule: Rule) -> Rule:
    """Return the rule of a list of such values."""

    def check(value: object) -> Fault | None:
        if not isinstance(value, list):
            return Fault("", value, "a list")
        return _first_inside(rule, ((f"[{n}]", item) for n, item in enumerate(value)))

    return check


def each(rule: Rule) -> Rule:
    """Return the rule of a mapping from names to such values."""

    def check(value: object) -> Fault | None:
        if not isinstance(value, dict):
            return Fault("", value, "a mapping")
        return _first_inside(rule, ((f".{name}", item) for name, item in value.items()))

    return check


def fields(optional: dict[str, Rule] | None = None, /, **needed: Rule) -> Rule:
    """Return the rule of a mapping with these fields, and any others."""
    known = needed | (optional or {})

    def check(value: object) -> Fault | None:
        if not isinstance(value, dict):
            return Fault("", value, "a mapping")
        for name, rule in known.items():
            if name not in value and name not in needed:
                continue
            fault = rule(value.get(name))
            if not fault and name not in value:
                fault = Fault("", None, "there")
            if fault:
                return fault._replace(where=f".{name}{fault.where}")
        return None

    return check


def _first_inside(rule: Rule, items: Iterable[tuple[str, object]]) -> Fault | None:
    for where, item in items:
        if fault := rule(item):
            return fault._replace(where=where + fault.where)
    return None


def _is_iso(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.datetime.fromisoformat(value))
    except ValueError:
        return False


# The rules of trace.json

_TEXT = _rule(lambda v: isinstance(v, str), "text")
_NAME = _rule(lambda v: isinstance(v, str) and v != "", "a name")
_MAPPING = each(lambda value: None)
_COSTS = ("tsc_khz", "exits", "exit_tsc", "entries", "drain_tsc", "agent_cpu_ns", "waited")
_COMPOSED = fields(program=_NAME, day_ns=whole(1))

DESCRIPTION = fields(
    {
        "memory_map": rows(fields(start=whole(0, 1 << 64), end=whole(0, 1 << 64), type=_TEXT)),
        "clock": fields(
            {
                "unit": one_of("ns"),
                "kind": _TEXT,
                "ns_per_insn": nullable(number(*NS_PER_INSN)),
                "base_ns": nullable(whole(-_INT64)),
            }
        ),
        "period": fields(
            {
                name: nullable(_rule(lambda v: _is_number(v) and v > 0, "positive"))
                for name in ("ns", "insn")
            }
        ),
        "phases": rows(
            fields(name=_TEXT, round=whole(0, _UINT32), t_ns=whole(-_INT64), insn=whole(-1))
        ),
        "known": rows(
            fields(
                phase=_TEXT,
                region=_TEXT,
                kind=one_of("read", "written", "touched"),
                pages=whole(0, 1 << _GFN_BITS),
            )
        ),
        "options": fields(
            {
                "sampled_one_in": whole(1, _UINT32),
                "sampled_draw": one_of("fixed", "round"),
                "mode": nullable(_TEXT),
                "composed": nullable(_COMPOSED),
            }
        ),
        "overheads": fields(
            {name: nullable(number()) for name in _COSTS} | {"rounds": rows(each(number()))}
        ),
        "host": _MAPPING,
        "provenance": fields(
            {
                "command": nullable(_TEXT),
                "versions": nullable(_MAPPING),
                "simulated_from": nullable(_MAPPING),
            }
        ),
        "notes": rows(_TEXT),
        "complete": one_of(True, False, None),
        "losses": one_of(*LOSSES),
        "created": nullable(_rule(_is_iso, "a time such as 2024-01-31T12:00:00")),
        "lost": nullable(whole()),
        "entries": whole(),
    },
    kind=one_of(*KINDS),
    source=_NAME,
    domain=fields(
        {
            "name": _TEXT,
            "vcpus": whole(1, 1 << 16),
            "page_size": one_of(*PAGE_SIZES),
            "address": one_of("guest-physical", "virtual", "block"),
        },
        memory_bytes=whole(1, 1 << 64),
    ),
)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHECKSUM = {
    "bytes": whole(),
    "blake2b": _rule(lambda v: isinstance(v, str) and bool(_DIGEST.fullmatch(v)), "a digest"),
}
_ROUNDS = _rule(
    lambda v: (
        isinstance(v, list)
        and len(v) == 2
        and all(type(n) is int for n in v)
        and 0 <= v[0] <= v[1] <= _UINT32
    ),
    "the first and the last round",
)
FILES = each(fields(**_CHECKSUM))
COUNTED = fields(rows=whole(), rounds=nullable(_ROUNDS))  # fields that only files of entries have


# JSON from elsewhere


def foreign_json(data: bytes) -> object:
    """Parse JSON that may be hostile.

    Raises
    ------
    ValueError
        If it is not JSON, has a key twice, is too large, or nested too deeply.
    """
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > LIMIT_VALUES:
        raise ValueError(f"holds some {values:,} values, and at most {LIMIT_VALUES:,} are read")
    try:
        return json.loads(data, object_pairs_hook=_with_each_name_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON (line {error.lineno}: {error.msg})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid JSON (byte {error.start} is not UTF-8)") from error
    except RecursionError as error:
        raise ValueError(f"is nested more than {LIMIT_DEPTH} deep") from error


def _with_each_name_once(pairs: list[tuple[str, object]]) -> Json:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"contains {reprlib.repr(twice)} twice")
    return mapping


def values_fault(document: object) -> Fault | None:
    """Find a value that JSON or pmlkit cannot represent."""
    # A list of pending values: hostile nesting would exhaust a recursion.
    pending: list[tuple[str, object, int]] = [("", document, 0)]
    while pending:
        where, value, depth = pending.pop()
        if wanted := _unfit(value, depth):
            return Fault(where, value, wanted)
        if isinstance(value, dict):
            for name, item in value.items():
                if wanted := _unfit(name, depth):
                    return Fault(f"a name in {where or 'it'}", name, wanted)
                pending.append((f"{where}.{name}", item, depth + 1))
        elif isinstance(value, list):
            pending += [(f"{where}[{n}]", item, depth + 1) for n, item in enumerate(value)]
    return None


def _unfit(value: object, depth: int) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if type(value) is int and abs(value) > _UINT64 + 1:
        return "of 64 bits"
    if isinstance(value, str) and not value.isascii() and not _is_unicode(value):
        return "text that can be written as UTF-8"
    if depth > LIMIT_DEPTH and isinstance(value, dict | list):
        return f"nested at most {LIMIT_DEPTH} deep"
    return None


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
