# SPDX-License-Identifier: Apache-2.0
"""A figure that grows with a collection: the working set per round, and all pages so far."""

from __future__ import annotations

import base64
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.errors import visible
from pmlkit.figures.notes import caption_html, links_html
from pmlkit.figures.style import COLORS, new_figure, save, styled
from pmlkit.sources.watch import Seen
from pmlkit.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from pmlkit.figures.style import Figure, Style
    from pmlkit.types import PathLike


__all__ = ["LiveFigure"]

_REDRAW_S = 0.3
_MIB = 1 << 20


class LiveFigure:
    """A figure of arriving rounds. In a notebook it is shown once and redrawn in place.

    >>> live = LiveFigure()                                  # doctest: +SKIP
    >>> for seen in live.follow(collection):                 # doctest: +SKIP
    ...     pass

    Attributes
    ----------
    figure : pmlkit.figures.style.Figure
        As last drawn.
    """

    def __init__(self) -> None:
        self.figure: Figure | None = None
        self._seen: list[Seen] = []
        self._display: Any = None  # IPython's handle of what is displayed
        self._drawn = 0.0

    def follow(self, rounds: Iterable[Seen]) -> Iterator[Seen]:
        """Yield the rounds, and draw each as it arrives.

        Parameters
        ----------
        rounds : iterable of pmlkit.sources.watch.Seen

        Yields
        ------
        Seen
        """
        try:
            for seen in rounds:
                self.add(seen)
                yield seen
        finally:
            self.draw()

    def add(self, seen: Seen) -> None:
        """Add a round; draws a few times a second at most."""
        self._seen.append(seen)
        if time.monotonic() - self._drawn > _REDRAW_S:
            self.draw()

    def say(self, line: str) -> None:
        """Show a line of text in place of the figure until the first round arrives."""
        if not self._seen:
            self._show({"text/plain": visible(line)})

    def draw(self) -> None:
        """Draw the rounds so far, and show the figure in a notebook."""
        self.figure = _drawn(self.table())
        self._drawn = time.monotonic()
        png, size = self.figure._repr_png_()
        picture = {"image/png": base64.b64encode(png).decode(), "text/plain": repr(self.figure)}
        self._show(picture, metadata={"image/png": size})

    def table(self) -> pd.DataFrame:
        """Return the rounds so far: DataFrame, one row per round."""
        fields = list(Seen.__dataclass_fields__)
        return pd.DataFrame([asdict(seen) for seen in self._seen], columns=fields)

    def save(self, stem: PathLike) -> list[Path]:
        """Write the figure and its data, as `pmlkit.figures.save`."""
        figure = self.figure or _drawn(self.table())
        files = save(figure, stem)
        if self._display is not None:
            from IPython.display import display

            below = caption_html(figure.caption) + links_html(files)
            display({"text/html": below, "text/plain": figure.caption}, raw=True)  # type: ignore[no-untyped-call]
        return files

    def _show(self, what: dict[str, str], **how: Any) -> None:
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            return
        if get_ipython() is None:
            return
        if self._display is None:
            self._display = display(what, raw=True, display_id=True, **how)  # type: ignore[no-untyped-call]
        else:
            self._display.update(what, raw=True, **how)


@styled
def _drawn(table: pd.DataFrame) -> Figure:
    figure = new_figure(2, 2.3, {"rounds": table})
    of_t = _of_t(table)
    figure.caption = (
        f"the working set{of_t} as it arrived (line), all pages used since the beginning (dashed), "
        "and intervals in which entries were lost (crosses). A point is a round, or several "
        "rounds of a recording that is played back; T is the median of their lengths."
    )
    axes, seconds = figure.subplots(), table["t_ns"] / 1e9
    sizes = table["pages"] * 4096 / _MIB
    ink: Style = {"color": COLORS["black"]}
    if len(table) == 1:  # a line of one point is invisible
        ink["marker"] = "o"
    axes.plot(seconds, sizes, label=f"working set{of_t}", **ink)
    axes.plot(
        seconds,
        table["distinct"].astype(float) * 4096 / _MIB,
        "--",
        label="all pages so far",
        **ink,
    )
    lost = table["lost"] > 0
    if lost.any():
        axes.plot(seconds[lost], sizes[lost], "x", color=COLORS["vermilion"], label="entries lost")
    axes.set(xlabel="time (s)", ylabel="memory (MiB)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _of_t(table: pd.DataFrame) -> str:
    """Return the T of a working set: a size without one has no meaning."""
    return f", T = {format_ns(table['length_ns'].median())}" if len(table) else ""
