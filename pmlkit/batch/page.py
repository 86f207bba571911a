# SPDX-License-Identifier: Apache-2.0
"""The page of an experiment, ``index.html``: its runs, their figures and tables, and failures.

It is created from the files alone, and shows the present state of every run. A figure is a PNG
(which contains its caption) and the files of the same stem. A table is a CSV file with a LaTeX
file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from PIL import Image  # matplotlib saves its PNGs with it

from pmlkit import __version__
from pmlkit.figures import FIGURES
from pmlkit.figures.tables import cell, heads_of, is_number, read_rows
from pmlkit.files import write_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pmlkit.batch.expand import Job
    from pmlkit.batch.plan import Plan
    from pmlkit.types import Json, PathLike


__all__ = ["write_page"]

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = {
    "PDF": ".pdf",
    "SVG": ".svg",
    "CSV": ".csv",
    "Parquet": ".parquet",
    "LaTeX": ".tex",
    "caption": ".txt",
}
WIDE = 1.6  # an image this many times as wide as a column's takes two columns of the page
COLUMN_PIXELS = 1000
_LINK = re.compile(r'<a href="([\w.-]+\.ipynb)">(.*?)</a>')  # of a notebook to another one


@dataclass(frozen=True)
class Shown:
    """A figure (`png`, its `size` in pixels) or a table (`columns`, `rows`), and its files."""

    links: Sequence[tuple[str, str]]
    caption: str
    png: str = ""
    size: tuple[int, int] = (0, 0)
    wide: bool = False
    columns: Sequence[tuple[str, bool]] = ()
    rows: Sequence[Sequence[str]] = ()


def write_page(page: Path, plan: Plan, records: Mapping[str, Json | None]) -> None:
    """Write the page, and HTML of executed notebooks that have none.

    Parameters
    ----------
    page : Path
        ``index.html`` in the experiment's folder.
    plan : pmlkit.batch.runner.Plan
    records : dict of str to dict or None
        By id.

    Raises
    ------
    pmlkit.errors.OutputError
        If it cannot be written.
    """
    text = _render(
        "batch.html.j2",
        title=plan.experiment.title,
        about=plan.experiment.about,
        command=plan.experiment.command,
        has_results=(plan.folder / "results.parquet").exists(),
        runs=[_run(plan, job, records[job.id]) for job in plan.jobs],
        version=__version__,
    )
    write_files(page.parent, {page.name: text})


def _run(plan: Plan, job: Job, record: Json | None) -> Json:
    folder = plan.folder / job.id
    notebook = folder / f"{job.notebook}.ipynb"
    summary = {
        "id": job.id,
        "label": job.label,
        "title": _title(job),
        "recordings": ", ".join(trace.name for trace in job.traces) or "all runs",
        "notebook": job.notebook,
        "parameters": " ".join(job.words[1 + len(job.traces) :]),
        "status": "not run yet",
        "seconds": None,
    }
    if record is None:
        return summary
    if notebook.exists() and not notebook.with_suffix(".html").exists():
        _notebook_page(notebook, job.label, plan.experiment.title)
    return summary | {
        "status": record["status"],
        "seconds": record["seconds"],
        "error": record["error"],
        "files": [
            (label, f"{job.id}/{path.name}")
            for label, path in (
                ("read", notebook.with_suffix(".html")),
                (".ipynb", notebook),
                ("log", notebook.with_suffix(".log")),
                ("run.json", folder / "run.json"),
            )
            if path.exists()
        ],
        "group": _gallery(plan.folder, folder),
    }


def _title(job: Job) -> str:
    """Return the notebook's own title, its first heading."""
    texts = (c["source"] for c in job.document["cells"] if c["cell_type"] == "markdown")
    return "".join(next(texts, "")).partition("\n")[0].lstrip("# ")


def _render(template: str, **values: object) -> bytes:
    """Fill one of the package's templates; return the bytes of the page."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(values).encode()


def _notebook_page(ipynb: Path, title: str, back: str) -> None:
    """Write an executed notebook as HTML next to it; `back` names the page in the parent folder."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(ipynb))  # type: ignore[no-untyped-call]
    body = _LINK.sub(lambda link: link[0] if (ipynb.parent / link[1]).exists() else link[2], body)
    page = _render(
        "notebook.html.j2",
        title=title,
        back=back,
        ipynb=ipynb.name,
        body=body,
        highlight=HtmlFormatter(style="default").get_style_defs(".highlight"),
        highlight_dark=HtmlFormatter(style="native").get_style_defs(".highlight"),
    )
    write_files(ipynb.parent, {f"{ipynb.stem}.html": page})


def _gallery(out: Path, folder: Path) -> dict[str, list[Shown]] | None:
    """Collect the figures and tables in a folder, for a page in `out`; None if there are none."""
    figures = [_figure(out, png) for png in sorted(folder.glob("*.png"), key=_place)]
    tables = [_table(out, tex) for tex in sorted(folder.glob("*.tex"))]
    return {"figures": figures, "tables": tables} if figures or tables else None


def _place(path: Path) -> tuple[int, str]:
    """Order figures as `FIGURES` does, and others after them by name."""
    known = list(FIGURES)
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)


def _figure(out: PathLike, png: Path) -> Shown:
    with Image.open(png) as image:
        caption, size = image.info.get("Description", ""), image.size
    return Shown(
        links=_links(out, png), png=_relative(out, png), caption=caption, size=size,
        wide=size[0] > WIDE * COLUMN_PIXELS,
    )  # fmt: skip


def _table(out: Path, tex: Path) -> Shown:
    frame = read_rows(tex.with_suffix(".csv"))
    text = tex.read_text()
    return Shown(
        links=_links(out, tex),
        caption=text.splitlines()[0].lstrip("% "),
        columns=list(zip(heads_of(text), map(is_number, frame.dtypes), strict=True)),
        rows=[[cell(value) for value in row] for row in frame.itertuples(index=False)],
    )


def _links(out: PathLike, path: Path) -> list[tuple[str, str]]:
    """Link the files of `path`'s stem; the data of a figure's parts are called STEM-PART."""
    links = []
    for label, suffix in SUFFIXES.items():
        files = [path.with_suffix(suffix), *sorted(path.parent.glob(f"{path.stem}-*{suffix}"))]
        for file in filter(Path.exists, files):
            part = file.stem.removeprefix(path.stem).lstrip("-")
            links.append((f"{label} ({part})" if part else label, _relative(out, file)))
    return links


def _relative(out: PathLike, path: Path) -> str:
    return path.relative_to(out).as_posix()
