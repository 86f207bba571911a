# SPDX-License-Identifier: Apache-2.0
"""The package is a table of contents: every name resolves, and importing it costs nothing."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_trace
from tree import tracked

import pmlkit
from pmlkit.errors import TraceNotFound, UsageError

FOLDER = Path(pmlkit.__file__).parent


@pytest.mark.parametrize("name", pmlkit.__all__)
def test_every_public_name_resolves_and_explains_itself(name):
    assert getattr(pmlkit, name).__doc__.strip()
    assert name in dir(pmlkit)


@pytest.mark.parametrize("name", sorted(set(pmlkit._MODULES) - {"errors", "recordings"}))
def test_a_module_that_is_called_names_the_function_to_call(name):
    module = getattr(pmlkit, name)
    with pytest.raises(UsageError, match="is a module, not a function: call ") as caught:
        module("hotcold")
    home, _, function = caught.value.hint.removeprefix("call ").rpartition(".")
    assert home.startswith(module.__name__)
    assert inspect.isfunction(getattr(importlib.import_module(home), function))


def test_the_face_is_thin_and_explains_each_name():
    assert len(pmlkit.__all__) <= 20
    words = pmlkit.__doc__.partition("Names for notebooks")[2].replace(",", " ").split()
    assert set(pmlkit.__all__) <= set(words)


def test_every_entry_of_the_folder_is_explained():
    words = pmlkit.__doc__.partition("All modules")[2].replace(",", " ").split()
    entries = {path.relative_to(FOLDER).parts[0] for path in tracked("pmlkit/*.py")}
    assert {entry.removesuffix(".py") for entry in entries} - {"__init__", "__main__"} <= set(words)


def test_a_trace_goes_by_its_name_or_its_path(tmp_path, monkeypatch):
    assert pmlkit.open("hotcold").meta == pmlkit.open(pmlkit.bundled("hotcold")).meta
    monkeypatch.chdir(tmp_path)
    make_trace(tmp_path / "hotcold", rounds=1, pml=False)
    assert pmlkit.open("hotcold").n_rounds == 1  # what is here comes first
    with pytest.raises(TraceNotFound, match="hotcodl"):
        pmlkit.open("hotcodl")


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = pmlkit.nope


def test_importing_costs_nothing():
    heavy = "{'numpy', 'pandas', 'pyarrow', 'matplotlib'}"
    code = f"import sys, pmlkit, pmlkit.errors; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_bundled_traces(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    assert pmlkit.bundled() == []
    with pytest.raises(TraceNotFound, match="PMLKIT_DATA"):
        pmlkit.bundled("rrww")
    for name in ("rrww", "hotcold"):
        make_trace(tmp_path / f"{name}.trace", rounds=1, pml=False)
    (tmp_path / "file.trace").write_text("")
    assert pmlkit.bundled() == ["hotcold", "rrww"]
    assert pmlkit.bundled("rrww") == pmlkit.bundled("rrww.trace") == tmp_path / "rrww.trace"
    assert pmlkit.open(pmlkit.bundled("rrww")).n_rounds == 1
    with pytest.raises(TraceNotFound, match="hotcold, rrww"):
        pmlkit.bundled("nope")


def test_bundled_traces_are_those_of_the_checkout(monkeypatch):
    monkeypatch.delenv("PMLKIT_DATA", raising=False)
    ours = {path.parent.stem for path in tracked("data/*.trace/trace.json")}
    assert len(ours) > 5 and ours <= set(pmlkit.bundled())
