# SPDX-License-Identifier: Apache-2.0
"""The explorer: from a widget's move to the picture that goes to the browser, 10^7 entries."""

import statistics
import tempfile
from pathlib import Path

import pmlkit
from tests.bench.logs import write_trace
from tests.bench.timing import CLOCKS

ENTRIES = 10_000_000
MOVES = {
    "T": ("window", lambda made: made.window.options),
    "m": ("min_count", lambda made: [(m, m) for m in range(1, made.min_count.max + 1)]),
    "time": ("time", lambda made: [(i, _part(made, i)) for i in range(10)]),
}


def measure(scale):
    """Return the median of many updates, and a row for each widget."""
    clock, rows, everything = CLOCKS[scale.clock], [], []
    with tempfile.TemporaryDirectory() as folder:
        made = pmlkit.explore(pmlkit.open(write_trace(Path(folder) / "x.trace", ENTRIES)))
        made.show(live=True)
        for figure in (made.figure, made.heat):
            figure.canvas.syncing_data_url = False  # as with a browser before it
        for widget, (name, values) in MOVES.items():
            took = [_move(made, name, value, clock) for _, value in values(made)]
            took += [_move(made, name, value, clock) for _, value in values(made)]
            everything += took
            rows.append({"widget": widget, "moves": len(took), "ms": _ms(took)})
    return {"explorer_update_ms": _ms(everything)}, rows


def _move(made, name, value, clock):
    started = clock()
    getattr(made, name).value = value  # draws, and encodes what has changed
    return clock() - started


def _part(made, i):
    length = made.time.max - made.time.min
    return made.time.min + length * 0.02 * i, made.time.min + length * (0.5 + 0.05 * i)


def _ms(seconds):
    return round(statistics.median(seconds) * 1e3, 1)
