# SPDX-License-Identifier: Apache-2.0
"""Functions that return a matplotlib Figure, and `save`, which writes it with its data.

All figures take `columns`, 1 or 2: the columns of a paper that the figure spans. They take `venue`,
which sets the width of a column, or a `width` and a `height`. Figures of a trace take `start` and
`end`, `phase`, or `between`, which limit the drawn part as in `pmlkit.selection`.

Modules
-------
catalogue   the table of figures; draws one by name
size        widths of venues
style, axes fonts, colours, saving; axes of time, pages and addresses
time, window, heat, mrc, reads, compare, frontier, forecast
            figures by subject
law         the law of errors, against runs
caps        guests capped at the techniques' estimates; effect of the guest's clock
visible     the pages of a guest that each method of a KVM host sees
live        a figure that grows while a guest is logged
explorer    the figure behind `pmlkit.explore`
terminal    figures as text
tables      LaTeX tables with their rows as CSV
notes       captions and links to files, below figures and tables in a notebook
compare_tables
            tables of a comparison
frontier_tables
            tables of a frontier
"""

from typing import TYPE_CHECKING

from pmlkit.errors import names_its_function
from pmlkit.figures.catalogue import FIGURES, HOMES, about, draw
from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.figures.style import Figure, save
    from pmlkit.figures.tables import table

__all__ = ["FIGURES", "Figure", "about", "draw", "save", "table", *HOMES]

_TOOLS = {"Figure": "figures.style", "save": "figures.style", "table": "figures.tables"}
__getattr__ = lazy("pmlkit.figures", {**HOMES, **_TOOLS})
names_its_function("pmlkit.figures", "pmlkit.figures.draw")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # completion lists what is not imported yet
