# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: each layer of the package imports only from those below it."""

import ast
import importlib.util
import re
from collections import defaultdict

import pytest
from tree import ROOT, tracked

_SPEC = importlib.util.spec_from_file_location("docs_layers", ROOT / "docs" / "layers.py")
layers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(layers)

MODULES = layers.modules(tracked("pmlkit/*.py", "pmlkit/*/*.py", "pmlkit/*/*/*.py"))


def test_every_entry_has_a_layer():
    assert {name.split(".")[1] for name in MODULES if name != "pmlkit"} == set(layers.LEVEL)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module):
    if module == "pmlkit":
        return
    own = module.split(".")[1]
    for target, names in layers.imports(MODULES[module], MODULES):
        if target == "pmlkit":
            assert names == ("__version__",), f"{module} imports {names} of the public face"
            continue
        entry = target.split(".")[1]
        lower = layers.LEVEL[entry] < layers.LEVEL[own]
        assert entry == own or lower, f"{module} imports {target}"


def test_no_modules_import_one_another_in_a_circle():
    graph = defaultdict(set)
    for module, path in MODULES.items():
        targets = {target for target, _ in layers.imports(path, MODULES)}
        graph[module] = (targets & MODULES.keys()) - {module}
    left = dict(graph)
    while free := [m for m, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"circles among {sorted(left)}"


def private(path):
    """Yield the private names of other modules that a module uses."""
    tree, own = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "pmlkit":
            names = [alias.name for alias in node.names]
            own |= {name for name in names if f"{node.module}.{name}" in MODULES}
            yield from (name for name in names if re.match("_[^_]", name))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(of), name) if of in own and re.match("_[^_]", name):
                yield f"{of}.{name}"


def test_no_module_uses_a_private_name_of_another():
    used = {module: list(private(path)) for module, path in MODULES.items()}
    assert {module: names for module, names in used.items() if names} == {}


def test_each_private_name_of_a_module_is_used_in_it():
    unused = []
    for module, path in MODULES.items():
        text = path.read_text()
        for node in ast.parse(text).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            names = [getattr(one, "name", getattr(one, "id", "")) for one in targets]
            private = (name for name in names if re.match("_[^_]", name))
            unused += [f"{module}.{name}" for name in private if len(_uses(name, text)) < 2]
    assert not unused


def _uses(name, text):
    return re.findall(rf"\b{name}\b", text)


def test_what_a_longer_way_implies_is_not_drawn(monkeypatch):
    monkeypatch.setattr(layers, "LEVEL", {"a": 0, "b": 1, "c": 2})
    assert layers.direct({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == {
        "a": set(), "b": {"a"}, "c": {"b"},
    }  # fmt: skip


def test_the_picture_shows_every_entry(tmp_path):
    layers.draw(tmp_path / "layers.svg")
    words = (tmp_path / "layers.svg").read_text()
    assert all(f"<!-- {entry} -->" in words for entry in layers.LEVEL if entry != "__main__")
