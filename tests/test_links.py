# SPDX-License-Identifier: Apache-2.0
"""What the texts point to is there: files, headings, figures, commands and their options.

Links to other sites are held to their form only: whether they answer cannot be known offline.
"""

import importlib
import importlib.util
import re
import shlex
from functools import reduce
from urllib.parse import urlsplit

import click
import pytest
from tree import ROOT, tracked

from pmlkit.cli.app import cli
from pmlkit.figures import catalogue

LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(([^()\s]+)\)")
URL = re.compile(r"https?://[^\s)>\]\"'`,]+")
# A module, or something in one; a file or folder of the repository.
DOTTED = re.compile(r"`~?((?:pmlkit|experiments)(?:\.(?!h`)\w+)+)`")
PLACE = re.compile(
    r"`((?:data|docs|experiments|hypervisor-patches|notebooks|pmlkit|tests)/[\w./-]+)`"
)


TEXTS = tracked("*.md")
every_text = pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))


def prose(path):
    """Return a text without its blocks of code."""
    fenced = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4,}\S.*$", "", fenced, flags=re.MULTILINE)


def anchors(path):
    """Return the names that the headings of a text have as targets."""
    headings = re.findall(r"^#+ +(.*)$", path.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def figures():
    """Return the pictures that building the documentation makes."""
    spec = importlib.util.spec_from_file_location("docs_figures", ROOT / "docs" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = "".join(path.read_text() for path in (ROOT / "docs").glob("*.py"))
    return {*module.FIGURES, *re.findall(r'"([\w-]+)\.svg"', source)}


def test_there_are_texts():
    assert {"README.md", "index.md", "limits.md"} <= {path.name for path in TEXTS}


@every_text
def test_links_lead_somewhere(path):
    for target in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if there.parent == ROOT / "docs" / "_figures" / "gallery":  # the build fills it
            assert there.stem in catalogue.FIGURES, target
            continue
        if there.parent.name == "_figures":
            assert there.stem in figures(), target
            continue
        if there.parent == ROOT / "docs" / "notebooks":  # the build fills it
            assert there.stem == "index" or (ROOT / "notebooks" / there.name).exists(), target
            continue
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: no heading {target}"


@every_text
def test_addresses_of_other_sites_are_well_formed(path):
    for url in URL.findall(path.read_text()):
        parts = urlsplit(url.rstrip("."))
        assert re.fullmatch(r"[\w.-]+\.[a-z]{2,}(:\d+)?", parts.netloc), url
        assert not re.search(r"localhost|127\.0\.0\.1", parts.netloc), url


def commands(path):
    """Yield the words of each `pmlkit` command in a text's blocks of code."""
    text = path.read_text().replace("\\\n", " ")
    for line in re.findall(r"^(?: {4,}|)(pmlkit .*)$", text, re.MULTILINE):
        yield line, shlex.split(line, comments=True)[1:]


def resolve(words):
    """Return the command that words name, and the words that are left."""
    command, words = cli, list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    return command, words


@every_text
def test_commands_and_their_options_exist(path):
    for line, words in commands(path):
        command, left = resolve(words)
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        known |= {"--help", "-h", "--version"}
        for word in left:
            option = word.split("=")[0]
            if re.match(r"--?[a-z]", option):
                assert option in known, f"{path.name}: {line.strip()!r} has no {option}"


@every_text
def test_files_of_the_repository_that_commands_name_exist(path):
    for line, words in commands(path):
        for word in words:
            if re.match(r"(data|experiments|notebooks)/[\w./-]+$", word):
                assert (ROOT / word).exists(), f"{path.name}: {line.strip()!r}: no {word}"


def named(dotted):
    """Return what a dotted name is of: a module, or something in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[end:], module)
    raise AttributeError(dotted)


@every_text
def test_modules_and_files_that_a_text_names_exist(path):
    for dotted in DOTTED.findall(prose(path)):
        named(dotted)
    for place in PLACE.findall(prose(path)):
        there = (ROOT / place, path.parent / place)
        assert any(one.exists() for one in there), f"{path.name}: there is no {place}"


@pytest.mark.parametrize("dotted", ["pmlkit.nothing", "pmlkit.reads.draws.nothing"])
def test_a_name_that_does_not_exist_is_found(dotted):
    with pytest.raises(AttributeError):
        named(dotted)


@every_text
def test_targets_of_make_exist(path):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make ([a-z]+)", path.read_text(), re.MULTILINE):
        if path.parent == ROOT or "docs" in path.parts:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
