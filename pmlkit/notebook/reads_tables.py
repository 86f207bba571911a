# SPDX-License-Identifier: Apache-2.0
"""Tables of the lab's experiments on reads (`experiments.reads_lab`), for the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import recordings
from pmlkit.errors import NeedsError
from pmlkit.reads import calibration, guided, hotness, judge
from pmlkit.techniques.scores import resampled
from pmlkit.units import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.trace.reader import Trace


__all__ = [
    "beside_published",
    "by_phase",
    "costs",
    "equality",
    "errors",
    "host_sees",
    "hotness_scores",
    "logging_costs",
    "sources",
]

_SHOWN = ("written", "leaves", "present", "accessed", "cleared", "density", "sample")
_BEFORE_WORK = ("", "start")  # phases
_NUMBERS = ["rounds", "missed", "median", "mape", "bias", "inside", "width"]
MODELLED_BYTES = [1 << power for power in range(26, 41)]  # 64 MiB to 1 TiB


def beside_published(trace: Trace, compared: pd.DataFrame) -> pd.DataFrame:
    """Return `judge.beside_published` of a run of rrww; for another guest, an empty table."""
    if "buffer" not in set(trace.regions["name"]):
        return judge.published().head(0)
    table = judge.beside_published(compared, len(trace.frames("buffer")))
    shares = dict.fromkeys([name for name in table if name != "technique"], "%")
    return described(table, shares, "not measured in this way")


def by_phase(compared: pd.DataFrame) -> pd.DataFrame:
    """Return `judge.by_phase` with its units."""
    return described(judge.by_phase(compared), _SIZES | _PERCENT, "no interval")


_SIZES = dict.fromkeys(("truth", "estimate"), "MiB")
_PERCENT = dict.fromkeys(("missed", "mape", "median", "bias", "inside", "width"), "%")


def errors(methods: Sequence[str] = _SHOWN) -> pd.DataFrame:
    """Return errors over the rounds of the Linux guests' work, when the tables were made.

    Returns
    -------
    DataFrame
        ``guest``, ``group``, ``method`` ("cleared": ``accessed`` in a run in which the
        guest's accessed flags were cleared), ``rounds``; over these, in percent, means of
        ``missed``, ``mape``, ``bias`` and ``inside``, medians of the error (``median``) and of the
        interval's ``width``;
        ``from`` and ``to``, the 95 % interval of ``mape`` by a bootstrap over the rounds, where
        single rounds are kept.
    """
    table = calibration.load("errors")
    table = table[(table["phase"] == "work") & ~table["group"].isin(["bare", "memory"])]
    again = table["cleared"] & (table["method"] == "accessed")
    table = table[~table["cleared"] | again].assign(method=table["method"].mask(again, "cleared"))
    table = table[table["method"].isin(methods)]
    guests = list(dict.fromkeys(table["guest"]))
    order = table["guest"].map(guests.index) * len(_SHOWN) + table["method"].map(_SHOWN.index)
    selected = table.loc[order.sort_values().index, ["guest", "group", "method", *_NUMBERS]]
    selected = selected.merge(_intervals(), "left", ["guest", "method"])
    table = selected.round(1).reset_index(drop=True)
    units = _PERCENT | {"from": "%", "to": "%"}
    return described(table, units, "single rounds of this method were not stored")


def _intervals() -> pd.DataFrame:
    """Return ``guest``, ``method``, and ``from`` and ``to`` of the mean errors, as of `errors`."""
    rounds = calibration.load("rounds")
    rounds = rounds[~rounds["phase"].isin(_BEFORE_WORK)]
    again = rounds["cleared"] & (rounds["method"] == "accessed")
    rounds = rounds[~rounds["cleared"] | again]
    method = rounds["method"].mask(again, "cleared")
    error = (rounds["pages"] / rounds["truth"] - 1).abs() * 100
    rows = [
        (guest, name, *resampled(of, np.mean)[1:])
        for (guest, name), of in error.groupby([rounds["guest"], method], sort=False)
    ]
    return pd.DataFrame(rows, columns=["guest", "method", "from", "to"])


def equality() -> pd.DataFrame:
    """Return, per guest, the frames that both harvests found, and those left to the scan."""
    table = calibration.load("equality")
    causes = [name for name in guided.CAUSES if name in table.columns]
    sums = (
        table[["guided", "left", *causes]]
        .fillna(0)
        .astype(np.int64)
        .groupby(table["guest"], sort=False)
        .sum()
    )
    sums.insert(0, "rounds", table.groupby("guest", sort=False).size())
    return described(sums.reset_index(), dict.fromkeys(("guided", "left", *causes), "frames"))


def costs() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return measured and modelled costs of harvests by memory, for `harvest_costs`.

    The measured ones are medians over the rounds, with the least and the most.

    Raises
    ------
    TraceNotFound
        If the tables of ``experiments.harvests`` are not there.
    NeedsError
        If they lack the guests of several sizes.
    """
    table = calibration.load("guests", "harvests")
    table = table[(table["group"] == "memory") & (table["guest"] != "half-4096")]
    if (table["memory_mib"] >= 1024).sum() < 2:
        what = "guests of several sizes, two of 1 GiB or more"
        raise NeedsError("data/harvests", what, "run: python -m experiments.harvests")
    measured = table[["pruned", "guided", "scan", "sampled"]].astype(np.int64)
    measured.insert(0, "memory_bytes", table["memory_mib"].astype(np.int64) * 2**20)
    measured = measured.merge(_spans(), on="memory_bytes")
    measured = measured.sort_values("memory_bytes", ignore_index=True)
    return measured, guided.model_costs(measured, MODELLED_BYTES)


def _spans() -> pd.DataFrame:
    """Return the least and the most of the rounds' costs by harvest and memory of the guest."""
    rows = calibration.load("rounds", "harvests")
    rows = rows[(rows["group"] == "memory") & (rows["guest"] != "half-4096") & (rows["round"] > 0)]
    walked = rows["walk"].where(rows["harvest"] == "guided", 0)
    insn = (rows["harvest_insn"] + walked).groupby([rows["memory_mib"], rows["harvest"]])
    least, most = insn.min().unstack(), insn.max().unstack()
    ends = least.add_suffix("_least").join(most.add_suffix("_most"))
    return ends.assign(memory_bytes=ends.index * 2**20).reset_index(drop=True)


def logging_costs() -> pd.DataFrame:
    """Return what page tables add to the log, and the instructions of a round: means per guest.

    Returns
    -------
    DataFrame
        ``guest``, ``memory`` (MiB), ``logged`` entries a round, ``tables`` of them, ``exits`` (log
        full) a round; thousands of instructions a round for finding the page tables (``find``),
        snapshots, re-arming, the ``guided`` harvest, the ``scan`` of all memory, and that of a
        ``sample`` (in another run; NaN where there was none).
    """
    table = calibration.load("costs")
    table = table[~table["cleared"]]
    sampled = table["sampled"].astype(bool)
    samples = table[sampled].groupby("guest")["scan_tsc"].mean()
    means = table[~sampled].groupby("guest", sort=False).mean(numeric_only=True)
    kilo = {"find": "walk", "snapshots": "tables", "rearm": "rearm", "guided": "guided"}
    costs = pd.DataFrame({"memory": means["memory_bytes"] / 2**20, "logged": means["logged"]})
    costs["tables"], costs["exits"] = means["logged_tables"], means["exits"]
    for name, column in {**kilo, "scan": "scan"}.items():
        costs[name] = means[f"{column}_tsc"] / 1e3
    costs["sample"] = samples / 1e3
    costs = costs.round(1).reset_index()
    units = {"memory": "MiB"} | dict.fromkeys((*kilo, "scan", "sample"), "1000 instructions")
    return described(costs, units, {"sample": "this guest has no run with a sample"})


def host_sees() -> pd.DataFrame:
    """Return the pages of a guest that each method of a KVM host sees, for `figures.host_sees`.

    Returns
    -------
    DataFrame
        As `experiments.host_sees` has made it: first the truth, then a row for each way and kernel.
    """
    pages = ("rounds", "seen", "least", "most", "written", "read", "tables", "other", "low", "high")
    path = recordings.located("host-sees/ways.csv", "data")
    return pd.read_csv(path, dtype={"kernel": "str", **dict.fromkeys(pages, "Int64")})


def hotness_scores() -> pd.DataFrame:
    """Return scores of ranking hot regions by first log, on guests not used to choose the window.

    Returns
    -------
    DataFrame
        `hotness.judge` of the lab's and of the recorder's traces, with ``source`` and the
        ``window`` that was chosen on the other guests.
    """
    parts = []
    for source, name in (("lab", "hotness"), ("recorder", "hotness-recorded")):
        table = calibration.load(name)
        window = hotness.choose(table)
        scores = hotness.judge(table, window)
        scores.insert(0, "source", source)
        scores.insert(2, "window", window)
        parts.append(scores)
    table = pd.concat(parts, ignore_index=True).round(2)
    return described(table, {}, "undefined: all regions are used equally often")


def sources() -> pd.DataFrame:
    """Return the errors of the accessed entries by cause: mean pages a round."""
    table = calibration.load("sources").drop(columns=["group", "series"], errors="ignore").round(0)
    counts = ("truth", "estimate", "kernel", "user", "other_rounds", "never")
    table["phase"] = table["phase"].replace("", "before the first")
    return described(table, dict.fromkeys(counts, "pages"))
