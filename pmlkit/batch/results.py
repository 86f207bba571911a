# SPDX-License-Identifier: Apache-2.0
"""The tables of all runs of an experiment as one tidy Parquet file: ``results.parquet``.

Each row is a row of a table that a run saved: with `figures.table` (``NAME.csv`` next to
``NAME.tex``), or as ``results.parquet`` in its folder. Further columns name the run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.errors import PmlkitError
from pmlkit.figures.tables import read_rows
from pmlkit.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pmlkit.batch.expand import Job
    from pmlkit.types import Json, PathLike


__all__ = ["load", "write"]

OF_THE_RUN = ["run", "notebook", "trace", "table"]
OWN = "results.parquet"


def load(path: PathLike, table: str | None = None) -> pd.DataFrame:
    """Read the results of an experiment.

    Parameters
    ----------
    path : path-like
        ``results/NAME/results.parquet``.
    table : str, optional
        Return only this table's rows and columns.

    Returns
    -------
    pandas.DataFrame
        Columns `run` (its id), `notebook`, `trace` (names, separated by commas), `table`,
        ``parameter:NAME`` for each parameter, and those of the tables. Values are missing if a
        table lacks the column. A table's own column `run` (etc.) is named ``table:run``.

    Raises
    ------
    PmlkitError
        If the file or table does not exist.
    """
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        hint = "`pmlkit run EXPERIMENT.yaml` writes it"
        raise PmlkitError(f"{os.fspath(path)} cannot be read ({error})", hint) from error
    if table is None:
        return rows
    selected = rows[rows["table"] == table]
    if selected.empty:
        there = ", ".join(sorted(rows["table"].unique())) or "none"
        raise PmlkitError(f"no run has a table {table!r}", f"the tables are: {there}")
    return selected.dropna(axis="columns", how="all").reset_index(drop=True)


def write(
    path: Path, folder: Path, jobs: Iterable[Job], records: Mapping[str, Json | None]
) -> None:
    """Write the results of an experiment's runs.

    Parameters
    ----------
    path : Path
        The Parquet file to write.
    folder : Path
        The experiment's.
    jobs : list of pmlkit.batch.expand.Job
    records : dict of str to dict
        Records by id; only finished runs have results.

    Raises
    ------
    pmlkit.errors.OutputError
        If it cannot be written.
    """
    frames = [pd.DataFrame({name: pd.Series(dtype="str") for name in OF_THE_RUN})]
    for job in jobs:
        if (records[job.id] or {}).get("status") == "done":
            frames += [_of_run(job, name, rows) for name, rows in tables(folder / job.id)]
    frames = [frame for frame in frames if len(frame)] or frames
    table = pd.concat(frames, ignore_index=True)
    with whole(path, overwrite=True) as partial:
        table.apply(_one_type).to_parquet(partial, index=False)


def tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and rows of each table in a run's folder."""
    for tex in sorted(Path(folder).glob("*.tex")):
        if (csv := tex.with_suffix(".csv")).exists():
            yield tex.stem, read_rows(csv)
    if (own := Path(folder) / OWN).exists():
        yield own.stem, pd.read_parquet(own)


def _of_run(job: Job, name: str, rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.rename(columns={c: f"table:{c}" for c in OF_THE_RUN if c in rows})
    facts: Json = {
        "run": job.id,
        "notebook": job.notebook,
        "trace": ",".join(trace.name for trace in job.traces),
        "table": name,
    }
    facts |= {f"parameter:{name}": _scalar(value) for name, value in job.parameters.items()}
    run = pd.DataFrame([facts] * len(rows), columns=list(facts), index=rows.index)
    return pd.concat([run, rows], axis="columns")


def _scalar(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _one_type(column: pd.Series) -> pd.Series:
    """Convert a column of several types to text: a Parquet column has one type."""
    if column.dtype != object:
        return column
    kinds = {type(value) for value in column.dropna()}
    if kinds <= {bool}:
        return column.astype("boolean")
    if kinds <= {int, float}:
        return pd.to_numeric(column)
    return column.map(str, na_action="ignore").astype("str")
