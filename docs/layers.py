# SPDX-License-Identifier: Apache-2.0
"""The layers of the package, read from its imports: for a test and for a picture."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. Entries of one line do not import one another.
LAYERS = (
    ("lazy", "types"),
    ("errors",),
    ("files", "foreign", "progress", "signals", "units"),
    ("costs", "ftrace", "resampling", "shipping", "spool", "starter"),
    ("kvm", "spool_reader", "xen"),
    ("trace",),
    ("recordings", "timeline"),
    ("kernels",),
    ("pagetables",),
    ("selection",),
    ("several",),
    ("missratio", "workingset"),
    ("answers", "difference"),
    ("reads",),
    ("forecast", "interop"),
    ("sources",),
    ("period", "techniques"),
    ("compare", "law"),
    ("frontier",),
    ("figures",),
    ("batch", "corpus", "doctor", "notebook", "scoreboard"),
    ("cli",),
    ("__main__",),
)
LEVEL = {entry: level for level, entries in enumerate(LAYERS) for entry in entries}
GROUND = {entry for entries in LAYERS[:3] for entry in entries}  # all import it: no lines


def modules(paths=None):
    """Return the path of each module of the package, by its dotted name."""
    paths = (ROOT / "pmlkit").rglob("*.py") if paths is None else paths
    return {_name(path): path for path in sorted(paths)}


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, names):
    """Yield (module, imported names) of each import of pmlkit, also of lazy ones and annotations.

    `names` are those of all modules: ``from pmlkit.trace import audit`` imports a module.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [(f"{node.module}.{alias.name}", alias.name) for alias in node.names]
            found = [(i, ()) if i in names else (node.module, (name,)) for i, name in inner]
        else:
            continue
        yield from ((module, what) for module, what in found if module.split(".")[0] == "pmlkit")


def arrows(paths=None):
    """Return which entry of the package imports which others: {entry: set of entries}."""
    found = modules(paths)
    graph = {entry: set() for entry in LEVEL}
    for module, path in found.items():
        if module == "pmlkit":
            continue
        own = module.split(".")[1]
        targets = {target.split(".")[1] for target, _ in imports(path, found) if "." in target}
        graph[own] |= targets - {own}
    return graph


def direct(graph):
    """Leave out each arrow that a longer way of arrows implies."""
    beyond = {}
    for entry in sorted(graph, key=LEVEL.__getitem__):
        beyond[entry] = set().union(*({t} | beyond[t] for t in graph[entry]))
    return {
        entry: {t for t in targets if not any(t in beyond[other] for other in targets - {t})}
        for entry, targets in graph.items()
    }


def draw(path):
    """Draw the layers as SVG: a line joins an entry with an entry below that it imports.

    Lines that a longer way implies, and those to the ground, are left out.
    """
    from matplotlib.figure import Figure

    graph = direct({entry: targets - GROUND for entry, targets in arrows().items()})
    layers = [entries for entries in LAYERS if "__main__" not in entries]
    figure = Figure(figsize=(8, 0.62 * len(layers)))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(-0.6, len(layers) - 0.4))
    axes.axis("off")
    boxes = {}
    for level, entries in enumerate(layers):
        aside = 0.07 * (level % 3 - 1)  # so that lines pass beside the boxes between
        for number, entry in enumerate(entries):
            place = (number + 0.5) / len(entries) + aside, level
            frame = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.3"}
            how = {"ha": "center", "va": "center", "fontsize": 9, "bbox": frame, "zorder": 2}
            boxes[entry] = axes.text(*place, entry, **how)
    for entry, box in boxes.items():
        for target in sorted(graph[entry] & boxes.keys()):
            other = boxes[target]
            bend = 0 if LEVEL[entry] - LEVEL[target] == 1 else 0.15
            style = {"arrowstyle": "-", "color": "0.6", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
            style |= {"patchA": box.get_bbox_patch(), "patchB": other.get_bbox_patch()}
            style |= {"connectionstyle": f"arc3,rad={bend}"}
            axes.annotate("", other.get_position(), box.get_position(), arrowprops=style, zorder=1)
    figure.savefig(path, metadata={"Date": None})


def make(folder):
    """Draw what contributing.md shows."""
    Path(folder).mkdir(exist_ok=True)
    draw(Path(folder) / "layers.svg")
