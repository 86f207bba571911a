# SPDX-License-Identifier: Apache-2.0
"""The package is a table of contents: every name resolves, and importing it costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_trace
from tree import tracked

import pmlkit
from pmlkit.errors import TraceNotFound

FOLDER = Path(pmlkit.__file__).parent


@pytest.mark.parametrize("name", pmlkit.__all__)
def test_every_public_name_resolves_and_explains_itself(name):
    assert getattr(pmlkit, name).__doc__.strip()
    assert name in dir(pmlkit)


def test_every_error_is_public():
    from pmlkit import errors

    family = {n for n in errors.__all__ if isinstance(getattr(errors, n), type)}
    assert family <= set(pmlkit.__all__)


def test_every_module_is_in_the_table_of_contents():
    contents = pmlkit.__doc__.partition("What there is")[2].replace(",", " ").split()
    modules = {path.stem for path in tracked("pmlkit/*.py") if path.parent == FOLDER} - {
        "__init__",
        "__main__",
    }
    assert modules - set(contents) == set()


def test_every_module_named_there_exists():
    for name in pmlkit._MODULES:
        assert (FOLDER / f"{name}.py").exists() or (FOLDER / name / "__init__.py").exists(), name


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
