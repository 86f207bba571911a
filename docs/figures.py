# SPDX-License-Identifier: Apache-2.0
"""The figures of the concept pages: drawn anew at each build, from the bundled recordings."""

import hashlib
import shutil
from pathlib import Path

import pandas as pd

import pmlkit
from pmlkit import compare, figures
from pmlkit.batch.job import source_digest
from pmlkit.figures import compare as figures_compare
from pmlkit.figures import forecast as forecast_figures
from pmlkit.figures import reads as figures_reads
from pmlkit.forecast import study as forecast_study
from pmlkit.forecast import verdict
from pmlkit.notebook import reads_tables
from pmlkit.recordings import located

# Name of the file: (recording, figure of pmlkit.figures, its options).
FIGURES = {
    "working-set": ("redis", "window", {}),
    "pml-blind": ("rrww", "pml", {}),
    "surface": ("sqlite", "surface", {}),
    "heat": ("hotcold", "heat", {}),
    "miss-ratio": ("redis", "mrc", {}),
    "drift": ("redis", "drift", {}),
}
# Name of the file, the figure, and the tables of data/ that it draws.
MEASURED = (
    ("caps.svg", figures.capped_guests, ("caps/caps.csv",)),
    (
        "clock-sensitivity.svg",
        figures.clock_sensitivity,
        ("clock-sensitivity/sizes.csv", "clock-sensitivity/ranks.csv"),
    ),
)
TECHNIQUES = "pml,pml-page-tables,prl,vmware,idle-pages,intermittent"


def refresh(folder):
    """Empty the folder if the package, its data, or these modules have changed."""
    folder, digest = Path(folder), hashlib.blake2b(source_digest().encode(), digest_size=16)
    manifest = Path(pmlkit.bundled("redis")).parent / "MANIFEST"
    for path in [manifest, *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    mark = folder / "source"
    if not mark.exists() or mark.read_text() != digest.hexdigest():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        mark.write_text(digest.hexdigest())


def make(folder):
    """Draw all as SVG into a folder; what is there is left as it is."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for name, (trace, kind, how) in FIGURES.items():
        if not (folder / f"{name}.svg").exists():
            figure = figures.draw(pmlkit.open(pmlkit.bundled(trace)), kind, columns=2, **how)
            _save(figure, folder / f"{name}.svg")
    if not (folder / "reads.svg").exists():
        trace = pmlkit.open(pmlkit.bundled("rrww-lab"))
        _save(figures_reads.mechanism(trace), folder / "reads.svg")
    if not (folder / "host-sees.svg").exists():
        _save(figures.host_sees(reads_tables.host_sees()), folder / "host-sees.svg")
    for name, function, tables in MEASURED:
        if not (folder / name).exists():
            _save(function(*(pd.read_csv(located(of, "data")) for of in tables)), folder / name)
    if not (folder / "techniques.svg").exists():
        found = compare.compare(["redis"], compare.plan("1s", TECHNIQUES, seeds=2))
        _save(figures_compare.over_time(found, found.traces[0]), folder / "techniques.svg")
    if not (folder / "forecast-idle.svg").exists():
        found = verdict.load()
        _save(forecast_figures.use(found.means, found.chosen), folder / "forecast-idle.svg")
        _save(forecast_figures.runs(found.judged, found.chosen), folder / "forecast-runs.svg")
    if not (folder / "law.svg").exists():
        points = pd.read_csv(pmlkit.bundled("redis").parent / "law" / "points.csv")
        of_recorder = points[~points["recording"].str.endswith("-lab")]
        _save(figures.predicted_against_measured(of_recorder), folder / "law.svg")
    if not (folder / "forecast-limits.svg").exists():
        recorded = forecast_study.collect(composed=False)
        _save(forecast_figures.limits(recorded.limits, 2), folder / "forecast-limits.svg")


def _save(figure, path):
    """Save it in the house style, which is that of saving and not only of drawing."""
    figures.save(figure, path.with_suffix(""))
