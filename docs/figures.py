# SPDX-License-Identifier: Apache-2.0
"""The figures of the concept pages: drawn anew at each build, from the bundled recordings."""

from pathlib import Path

import pmlkit
from pmlkit import figures, figures_reads

# Name of the file: (recording, figure of pmlkit.figures, its options).
FIGURES = {
    "working-set": ("redis", "window", {}),
    "pml-blind": ("rrww", "pml", {}),
    "surface": ("sqlite", "surface", {}),
    "heat": ("hotcold", "heat", {}),
    "miss-ratio": ("redis", "mrc", {}),
}


def make(folder):
    """Draw all as SVG into a folder; what is there is left as it is."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for name, (trace, kind, how) in FIGURES.items():
        if not (folder / f"{name}.svg").exists():
            figure = figures.draw(pmlkit.open(pmlkit.bundled(trace)), kind, columns=2, **how)
            figure.savefig(folder / f"{name}.svg")
    if not (folder / "reads.svg").exists():
        trace = pmlkit.open(pmlkit.bundled("rrww-lab"))
        figures_reads.mechanism(trace).savefig(folder / "reads.svg")
