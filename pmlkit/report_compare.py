# SPDX-License-Identifier: Apache-2.0
"""What ``pmlkit compare`` prints for people, and its progress."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from pmlkit import report
from pmlkit.tables import cell, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd


__all__ = ["counting", "sheet"]


@contextmanager
def counting(what: str, total: int, quiet: bool = False) -> Iterator[Callable[[str, str], None]]:
    """Show how many of `total` steps are done; yields the callback that counts one."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn())
    with report._bar(quiet, *columns) as bar:
        task = bar.add_task(what, total=total)

        def tick(trace: str, technique: str) -> None:
            bar.update(task, advance=1, description=f"{trace} {technique}".strip())

        yield tick


def sheet(table: pd.DataFrame, title: str) -> None:
    """Print a DataFrame under a title: numbers short and to the right."""
    right = [i for i, dtype in enumerate(table.dtypes) if is_number(dtype)]
    page = report._table(*table.columns, right=right)
    for row in table.itertuples(False):
        page.add_row(*(cell(value) for value in row))
    report.console().print(f"\n{title}")
    report.console().print(page)
