# SPDX-License-Identifier: Apache-2.0
"""The numbers and tables that texts quote: each comes from ``data/``, and the text names its key.

A number has its key in a comment after it, which neither a forge nor Sphinx shows; a table is
between two comments:

    its mean error is 6.7<!--n:draws.sqlite-lab.16.anew.error--> %

    <!-- table: exits -->
    ...
    <!-- end -->

A comment must not begin a line: Markdown would take the line for HTML.

    python -m experiments.quoted            # rewrites every text
    python -m experiments.quoted --check    # lists texts that are out of date
    python -m experiments.quoted --list     # lists the keys and their current values
"""

from __future__ import annotations

import ast
import json
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

import yaml

from experiments import cost_tables
from experiments.quoted_numbers import GROUPS, number, numbers
from experiments.quoted_tables import TABLES
from pmlkit.recordings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = [
    "GROUPS",
    "TABLES",
    "Bare",
    "bare",
    "filled",
    "keys",
    "docstrings",
    "excepted",
    "markdown",
    "modules",
    "number",
    "plain",
    "quoting",
    "results",
    "texts",
]

PLAIN = ROOT / "docs" / "plain_numbers.yaml"
_NUMBER = re.compile(r"(?P<text>[-+]?\d[\d,]*(?:\.\d+)?)<!--n:(?P<key>[\w.-]+)-->")
_MARK = re.compile(r"<!--n:[^>]*-->")
_TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.S)


# ------------------------------------------------------------------------------
# The texts.


def texts() -> Iterable[Path]:
    """Return the texts that may quote: Markdown and notebooks, without what `make docs` makes."""
    yield ROOT / "README.md"
    yield ROOT / "hypervisor-patches" / "README.md"
    yield ROOT / "hypervisor-patches" / "lab" / "README.md"
    yield ROOT / "experiments" / "workloads" / "README.md"
    made = {"_figures", "notebooks"}
    yield from sorted(p for p in (ROOT / "docs").glob("*/*.md") if p.parent.name not in made)
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from sorted((ROOT / "notebooks").glob("*.ipynb"))


def filled(text: str) -> str:
    """Return the text with current numbers and tables."""
    text = _NUMBER.sub(lambda m: f"{number(m['key'])}<!--n:{m['key']}-->", text)
    return _TABLE.sub(lambda m: m[1] + cost_tables.markdown(TABLES[m["name"]]()) + m[3], text)


def keys(text: str) -> list[str]:
    """Return the keys of the numbers in a text."""
    return [match["key"] for match in _NUMBER.finditer(text)]


# ------------------------------------------------------------------------------
# Numbers without a key.


class Bare(NamedTuple):
    """A number that looks measured and has no key: its line (from 1), and its text."""

    line: int
    text: str


_UNITS = (
    r"(?:%|percent|times|instructions?|pages|frames|entries|exits|points|rounds of|"
    r"(?:thousand|million)\b|[mµn]s\b|s\b|seconds?\b|[KMGT]iB\b|MB\b|GB\b)"
)
_DIGITS = r"\d[\d,]*(?:\.\d+)?"
# With a unit, or of more than three digits, or a fraction.
_MEASURED = re.compile(
    rf"(?<![\w.,/^-])(?:{_DIGITS}(?= ?{_UNITS})|\d{{1,3}}(?:,\d{{3}})++|\d+\.\d++(?!\.?\w))"
    "(?!<!--n:)"
)
_WORDS = "two|three|four|five|six|seven|eight|nine|ten|twenty|thirty|fifty|a hundred"
# The same in words. "Half of the windows" may be a definition; "half the cost" is a result.
_WORDED = re.compile(
    rf"\b(?:(?:about |nearly |almost )?(?:(?:{_WORDS}|several|many) times|twice|half) "
    r"(?:as|the (?:time|cost|price|error|memory|size)|faster|slower|more|less|cheaper)|"
    rf"(?:about|nearly|almost) (?:{_WORDS}|half|all|a (?:third|quarter|fifth|tenth))\b|"
    rf"(?:a few|several|{_WORDS}) (?:instructions|milliseconds|percent)|"
    r"(?:tens|hundreds|thousands) of (?:thousands|uses|pages)|"
    r"an order of magnitude|a fraction of (?:the|its))",
    re.IGNORECASE,
)
_RESULT = re.compile(
    rf"(?<![\w.,/^-])(?:{_DIGITS}(?= ?(?:%|percent|times as|x (?:slower|faster)))|"
    rf"(?:{_WORDS}|{_DIGITS}) times (?:as|faster|slower|more|less)|\d[\d,]* instructions|"
    r"(?:a|two|three) (?:third|quarter|fifth|tenth)s? of (?:its|the) (?:time|cost))"
)
_HIDDEN = re.compile(r"`[^`\n]*`|\]\([^)]*\)|\$[^$\n]+\$|<!--(?!n:).*?-->")
_FENCE = re.compile(r" {0,3}(`{3,}|:{3,})")


def markdown(path: Path) -> str:
    """Return the Markdown of a text: of a notebook, that of its cells."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of Markdown (from 1) that are neither code nor a generated table."""
    fence, made = False, False
    for place, line in enumerate(text.splitlines(), 1):
        fence ^= bool(_FENCE.match(line))
        made = not line.startswith("<!-- end -->") and (made or line.startswith("<!-- table: "))
        if not (fence or made or line.startswith(("    ", "\t"))):
            yield place, _HIDDEN.sub(" ", line)


def bare(text: str, plain: Sequence[str] = ()) -> list[Bare]:
    """Return the numbers of a text in Markdown that look measured and have no key.

    Parameters
    ----------
    text : str
    plain : sequence of str
        What is no measurement, as regular expressions: settings, sizes of structures, versions,
        numbers whose source stands beside them.
    """
    known = re.compile("|".join(f"(?:{one})" for one in plain) or "(?!)")
    found = []
    for place, line in prose(text):
        spans = [match.span() for match in known.finditer(line)]
        for match in (*_MEASURED.finditer(line), *_WORDED.finditer(line)):
            if not any(start <= match.start() < end for start, end in spans):
                found.append(Bare(place, line[max(match.start() - 30, 0) : match.end() + 20]))
    return found


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, and the line at which each begins."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False):
            yield node.body[0].lineno, ast.get_docstring(node, clean=False) or ""


def results(text: str, plain: Sequence[str] = ()) -> list[Bare]:
    """Return the numbers of a docstring that look like results: shares, factors, instructions.

    A docstring has formulas and settings. A result belongs into a text, which names its key.
    """
    known = re.compile("|".join(f"(?:{one})" for one in plain) or "(?!)")
    found = []
    for place, line in enumerate(text.splitlines()):
        line = re.sub(r"`[^`]*`", " ", line)
        spans = [match.span() for match in known.finditer(line)]
        found += [
            Bare(place, line[max(match.start() - 30, 0) : match.end() + 20])
            for match in _RESULT.finditer(line)
            if not any(start <= match.start() < end for start, end in spans)
        ]
    return found


def plain(path: Path) -> list[str]:
    """Return the exceptions of a text, which are not measurements: see `PLAIN`."""
    return excepted(path.relative_to(ROOT).as_posix())


def excepted(name: str) -> list[str]:
    """Return the regular expressions that `PLAIN` lists everywhere, and under a name."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(PLAIN.read_text())
    return [
        one for of in ("everywhere", name) for ones in listed.get(of, {}).values() for one in ones
    ]


def modules() -> list[Path]:
    """Return the modules whose docstrings have no results."""
    return sorted([*(ROOT / "pmlkit").rglob("*.py"), *(ROOT / "experiments").glob("*.py")])


def quoting(path: Path, plain: Sequence[str]) -> list[Bare]:
    """Return the results that a module's docstrings quote, which they should not."""
    return [
        Bare(line + found.line, found.text)
        for line, text in docstrings(path)
        for found in results(text, plain)
    ]


# ------------------------------------------------------------------------------
# The command.


def _write(path: Path) -> None:
    text = path.read_text()
    if (made := filled(text)) != text:
        path.write_text(made)
        print(f"{path.relative_to(ROOT)}: written anew")


def _problems() -> Iterator[str]:
    """Yield the problems of the texts: numbers out of date or without a key; unused exceptions."""
    for path in texts():
        name, text, plain_ones = path.relative_to(ROOT), markdown(path), plain(path)
        if filled(path.read_text()) != path.read_text():
            yield f"{name}: its numbers are out of date: python -m experiments.quoted"
        for found in bare(text, plain_ones):
            yield f"{name}:{found.line}: name its key, or list it in {PLAIN.name}: {found.text}"
    settings = excepted("docstrings")
    for path in modules():
        for found in quoting(path, settings):
            where = f"{path.relative_to(ROOT)}:{found.line}"
            yield f"{where}: quote results in a text, not in a docstring: {found.text}"
    listed = yaml.safe_load(PLAIN.read_text())
    for name in set(listed) - {"everywhere", "docstrings"}:
        lines = "\n".join(line for _, line in prose(markdown(ROOT / name)))
        for regex in (one for ones in listed[name].values() for one in ones):
            if not re.search(regex, lines, re.M):
                yield f"{PLAIN.name}: {name} has no {regex} any more"


def main(option: str = "") -> None:
    """Rewrite the texts; or check them, or list the keys."""
    if option == "--check":
        sys.exit("\n".join(_problems()) or 0)
    elif option == "--list":
        for group in GROUPS:
            for key, value in numbers(group).items():
                print(f"{group}.{key} {value}")
    elif option:
        sys.exit(f"{option}: give --check, --list, or nothing")
    else:
        for path in texts():
            _write(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
