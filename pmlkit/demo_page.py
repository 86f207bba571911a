# SPDX-License-Identifier: Apache-2.0
"""The demo's page: every figure, table and executed notebook that a demo left in its folder.

It is made from the files alone. A figure is a PNG (which holds its caption) with what has the same
stem; a table is a CSV with a LaTeX file beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
from PIL import Image  # matplotlib saves its PNGs with it

import pmlkit
from pmlkit import views
from pmlkit.figures import FIGURES
from pmlkit.notebooks import notebooks_folder
from pmlkit.style_mpl import write_files
from pmlkit.tables import cell, is_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pmlkit.demo import Run
    from pmlkit.types import Json, PathLike


__all__ = ["write_notebook", "write_page"]

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = {"PDF": ".pdf", "SVG": ".svg", "CSV": ".csv", "Parquet": ".parquet", "LaTeX": ".tex"}
WIDE = 1.6  # an image this many times as wide as a column's takes two columns of the page
COLUMN_PIXELS = 1000


@dataclass(frozen=True)
class Shown:
    """A figure (`png` set) or a table (`columns` and `rows` set), and links to its files."""

    links: list[Any]
    caption: str
    png: str = ""
    wide: bool = False
    columns: list[Any] = ()  # type: ignore[assignment]
    rows: list[Any] = ()  # type: ignore[assignment]


def write_page(
    out: Path, runs: Sequence[Run], seconds: Mapping[Any, float], total_seconds: float
) -> Path:
    """Write ``index.html``; the executed notebooks are there, also as HTML.

    Parameters
    ----------
    out : pathlib.Path
        The demo's folder.
    runs : list of pmlkit.demo.Run
        What was run.
    seconds : dict of Run to float
        How long each took.
    total_seconds : float
        How long all of it took.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    pmlkit.errors.OutputError
        If the page cannot be written.
    """
    names = sorted({run.trace for run in runs}, key=[run.trace for run in runs].index)
    page = render(
        "demo.html.j2",
        traces=[_trace(out, name, runs, seconds) for name in names],
        notebooks=sorted({run.notebook for run in runs}),
        version=pmlkit.__version__,
        total_seconds=total_seconds,
    )
    return write_files(out, {"index.html": page})[0]


def render(template: str, **values: Any) -> bytes:
    """Fill one of the package's templates; return the bytes of the page."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(values).encode()


def write_notebook(out: Path, run: Run) -> None:
    """Write the executed notebook of a run as a page in the demo's style, with nothing of the net.

    Raises
    ------
    pmlkit.errors.OutputError
        If the page cannot be written.
    """
    ipynb = out / "notebooks" / f"{run.stem}.ipynb"
    notebook_page(ipynb, f"{run.notebook} on {run.name}", "the demo")


def notebook_page(ipynb: Path, title: str, back: str) -> None:
    """Write an executed notebook as HTML beside it; `back` names the page in the folder above."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(ipynb))  # type: ignore[no-untyped-call]
    page = render(
        "notebook.html.j2",
        title=title,
        back=back,
        ipynb=ipynb.name,
        body=body,
        highlight=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )
    write_files(ipynb.parent, {f"{ipynb.stem}.html": page})


def _trace(out: Path, trace: str, runs: Sequence[Run], seconds: Mapping[Any, float]) -> Json:
    mine = sorted((run for run in runs if run.trace == trace), key=lambda run: run.notebook)
    opened = views.load(trace)
    return {
        "name": mine[0].name,
        "facts": list(views.facts(opened).itertuples(index=False, name=None)),
        "groups": [group for run in mine if (group := _group(out, run))],
        "notebooks": {
            run.notebook: {
                "html": f"notebooks/{run.stem}.html",
                "ipynb": f"notebooks/{run.stem}.ipynb",
                "seconds": seconds[run],
            }
            for run in mine
        },
    }


def _group(out: Path, run: Run) -> Json | None:
    """Collect what one run wrote; None if it wrote nothing."""
    shown = gallery(out, out / "figures" / run.stem)
    return shown and {"title": _title(run.notebook), **shown}


def gallery(out: Path, folder: Path) -> dict[str, list[Shown]] | None:
    """Collect the figures and tables in a folder, for a page in `out`; None if there are none."""
    figures = [_figure(out, png) for png in sorted(folder.glob("*.png"), key=_place)]
    tables = [_table(out, tex) for tex in sorted(folder.glob("*.tex"))]
    return {"figures": figures, "tables": tables} if figures or tables else None


def _place(path: Path) -> tuple[int, str]:
    """Order figures as `FIGURES` does, and others after them by name."""
    known = list(FIGURES)
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)


def _title(notebook: str) -> str:
    """Return a notebook's own title, its first heading."""
    import nbformat

    source = nbformat.read(notebooks_folder() / f"{notebook}.ipynb", 4).cells[0].source  # type: ignore[no-untyped-call]
    return source.splitlines()[0].lstrip("# ")


def _figure(out: PathLike, png: Path) -> Shown:
    with Image.open(png) as image:
        caption, width = image.info.get("Description", ""), image.width
    return Shown(
        links=_links(out, png), png=_relative(out, png), caption=caption,
        wide=width > WIDE * COLUMN_PIXELS,
    )  # fmt: skip


def _table(out: Path, tex: Path) -> Shown:
    frame = pd.read_csv(tex.with_suffix(".csv"), keep_default_na=False)
    return Shown(
        links=_links(out, tex),
        caption=tex.read_text().splitlines()[0].lstrip("% "),
        columns=[(name, is_number(frame[name].dtype)) for name in frame],
        rows=[[cell(value) for value in row] for row in frame.itertuples(index=False)],
    )


def _links(out: PathLike, path: Path) -> list[tuple[str, str]]:
    """Link the files of `path`'s stem; the data of a figure's parts are called STEM-PART."""
    found = []
    for label, suffix in SUFFIXES.items():
        files = [path.with_suffix(suffix), *sorted(path.parent.glob(f"{path.stem}-*{suffix}"))]
        for file in filter(Path.exists, files):
            part = file.stem.removeprefix(path.stem).lstrip("-")
            found.append((f"{label} ({part})" if part else label, _relative(out, file)))
    return found


def _relative(out: PathLike, path: Path) -> str:
    return path.relative_to(out).as_posix()
