# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: each layer of the package imports only what stands below it."""

import ast
from collections import defaultdict

import pytest
from tree import ROOT, tracked

# From the ground up. What stands in one line does not import from one another.
LAYERS = (
    ("lazy", "types"),
    ("errors",),
    ("files", "foreign", "signals", "units"),
    ("spool",),
    ("spool_reader", "xen"),
    ("trace",),
    ("recordings", "timeline"),
    ("kernels",),
    ("pagetables",),
    ("selection",),
    ("missratio", "workingset"),
    ("reads",),
    ("forecast", "interop", "sources"),
    ("period", "techniques"),
    ("compare",),
    ("figures",),
    ("batch", "doctor", "notebook"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PATHS = tracked("pmlkit/*.py", "pmlkit/*/*.py", "pmlkit/*/*/*.py")


def module_of(path):
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PATHS}


def imports(path):
    """Yield (module, names) of each import of pmlkit's: lazy ones and annotations' too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner, ()) if inner in MODULES else (node.module, (alias.name,))


def ours(path):
    return [(m, names) for m, names in imports(path) if m.partition(".")[0] == "pmlkit"]


def test_every_entry_has_a_layer():
    entries = {name.split(".")[1] for name in MODULES if name != "pmlkit"}
    assert entries == set(LEVEL)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_stands_below(module):
    if module == "pmlkit":
        return
    own = module.split(".")[1]
    for target, names in ours(MODULES[module]):
        if target == "pmlkit":
            assert names == ("__version__",), f"{module} imports {names} of the public face"
            continue
        entry = target.split(".")[1]
        assert entry == own or LEVEL[entry] < LEVEL[own], f"{module} imports {target}"


def test_no_modules_import_one_another_in_a_circle():
    graph = defaultdict(set)
    for module, path in MODULES.items():
        graph[module] = {target for target, _ in ours(path) if target in MODULES} - {module}
    left = dict(graph)
    while free := [m for m, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"circles among {sorted(left)}"
