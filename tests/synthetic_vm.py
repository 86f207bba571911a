# SPDX-License-Identifier: Apache-2.0
"""Recorded VMs made up for tests: known working sets, and views that remember what was asked."""

from dataclasses import replace

import numpy as np
import pandas as pd

from pmlkit.costs import Clock
from pmlkit.techniques import Recorded
from pmlkit.techniques.recorded import Uses

ROUND_NS = 10_000_000
PAGES = 4096
PER_WINDOW = 10  # rounds
WINDOW_NS = PER_WINDOW * ROUND_NS
FIRST = 1024  # frame of the working set
TIME = Clock("an emulator", 8.0)


def make(sets, written=None, phases=(), guest=True, disk=False):
    """Make a VM of which the frames used in each round are known.

    Parameters
    ----------
    sets : list of arrays of frames
    written : list of arrays, optional
        By default all that are used.
    """
    accesses = _uses(sets)
    writes = accesses if written is None else _uses(written)
    n = len(sets)
    return Recorded(
        name="synthetic",
        memory_pages=PAGES,
        t_ns=np.arange(n + 1) * ROUND_NS,
        resolution_ns=ROUND_NS,
        accesses=accesses,
        writes=writes,
        log=writes,
        entries=accesses,
        leaves=writes,
        guest=_guest(n, len(np.unique(accesses.gfn))) if guest else None,
        disk=_disk(n) if disk else None,
        phases=tuple(phases),
        time=TIME,
    )


def until(recorded, stop):
    """Return a VM that was switched off before the round `stop`."""
    parts = ("accesses", "writes", "log", "mapped", "entries", "leaves")
    uses = {name: getattr(recorded, name) for name in parts}
    changes = {
        name: part and Uses(part.gfn[: part.starts[stop]], part.starts[: stop + 1])
        for name, part in uses.items()
    }
    for name in ("guest", "disk"):
        if (table := getattr(recorded, name)) is not None:
            changes[name] = table[table["t_ns"] < recorded.t_ns[stop]]
    phases = tuple(phase for phase in recorded.phases if phase[1] < stop)
    return replace(recorded, t_ns=recorded.t_ns[: stop + 1], phases=phases, **changes)


def _uses(sets):
    rounds = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
    gfn = np.concatenate([np.asarray(s, np.int64) for s in sets])
    return Uses.of(rounds, gfn, len(sets))


def _guest(n, touched):
    t_ns = np.arange(0, n, PER_WINDOW) * ROUND_NS
    page = {"total": PAGES - 96, "slab": 100, "cached": 0, "committed": touched + 50}
    page |= {"anon": touched, "allocated": touched + 200, "free": 0, "available": 0}
    table = pd.DataFrame({"t_ns": t_ns, **{f"{k}_bytes": v * 4096 for k, v in page.items()}})
    return table


def _disk(n, pages=200):
    """Swap: each page is written out and read back, in turn, into changing frames."""
    k = np.arange(4 * n)
    return pd.DataFrame(
        {
            "t_ns": k * ROUND_NS // 4,
            "sector": k % pages * 8,
            "gfn": k * 7 % 500,
            "write": k // pages % 2 == 0,
        }
    )


def block(pages, first=FIRST):
    return np.arange(first, first + pages)


def constant(pages=500, rounds=300, **more):
    return make([block(pages)] * rounds, **more)


def step(low=300, high=900, rounds=400, **more):
    half = rounds // 2
    sets = [block(low)] * half + [block(high)] * half
    return make(sets, phases=(("low", 0), ("high", half)), **more)


def step_down(high=900, low=300, rounds=400, **more):
    half = rounds // 2
    sets = [block(high)] * half + [block(low)] * half
    return make(sets, phases=(("high", 0), ("low", half)), **more)


def ramp(low=200, high=1000, rounds=400, **more):
    sizes = np.linspace(low, high, rounds).astype(int)
    return make([block(size) for size in sizes], **more)
