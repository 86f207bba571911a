# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings run, and give what they say."""

import doctest
import importlib
import inspect
import pkgutil

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
