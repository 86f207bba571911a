# SPDX-License-Identifier: Apache-2.0
"""Bytes of a stranger for an importer: they are read to the end, or refused in one line."""

import tempfile
from pathlib import Path

import numpy as np

from pmlkit.interop import formats as interop
from pmlkit.interop.reading import ForeignFileError

MOST_ROWS = 1 << 22


def survives(name, data, **options):
    """Give bytes to the reader of a format; return the number of rows, or None if refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        try:
            made = interop._function(name, "load")(path, **options)
            return len(made) if name == "query-dirty-rate" else _rows(made)
        except ForeignFileError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return None


def _rows(made):
    """Count the rows; intervals must neither overlap nor go back."""
    rows = last = 0
    for start, end, _, gfn, _ in made.rounds:
        rows += len(gfn)
        assert rows <= MOST_ROWS
        starts, ends = (np.broadcast_to(times, max(1, len(gfn))) for times in (start, end))
        assert (starts <= ends).all() and (starts[1:] >= starts[:-1]).all()
        assert starts[0] >= 0 and last <= ends[0]
        last = int(ends[-1])
    return rows
