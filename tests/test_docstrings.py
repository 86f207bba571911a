# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings run, and give what they say."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import pmlkit

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Run in dom0 with what a Xen host has, or call libraries that are not here.
ELSEWHERE = ("pmlkit.__main__", "pmlkit.xen.")
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(pmlkit.__path__, "pmlkit.")
    if not name.startswith(ELSEWHERE)
]
# What a reader of the reference looks up first has an example that is run.
SHOWN = [
    "pmlkit.bundled",
    "pmlkit.trace.reader.Trace.open",
    "pmlkit.workingset.estimate",
    "pmlkit.workingset.curve",
    "pmlkit.missratio.curves.exact",
    "pmlkit.missratio.curves.of_trace",
    "pmlkit.missratio.sampled.shards",
    "pmlkit.compare.compare",
    "pmlkit.units.parse_duration_ns",
    "pmlkit.figures.tables.latex",
]


def examples(name):
    """Return the examples of a module that are run: those of all its docstrings."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(name), name)
    for test in found:
        test.examples = [e for e in test.examples if not e.options.get(doctest.SKIP)]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", ["pmlkit", *MODULES])
def test_the_examples_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example that writes does not write here
    for test in examples(name):
        runner = doctest.DocTestRunner(optionflags=OPTIONS)
        said = []
        runner.run(test, out=said.append)
        assert runner.failures == 0, "".join(said)


def described(doc, section):
    """Return the names that a section of a docstring describes."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=\n\n\S[^\n]*\n--|\Z)", doc, re.S | re.M)
    heads = re.findall(r"^(\w[\w, *]*?)(?: :.*)?$", found[1] if found else "", re.M)
    return {name.strip(" *") for head in heads for name in head.split(",")}


def owned(module):
    """Yield the functions and classes of a module, and the functions of these classes."""
    for one in vars(module).values():
        is_one = inspect.isfunction(one) or inspect.isclass(one)
        if is_one and one.__module__ == module.__name__:
            yield one
            if inspect.isclass(one):
                yield from filter(inspect.isfunction, vars(one).values())


def names_of(one):
    """Return the names that a docstring may describe; None if there may be any others."""
    if not inspect.isclass(one):
        parameters = inspect.signature(one).parameters
        kinds = {parameter.kind for parameter in parameters.values()}
        return None if inspect.Parameter.VAR_KEYWORD in kinds else set(parameters)
    own = [cls for cls in one.__mro__ if cls.__module__.startswith("pmlkit")]
    names = {name for cls in own for name in inspect.get_annotations(cls)} | set(dir(one))
    for cls in own:
        names |= set(re.findall(r"self\.(\w+)", inspect.getsource(cls)))
        if "__init__" in vars(cls):
            names |= set(inspect.signature(cls.__init__).parameters)
    return names


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_describe_what_there_is(name):
    for one in owned(importlib.import_module(name)):
        known, doc = names_of(one), inspect.getdoc(one) or ""
        sections = ("Parameters", "Attributes") if inspect.isclass(one) else ("Parameters",)
        wrong = set().union(*(described(doc, section) for section in sections)) - (known or set())
        assert known is None or not wrong, f"{one.__qualname__} has no {sorted(wrong)}"
        assert not re.search(r"[.:]\n-{3,}$", doc, re.M), f"{one.__qualname__}: no such section"


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_looked_up_first_has_an_example_that_is_run(name):
    module = name
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
    for part in name.removeprefix(module).strip(".").split("."):
        found = getattr(found, part) if part else found
    shown = doctest.DocTestParser().get_examples(inspect.getdoc(found) or "")
    assert any(not example.options.get(doctest.SKIP) for example in shown)
