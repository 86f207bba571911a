# SPDX-License-Identifier: Apache-2.0
"""Check the project's English: Markdown, notebooks, experiments, `--help`, captions, messages.

The rules are `docs/styles/pmlkit/*.yml`, in the format of Vale (https://vale.sh). Vale itself is a
binary that no package index of Python or Debian carries, so this module reads its rules: the kinds
`existence`, `substitution`, `occurrence` and `conditional`. `docs/prose.yaml` lists the texts that
are not covered yet.

    python -m docs.prose                    # every text that is covered
    python -m docs.prose docs/index.md      # these, covered or not; "help", "captions", "messages"
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
# A caption or message has at least as many words; shorter texts are labels.
_LEAST_WORDS = 6
# What is neither: HTML, a parameter's description for several docstrings, a regular expression.
_OTHER = re.compile(r"\s*(?:<|\w+(?:, \w+)* : )|.*\(\?P<")


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
        where, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield Block(where, node.lineno, (ast.get_docstring(node) or "").partition("\n")[0])
        for line, text in _strings(tree):
            yield Block(where, line, text)


def of_messages(folder=ROOT / "pmlkit"):
    """Yield the sentences that other modules print: errors, notes, answers."""
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name != "figures":
            for line, text in _strings(ast.parse(path.read_text())):
                if "\n" not in text:  # else a script or a file
                    # In capitals are arguments, constants and conferences, not abbreviations.
                    text = re.sub(r"[A-Z]{3,}", lambda match: match[0].capitalize(), text)
                    for block in blocks(text, path.relative_to(ROOT).as_posix()):
                        yield block._replace(line=line)


def _strings(tree):
    """Yield the line and the text of the longer strings of a module, without docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    inner = {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values}
    for node in ast.walk(tree):
        text = "" if id(node) in docs | inner else _constant(node)
        if len(text.split()) >= _LEAST_WORDS and not _OTHER.match(text):
            yield node.lineno, text


def _constant(node):
    """Return a string of the code, with `code` where an f-string puts a value; else nothing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _constant(part) if isinstance(part, ast.Constant) else "`code`" for part in node.values
        )
    return ""


def of_experiment(path, where):
    """Yield the title, the description and the captions of an experiment."""

    def walk(value):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(part, dict | list):
                yield from walk(part)
            elif name in ("title", "about", "caption"):
                yield from blocks(part, where)

    for block in walk(yaml.safe_load(path.read_text())):
        yield block._replace(line=0)


_CODE = {"help": of_help, "captions": of_captions, "messages": of_messages}
_FILES = {".ipynb": of_notebook, ".yaml": of_experiment}


def read(place):
    """Return the blocks of a place: a file's path from the root, or a name in `_CODE`."""
    if place in _CODE:
        return list(_CODE[place]())
    path = ROOT / place
    if path.suffix in _FILES:
        return list(_FILES[path.suffix](path, place))
    return list(blocks(path.read_text(), place))


def places():
    """Return all places with prose that the project tracks."""
    texts = "*.md", "*.ipynb", ":(glob)experiments/*.yaml"
    named = ["ls-files", "--cached", "--others", "--exclude-standard", *texts]
    done = subprocess.run(["git", *named], cwd=ROOT, capture_output=True, text=True, check=True)
    return [*(name for name in done.stdout.split("\n") if name and (ROOT / name).exists()), *_CODE]


def covered():
    """Return the places that must be free of problems."""
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
    """Print the problems of the texts; end with 1 if there is one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "places", nargs="*", help="files, or " + ", ".join(_CODE) + "; all that are covered if none"
    )
    told = parser.parse_args(arguments)
    found = [problem for place in told.places or covered() for problem in check(read(place))]
    for problem in found:
        print(problem)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
