# SPDX-License-Identifier: Apache-2.0
"""Check the project's English: Markdown, notebooks, `--help` texts, captions.

The rules are `docs/styles/pmlkit/*.yml`, in the format of Vale (https://vale.sh). Vale itself is a
binary that no package index of Python or Debian carries, so this module reads its rules: the kinds
`existence`, `substitution`, `occurrence` and `conditional`. `docs/prose.yaml` lists the texts that
are not covered yet.

    python -m docs.prose                    # every text that is covered
    python -m docs.prose docs/index.md      # these, covered or not; "help" and "captions" too
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
STYLES = ROOT / "docs" / "styles" / "pmlkit"
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
_SENTENCE = re.compile(
    r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_]*(?:[A-Z`\d]|\([a-z]\) |pmlkit\b|redis\b|sqlite\b))"
)
# A point after these ends no sentence.
_SHORT = re.compile(r"\b(?:e\.g|i\.e|cf|vs|etc|al|Fig|Sec|No|ca|approx)\.[\"')\]*_]*$")
# What a help text calls an argument, as `TRACE` or `NAME.csv`.
_METAVAR = re.compile(
    r"(?<!`)\b[A-Z]{2,}(?:[.-][a-z]+)|\b(?:TRACE|DOMAIN|NAME|FOLDER|HOST|DIR|GUEST|FILE)s?\b"
)
_PARSER = MarkdownIt("commonmark").enable("table")
# A caption has at least as many words; shorter texts in a figure are labels.
_CAPTION_WORDS = 6
# What is no caption: HTML, and the description of a parameter for several docstrings.
_OTHER = re.compile(r"\s*(?:<|\w+(?:, \w+)* : )")


class Block(NamedTuple):
    """A paragraph, heading or cell: where it begins, and its text with code as one word."""

    where: str
    line: int  # 0 where the place has no lines
    text: str


class Problem(NamedTuple):
    """A breach of a rule."""

    where: str
    line: int
    level: str
    rule: str
    message: str
    sentence: str

    def __str__(self):
        place = f"{self.where}:{self.line}" if self.line else self.where
        quoted = " ".join(self.sentence.split())
        return f"{place}: {self.level}: {self.message} [{self.rule}]\n    {quoted}"


# ------------------------------------------------------------------------------
# Rules.


@dataclass
class Rule:
    """A rule of Vale's: `hits` yields (place in the text, message) for each breach."""

    name: str
    how: dict
    patterns: list = field(default_factory=list)

    def __post_init__(self):
        flags = re.IGNORECASE if self.how.get("ignorecase") else 0
        edge = "" if self.how.get("nonword") else r"\b"
        if self.how["extends"] == "substitution":
            pairs = self.how["swap"].items()
        else:
            pairs = ((token, None) for token in self.how.get("tokens", ()))
        for token, better in pairs:
            self.patterns.append((re.compile(f"{edge}(?:{token}){edge}", flags), better))

    @property
    def of_sentence(self):
        """Whether the rule looks at each sentence by itself."""
        return self.how.get("scope") == "sentence"

    def hits(self, text, defined=()):
        """Yield (start, message) of each breach in a text."""
        kind, message = self.how["extends"], self.how["message"]
        if kind == "occurrence":
            if len(re.findall(self.how["token"], text)) > self.how["max"]:
                yield 0, message
        elif kind == "conditional":
            known = {*self.how.get("exceptions", ()), *defined}
            for match in re.finditer(self.how["first"], text):
                if match[1] not in known:
                    yield match.start(), message.replace("%s", match[1])
        else:
            for pattern, better in self.patterns:
                for match in pattern.finditer(text):
                    words = [better, match[0]] if better else [match[0]]
                    filled = message
                    for word in words:
                        filled = filled.replace("%s", word, 1)
                    yield match.start(), filled


def rules(folder=STYLES):
    """Return the rules of a folder, in the order of their names."""
    return [
        Rule(path.stem, yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yml"))
    ]


# ------------------------------------------------------------------------------
# Texts.


def blocks(markdown, where):
    """Yield the blocks of a Markdown text."""
    # A directive's line is no prose. It stays as an empty line: lines keep their numbers.
    markdown = re.sub(r"(?m)^ *:::.*$|^\([\w-]+\)=$", "", markdown)
    markdown = re.sub(r"(?m)^<!-- table: [\s\S]*?^<!-- end -->$", _blank, markdown)
    markdown = re.sub(r"(?m)^\$\$[\s\S]*?\$\$$|^---\n[\s\S]*?\n---$", _blank, markdown)
    for token in _PARSER.parse(markdown):
        if token.type == "inline":
            text = "".join(_words(token.children))
            yield Block(where, token.map[0] + 1, re.sub(r"\$[^$]+\$", "`math`", text))
        elif token.type == "fence" and token.info.startswith("{glossary}"):
            # A term, and its indented definition: each is a paragraph, at its line.
            content = re.sub(r"(?m)^(?=\S)", "- ", token.content)
            for block in blocks(content, where):
                yield block._replace(line=block.line + token.map[0] + 1)


def _blank(match):
    return re.sub(r".+", "", match[0])


def _words(children):
    """Yield the texts of inline tokens: code is a word, a break is a line's end."""
    role = False
    for child in children:
        if child.type == "text":
            role = bool(re.search(r"\{[a-z:]+\}$", child.content))
            yield re.sub(r"\{[a-z:]+\}$", "", child.content)
        elif child.type == "code_inline":
            yield re.sub(r"<.*>$", "", child.content) if role else "`code`"
        elif child.type in ("softbreak", "hardbreak"):
            yield "\n"


def of_notebook(path, where):
    """Yield the blocks of a notebook's Markdown cells."""
    for number, cell in enumerate(json.loads(path.read_text())["cells"], 1):
        if cell["cell_type"] == "markdown":
            yield from blocks("".join(cell["source"]), f"{where} cell {number}")


def of_help():
    """Yield the blocks of every command's help."""
    from click import Context, Group

    from pmlkit.cli.app import cli

    def walk(command, name, parent=None):
        context = Context(command, info_name=name, parent=parent)
        texts = [command.help, *(getattr(param, "help", None) for param in command.params)]
        labels = [None, *(param.opts[0] for param in command.params)]
        for label, text in zip(labels, texts, strict=True):
            if text:
                text = re.sub(r"\x08\n(.+\n?)+", "", text)  # set as it is: a table or commands
                text = re.sub(_METAVAR, r"`\g<0>`", text)
                yield from blocks(text, f"help: {name} {label or ''}".strip())
        if isinstance(command, Group):
            for child in command.list_commands(context):
                yield from walk(command.get_command(context, child), f"{name} {child}", context)

    for block in walk(cli, "pmlkit"):
        yield block._replace(line=0)


def of_captions(folder=ROOT / "pmlkit" / "figures"):
    """Yield the sentences in the modules of figures, and the first lines of their docstrings."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        inner = {
            id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield Block(path.relative_to(ROOT).as_posix(), node.lineno, summary)
            if id(node) in docs | inner:
                continue
            text = _constant(node)
            if len(text.split()) >= _CAPTION_WORDS and not _OTHER.match(text):
                yield Block(path.relative_to(ROOT).as_posix(), node.lineno, text)


def _constant(node):
    """Return a string of the code, with `code` where an f-string puts a value; else nothing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _constant(part) if isinstance(part, ast.Constant) else "`code`" for part in node.values
        )
    return ""


def read(place):
    """Return the blocks of a place: a file's path from the root, `help` or `captions`."""
    if place == "help":
        return list(of_help())
    if place == "captions":
        return list(of_captions())
    path = ROOT / place
    return list(
        of_notebook(path, place) if path.suffix == ".ipynb" else blocks(path.read_text(), place)
    )


def places():
    """Return all places with prose that the project tracks."""
    named = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.ipynb"]
    done = subprocess.run(["git", *named], cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        *(name for name in done.stdout.split("\n") if name and (ROOT / name).exists()),
        "help",
        "captions",
    ]


def covered():
    """Return the places that must be free of errors."""
    listed = yaml.safe_load((ROOT / "docs" / "prose.yaml").read_text())["not_yet"] or ()
    return [place for place in places() if not any(fnmatch(place, one) for one in listed)]


# ------------------------------------------------------------------------------
# The check.


def sentences(text):
    """Yield (start, sentence) of a text."""
    start = 0
    for match in _SENTENCE.finditer(text):
        if not _SHORT.search(text[start : match.start()]):
            yield start, text[start : match.start()]
            start = match.end()
    yield start, text[start:]


def terms(path=GLOSSARY):
    """Return the abbreviations that the glossary defines."""
    if not path.exists():
        return set()
    return set(re.findall(r"\b[A-Z]{3,5}\b", "\n".join(_defined(path.read_text()))))


def _defined(glossary):
    lines = glossary.splitlines()
    return (line for line, after in zip(lines, lines[1:], strict=False) if after.startswith("  "))


def check(found, known=None, of=None):
    """Yield the problems of blocks, in their order."""
    of = rules() if of is None else of
    terms_ = terms() if known is None else known
    whole = "\n".join(block.text for block in found)
    for block in found:
        for rule in of:
            defined = terms_
            if rule.how["extends"] == "conditional":
                defined = terms_ | set(re.findall(rule.how["second"], whole))
            parts = list(sentences(block.text))
            for start, text in parts if rule.of_sentence else [(0, block.text)]:
                for place, message in rule.hits(text, defined):
                    at = start + place
                    line = block.line and block.line + block.text[:at].count("\n")
                    shown = next(one for begin, one in reversed(parts) if begin <= at)
                    yield Problem(block.where, line, rule.how["level"], rule.name, message, shown)


def main(arguments=None):
    """Print the problems of the texts; end with 1 if one is an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "places", nargs="*", help="files, `help`, `captions`; all that are covered if none"
    )
    parser.add_argument("--errors", action="store_true", help="do not show warnings")
    told = parser.parse_args(arguments)
    found = [problem for place in told.places or covered() for problem in check(read(place))]
    errors = [problem for problem in found if problem.level == "error"]
    for problem in errors if told.errors else found:
        print(problem)
    if found:
        print(f"{len(errors)} errors, {len(found) - len(errors)} warnings")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
