# SPDX-License-Identifier: Apache-2.0
"""The style of pmlkit's figures, and saving them.

Figures are made without pyplot, so there is no global state. A `Figure` is drawn by its own Agg
canvas, shows itself in a notebook, and carries its data in `Figure.data`. Its width is that of one
or two columns of a paper; saving crops nothing. Files are the same bytes from run to run: they
contain no dates and no random identifiers.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import inspect
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as _Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pmlkit.errors import UsageError, encodable
from pmlkit.figures.notes import caption_html, links_html
from pmlkit.figures.size import Size, current, sized
from pmlkit.files import write_files
from pmlkit.recordings import opened
from pmlkit.selection import edges
from pmlkit.several import labelled
from pmlkit.units import check_path, check_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike
    from pmlkit.units import Window

    # Arguments of figures: a time of the trace, and a window T; None selects the default.
    Time = str | int | None
    Length = str | int | Window | None


__all__ = [
    "COLORS",
    "Figure",
    "Style",
    "finish",
    "new_figure",
    "pad",
    "paper_figure",
    "save",
    "styled",
    "write_files",
]

P = ParamSpec("P")
R = TypeVar("R")
# How something is drawn, as matplotlib's keyword arguments.
Style = dict[str, Any]

KINDS = ("pdf", "svg", "png")
_OTHER_KINDS = {"eps", "ps", "pgf", "jpg", "jpeg", "tif", "tiff", "webp", "gif", "bmp"}
PNG_DPI = 300
SCREEN_DPI = 200

# Okabe and Ito's palette: its colours stay apart for every common kind of colour blindness.
COLORS = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#6E6E6E",
}

RC = {
    # DejaVu Sans comes with matplotlib: the same figure on every machine.
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "pmlkit",
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
}


class Figure(_Figure):
    """A matplotlib figure that knows the data behind it and shows itself in a notebook.

    Attributes
    ----------
    data : dict of str to pandas.DataFrame
        The drawn data by part; `save` writes it next to the picture.
    caption : str
        What the figure shows and how to read it. A notebook shows it below the figure. `save`
        writes it to a text file, and into the metadata of the others.
    files : list of pathlib.Path
        What the last `save` of the figure has written.
    unnamed_phases : list of str
        Phases of the trace that are drawn without their names, for want of room.
    """

    data: Mapping[str, pd.DataFrame] = MappingProxyType({})
    caption = ""
    files: Sequence[Path] = ()
    unnamed_phases: Sequence[str] = ()
    _saved_png: bytes | None = None

    def _ipython_display_(self) -> None:
        """Show the picture, and below it the caption and links to the files."""
        from IPython.display import display

        png, size = self._repr_png_()
        picture = {"image/png": base64.b64encode(png).decode(), "text/plain": repr(self)}
        show: Callable[..., object] = display
        show(picture, raw=True, metadata={"image/png": size})
        if below := caption_html(self.caption) + links_html(self.files):
            show({"text/html": below, "text/plain": self.caption}, raw=True)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        if self._saved_png is None or self.stale:
            png = styled(_render)(self, "png", SCREEN_DPI)
        else:
            png = self._saved_png  # the figure is unchanged since it was saved
        # Larger than in print: a screen is read from further away.
        width, height = (int(inches * 120) for inches in self.get_size_inches())
        return png, {"width": width, "height": height}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` draw in the house style, whatever the caller's rcParams are."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # not the user's style, but not the backend either
            matplotlib.rcParams.update(RC)  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return wrapper


# Descriptions of parameters that figures share.
_SHARED = {
    "window": "window : str or Window, optional\n    The window T. Default: 100 ms, or the nearest "
    "T that the trace supports.",
    "columns": "columns : {1, 2}\n    Number of columns of the paper. With 1, panels are stacked.",
    "venue": 'venue : {"acm", "ieee", "usenix", "lncs"}, optional\n    Venue of the paper, which '
    'sets the width. Default: ``"acm"``, 3.33 or 7.0 inches.\nwidth, height : str or float, '
    'optional\n    Size of the figure: ``"3.5in"``, ``"89mm"``, or a number of inches.',
    "start": "start, end : str, int or None\n    Draw only the rounds between these times "
    '(``"2s"`` or nanoseconds).\nphase : str or None\n    Draw only this phase.\nbetween : '
    "(str, str) or None\n    Draw from the start of one phase to the start of another.",
    "kinds": 'kinds : str\n    Accesses that count, letters from ``"rwx"`` (read, written, '
    "executed).",
}


def _opened(trace: Any) -> Any:
    if isinstance(trace, Mapping):
        return trace
    return labelled(trace) if isinstance(trace, list | tuple) else opened(trace)


_PARAMETERS = "\n\nParameters\n----------\n"
_RETURNS = "\n\nReturns\n-------\npmlkit.figures.style.Figure"


def paper_figure(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a figure's function draw in the house style and at a size, and complete its docstring.

    The function gets the parameters `venue`, `width` and `height`. If it has `start` and `end`, it
    gets `phase` and `between`, too. The docstring gets these, the parameters that figures share
    (`window`, `columns`, `start`, `end`, `kinds`) and the return value. A stanza in the function's
    own docstring goes first.
    """
    own = inspect.signature(function)
    takes_part = {"start", "end"} <= own.parameters.keys()
    takes_trace = (
        next(iter(own.parameters), None) == "trace"
    )  # in others it is a later one, a label
    draw = styled(function)

    @functools.wraps(function)
    def wrapper(
        *args: Any,
        venue: str | None = None,
        width: str | float | None = None,
        height: str | float | None = None,
        **kwargs: Any,
    ) -> Figure:
        size = Size.of(width, height, venue)
        if takes_part:
            kwargs = _between_edges(kwargs)
        try:
            chosen = own.bind_partial(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        if takes_trace and args:  # also a name, a path, or a list of them
            args = (_opened(args[0]), *args[1:])
        elif takes_trace and "trace" in kwargs:
            kwargs["trace"] = _opened(kwargs["trace"])
        columns = size.columns()
        if columns and "columns" not in chosen:
            kwargs["columns"] = columns
        if venue is width is height is None:  # or the size of the figure that calls this one
            return draw(*args, **kwargs)
        with sized(size):
            return draw(*args, **kwargs)

    given = inspect.signature(wrapper, follow_wrapped=False).parameters
    added = [given[name] for name in ("venue", "width", "height")]
    if takes_part:
        part = inspect.signature(edges).parameters
        of_names = (part[name] for name in ("phase", "between"))
        added = [*(one.replace(kind=one.KEYWORD_ONLY) for one in of_names), *added]
    signature = own.replace(parameters=[*own.parameters.values(), *added])
    wrapper.__signature__ = signature  # type: ignore[attr-defined]  # `help` and completion show it
    wrapper.__doc__ = _completed(inspect.getdoc(function) or "", signature)
    return wrapper


def _between_edges(given: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments with ``start`` and ``end`` in place of names of phases."""
    names = ("start", "end", "phase", "between")
    part = {name: given[name] for name in names if given.get(name) is not None}
    if not {"phase", "between"} & part.keys():
        return {name: value for name, value in given.items() if name not in names[2:]}
    start, end = edges(**part)
    rest = {name: value for name, value in given.items() if name not in names}
    return rest | {"start": start, "end": end}


def _completed(text: str, signature: inspect.Signature) -> str:
    summary, _, rest = text.partition(_PARAMETERS)
    own, blank, other_sections = rest.partition("\n\n")
    stanzas = [own] if own else []
    for name in signature.parameters:
        if name in _SHARED and not re.search(rf"^{name}\b", own, re.MULTILINE):
            stanzas.append(_SHARED[name])
    return summary + _PARAMETERS + "\n".join(stanzas) + _RETURNS + blank + other_sections


def new_figure(columns: int, height: float, data: Mapping[str, pd.DataFrame]) -> Figure:
    """Make an empty figure of a paper's width, or of the size that the caller gives.

    Parameters
    ----------
    columns : {1, 2}
        Columns of the paper that it spans.
    height : float
        Inches.
    data : dict of str to pandas.DataFrame
        The data behind the figure.

    Returns
    -------
    Figure

    Raises
    ------
    pmlkit.errors.UsageError
        For another number of columns.
    """
    if columns not in (1, 2):
        raise UsageError(f"a figure spans 1 or 2 columns, not {columns!r}")
    figure = Figure(figsize=current().inches(columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.data = data
    return figure


def pad(
    figure: Figure,
    w_pad: float | None = None,
    h_pad: float | None = None,
    hspace: float | None = None,
) -> None:
    """Set padding of the figure's layout, as `ConstrainedLayoutEngine.set` takes it."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=w_pad, h_pad=h_pad, hspace=hspace)


def finish(figure: Figure, trace: Trace, caption: str) -> Figure:
    """Set the figure's caption, which begins with the trace's name; return the figure.

    It ends with the phases that are too short for their names, and with what the trace lost.
    """
    figure.caption = f"{Path(trace.path).name.removesuffix('.trace')}: {caption}"
    if unnamed := dict.fromkeys(figure.unnamed_phases):
        figure.caption += f" Phases too short for a name: {', '.join(unnamed)}."
    if lost := trace.meta.loss_note:
        figure.caption += f" Note: {lost}."
    return figure


@styled
def save(
    figure: Figure, stem: PathLike, data: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None
) -> list[Path]:
    """Write a figure as PDF, SVG and PNG, its caption as text, its data as CSV and Parquet.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        One of `pmlkit.figures`, or any other.
    stem : path-like
        The files' name; the folder is made when it does not exist. With one of the suffixes
        ``.pdf``, ``.svg`` and ``.png`` that file alone is written, and its data.
    data : pandas.DataFrame or dict of str to pandas.DataFrame, optional
        The data behind the figure; by default the figure's own `Figure.data`. Several tables are
        written as ``stem-NAME.csv``; a single one as ``stem.csv``.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    pmlkit.errors.OutputError
        If the folder cannot be made or written to, or the disk is full.
    UsageError
        If the name has the suffix of another kind of picture.
    """
    check_path("stem", stem)
    if os.fspath(stem).endswith(os.sep) or Path(stem).name in ("", ".."):
        raise UsageError(f"{os.fspath(stem)} is a folder: give the stem of its files, as f/name")
    stem = Path(stem)
    figure.files = write_files(stem.parent, files_of(figure, stem.name, data))
    return figure.files


def files_of(
    figure: Figure, name: str, data: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None
) -> dict[str, bytes]:
    """Return the files that `save` writes, by name: to write several figures all or none.

    Parameters
    ----------
    figure, data
        As in `save`.
    name : str
        The `stem` of `save`, without a folder.
    """
    check_type("figure", figure, _Figure, "a Figure, as a function of `pmlkit.figures` returns")
    stem, kinds = _stem_and_kinds(Path(name))
    tables = _tables(getattr(figure, "data", None) if data is None else data)
    # Rendered in memory first: if drawing fails, no file is half written.
    with _laid_out(figure):
        files = {f"{stem.name}.{kind}": _render(figure, kind, PNG_DPI) for kind in kinds}
    if "png" in kinds:
        figure._saved_png, figure.stale = files[f"{stem.name}.png"], False
    if caption := encodable(getattr(figure, "caption", "")):
        files[f"{stem.name}.txt"] = f"{caption}\n".encode()
    for name, frame in tables.items():
        part = f"{stem.name}-{name}" if len(tables) > 1 else stem.name
        files[f"{part}.csv"] = frame.to_csv(index=False).encode()
        files[f"{part}.parquet"] = frame.to_parquet(index=False)
    return files


def _stem_and_kinds(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a name without the suffix of a picture, and the kinds of file that it asks for."""
    kind = path.suffix[1:].lower()
    if kind in _OTHER_KINDS:
        raise UsageError(f"a figure cannot be written as .{kind}: use .pdf, .svg or .png")
    return (path.with_suffix(""), (kind,)) if kind in KINDS else (path, KINDS)


def _tables(data: pd.DataFrame | Mapping[str, pd.DataFrame] | None) -> dict[str, pd.DataFrame]:
    if data is None:
        return {}
    tables = dict(data) if isinstance(data, Mapping) else {"data": data}
    for table in tables.values():
        check_type("data", table, pd.DataFrame, "a DataFrame, or several by name")
    return tables


@contextlib.contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay the figure out once for all files: layout takes as long as drawing."""
    engine = figure.get_layout_engine()
    try:
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # not "none", with which each file is drawn twice
        yield
    finally:
        figure.set_layout_engine(engine)


def _render(figure: Figure, kind: str, dpi: int) -> bytes:
    caption = encodable(getattr(figure, "caption", ""))
    # None omits the date, with which two files of the same figure would differ.
    metadata = {
        "pdf": {"CreationDate": None, "Subject": caption},
        "svg": {"Date": None, "Description": caption},
        "png": {"Description": caption},
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata[kind])
    return buffer.getvalue()
