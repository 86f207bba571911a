# SPDX-License-Identifier: Apache-2.0
"""Distinct pages per window: pmlkit against pandas, polars and DuckDB.

All have the same columns in memory, in the form that they like best, before the clock starts; all
have to give the same answer.
"""

import numpy as np

from pmlkit.kernels import by_time
from pmlkit.kernels.pages import in_batches, numbered
from pmlkit.timeline import Windows
from tests.bench.logs import rounds_of, zipf
from tests.bench.timing import best, rate_rows

PAGES = 1 << 18  # 1 GiB of guest memory
WINDOWS = 40


def measure(scale):
    """Return the ratios and the rows."""
    import duckdb
    import pandas as pd
    import polars as pl

    gfns = zipf(scale.entries, PAGES)
    rounds, n = rounds_of(scale.entries)
    small = slice(None, 100_000)
    windows = Windows.of_rounds(n, 1)
    by_time.turnover(in_batches(rounds[small], gfns[small]), windows)  # compiles
    frame = pl.DataFrame({"round": rounds, "gfn": gfns})
    table = pd.DataFrame({"round": rounds, "gfn": gfns})
    duck = duckdb.connect()
    duck.execute("create table log as select * from frame")

    distinct = {
        "pmlkit": lambda: by_time.turnover(in_batches(rounds, gfns), windows).pages,
        "polars": lambda: _polars_distinct(pl, frame),
        "duckdb": lambda: _duckdb_distinct(duck),
        "pandas": lambda: table.groupby("round")["gfn"].nunique().to_numpy(),
        "numpy pass": lambda: (rounds.sum(), gfns.sum()),
    }
    seconds, found = best(distinct, scale, once=("pandas",))
    _same(found, ("pmlkit", "polars", "duckdb", "pandas"))
    swept = _sweep(scale, rounds, gfns, n)
    ratios = {f"distinct_vs_{who.replace(' ', '_')}": seconds[who] / seconds["pmlkit"]
              for who in distinct if who != "pmlkit"}  # fmt: skip
    ratios["all_T_vs_one_T"] = swept["40 windows"] / swept["1 window"]
    rows = rate_rows("distinct pages per window", scale.entries, seconds)
    return ratios, rows + rate_rows("W(t, T) at every round", scale.entries, swept)


def _sweep(scale, rounds, gfns, n):
    ks = np.unique(np.rint(np.geomspace(1, max(n // 2, 50), 2 * WINDOWS)).astype(int))[:WINDOWS]
    part = slice(None, 100_000)
    by_time.sweep(numbered([(rounds[part], gfns[part])]), np.arange(n), ks.tolist())

    def of(windows):
        return lambda: by_time.sweep(numbered([(rounds, gfns)]), np.arange(n), windows)

    turns = {"40 windows": of(ks.tolist()), "1 window": of([int(ks[len(ks) // 2])])}
    return best(turns, scale)[0]


def _same(found, names):
    first, *others = (np.asarray(found[name]) for name in names)
    for name, other in zip(list(names)[1:], others, strict=True):
        if not np.array_equal(first.reshape(-1), other.reshape(-1)):
            raise AssertionError(f"{name} gives another answer")


def _polars_distinct(pl, frame):
    query = frame.lazy().group_by("round").agg(pl.col("gfn").n_unique())
    return query.collect().sort("round")["gfn"].to_numpy()


def _duckdb_distinct(duck):
    query = "select count(distinct gfn) as n from log group by round order by round"
    return duck.execute(query).fetchnumpy()["n"]
