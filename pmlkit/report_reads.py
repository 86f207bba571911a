# SPDX-License-Identifier: Apache-2.0
"""What `pmlkit reads` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.report import _table as table
from pmlkit.report import console
from pmlkit.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["show"]


def show(found: pd.DataFrame) -> None:
    """Print estimates, or the comparison of methods, a line each; reasons once, below."""
    (_comparison if "method" in found else _estimates)(found)


def _estimates(found: pd.DataFrame) -> None:
    page = table("end", "pages", "size", "low", "high", "PML alone", "phase", right=range(6))
    for row in found.to_dict("records"):
        written = f"{row['written']:,}" if row["written"] >= 0 else ""
        page.add_row(
            f"{row['t_ns'] / 1e9:.3f} s",
            f"{row['pages']:,}",
            format_bytes(row["bytes"]),
            f"{row['low']:,}",
            f"{row['high']:,}",
            written,
            row["phase"],
        )
    console().print(page)
    for why in dict.fromkeys(filter(None, found["why"])):
        rows = (found["why"] == why).sum()
        console().print(f"not known ({rows} of {len(found)} windows): {why}")


def _comparison(found: pd.DataFrame) -> None:
    names = [name for name in found.columns if name not in ("phase", "method")]
    page = table("phase", "method", *names, right=range(2, 2 + len(names)))
    for row in found.to_dict("records"):
        page.add_row(row["phase"], row["method"], *(f"{row[name]:,g}" for name in names))
    console().print(page)
    said = "truth and estimate in MiB; missed (by PML), errors, inside and width in percent"
    console().print(said)
