# SPDX-License-Identifier: Apache-2.0
"""Clock sensitivity: which conclusions depend on the guest's clock?

The recorder's guests execute 125 million instructions in a second of their time, real ones some
thousands of millions. A program's work is the same; its ratio to timers differs: ticks, sleeps, and
every T in seconds. Each program is therefore recorded at three clocks, with instructions of 8, 2
and 1 ns, in rounds of equally many instructions. There are two kinds of T: equally many
instructions at each clock, and equal time. A result at one clock is valid at another if it changes
less than between two programs.

    python -m experiments.clock_sensitivity RUNS data/clock-sensitivity [PROGRAM]...

The tables:

- ``sizes.csv``: mean W(t, T) by program, clock and T, and its written part.
- ``points.csv``: error and overhead of each technique at each setting of its knobs.
- ``ranks.csv``: the least error of each technique within a budget, and its rank.
- ``agreement.csv``: agreement of the ranks at a clock with those at 125 MIPS.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from experiments.caps import PERCENT, weighted_percentile
from pmlkit import techniques
from pmlkit.errors import PmlkitError
from pmlkit.kernels.by_page import references, sliding
from pmlkit.sources.recorder.record import record
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.techniques import scores
from pmlkit.techniques.recorded import Need, Recorded
from pmlkit.timeline import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pmlkit.techniques.recorded import Uses
    from pmlkit.techniques.scores import Truth

__all__ = ["agreement", "points", "ranks", "sizes"]

PROGRAMS = ("redis", "sqlite", "gcc")
SHIFTS = (3, 1, 0)  # the first is the reference
ROUND = "1.25Minsn"
SIZES_INSN = (12_500_000, 37_500_000, 125_000_000, 312_500_000)
SIZES_NS = (100_000_000, 300_000_000, 1_000_000_000)
# T of the comparison of techniques: as instructions (1 s of the recorder's clock), and as time.
TS = {"instructions": 125_000_000, "time": 300_000_000}
LOOKS = (1, 2, 4)
WATCHED = (64, 1024)
SEEDS = 2
BUDGETS = (0.001, 0.005, 0.02)
# These techniques do not estimate W(t, T), but the memory that a guest needs.
OTHERS = frozenset({Need.MEMORY, Need.DISK, Need.GUEST})


def recording(folder: Path, program: str, shift: int) -> Recorded:
    """Return the recording of a program at a clock; from the folder if it exists."""
    path = folder / f"{program}-{shift}.trace"
    if not path.exists():
        record(program, path, RecordOptions(window=ROUND, icount_shift=shift))
    return Recorded.of(pmlkit.open(path))


def ns_per_insn(recorded: Recorded) -> float:
    """Return the length of an instruction in a recording, ns."""
    assert recorded.time.ns_per_insn is not None
    return recorded.time.ns_per_insn


# ------------------------------------------------------------------------------
# Sizes.


def sizes(recorded: Recorded) -> pd.DataFrame:
    """Return the mean working set for each T up to a third of the recording.

    Returns
    -------
    DataFrame
        ``kind`` (T is of "instructions" or "time"), ``t_insn``, ``t_ns``; ``w`` and ``written``,
        means over time, pages; ``p95``, the 95th percentile of W over time: of it a program's
        sleep, which takes the same time at each clock, has no part.
    """
    ns = ns_per_insn(recorded)
    asked = [("instructions", insn, round(insn * ns)) for insn in SIZES_INSN]
    asked += [("time", round(t_ns / ns), t_ns) for t_ns in SIZES_NS]
    rows = []
    for kind, insn, t_ns in asked:
        if t_ns * 3 <= recorded.duration_ns:
            truth = scores.truth(recorded, t_ns)
            written = _mean(truth, _written(recorded, truth))
            high = weighted_percentile(truth.pages[truth.scored].astype(float), truth, PERCENT)
            rows.append((kind, insn, t_ns, _mean(truth, truth.pages), high, written))
    return pd.DataFrame(rows, columns=["kind", "t_insn", "t_ns", "w", "p95", "written"])


def _mean(truth: Truth, pages: np.ndarray) -> float:
    weights = np.diff(truth.t_ns, prepend=0)[truth.scored]
    return float(np.average(pages[truth.scored], weights=weights))


def _written(recorded: Recorded, truth: Truth) -> np.ndarray:
    """Return the pages written in the windows of the truth."""
    ends = recorded.t_ns[1:] - recorded.t_ns[0]
    windows = Windows.on(ends, truth.window_ns, truth.t_ns)
    return np.asarray(sliding(_references(recorded.writes, recorded.n_rounds), windows))


def _references(uses: Uses, n_rounds: int):  # type: ignore[no-untyped-def]
    rounds = uses.rounds_of(0, n_rounds)
    return references(rounds, uses.gfn.view(np.uint64), n_rounds, distinct=True)


# ------------------------------------------------------------------------------
# Techniques.


def points(recorded: Recorded, window_ns: int, names: Iterable[str] = ()) -> pd.DataFrame:
    """Return error and overhead of techniques at all settings of their knobs.

    Returns
    -------
    DataFrame
        ``technique``, ``looks``, ``watched`` (0: as the technique's source has it), ``error``
        (mean absolute error over mean W), ``overhead``; means over seeds.
    """
    truth = scores.truth(recorded, window_ns)
    rows = []
    for name in names or techniques.TECHNIQUES:
        kind = techniques.TECHNIQUES[name]
        if kind.needs & OTHERS:
            continue
        for knobs in _settings(name):
            try:
                row = _scored(recorded, truth, name, knobs)
            except PmlkitError:  # the recording lacks an input, or its rounds are too long
                continue
            rows.append({"technique": name, "looks": 0, "watched": 0, **knobs, **row})
    return pd.DataFrame(rows)


def _settings(name: str) -> Iterator[dict[str, int]]:
    """Yield the technique's defaults, and every combination of its knobs."""
    parameters = techniques.TECHNIQUES[name].parameters()
    values = {"looks": LOOKS, "watched": WATCHED}
    knobs = [knob for knob in values if knob in parameters]
    yield {}
    for chosen in itertools.product(*(values[knob] for knob in knobs)) if knobs else ():
        yield dict(zip(knobs, chosen, strict=True))


def _scored(recorded: Recorded, truth: Truth, name: str, knobs: dict[str, int]) -> dict[str, float]:
    technique = techniques.make(name, **knobs)
    seeds = range(SEEDS if technique.random else 1)
    runs = [techniques.run(technique, recorded, truth.window_ns, seed=seed) for seed in seeds]
    errors = [scores.accuracy(run.estimates, truth)["mae"] for run in runs]
    return {
        "error": float(np.mean(errors)),
        "overhead": float(np.mean([run.overhead for run in runs])),
    }


def ranks(table: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Return the least error of each technique within a budget, and its rank, 1 is best.

    Parameters
    ----------
    table : DataFrame
        Of `points`.
    budget : float
        The largest overhead.
    """
    within = table[(table["overhead"] <= budget) & table["error"].notna()]
    best = within.sort_values("error", kind="stable").drop_duplicates("technique")
    rank = best["error"].rank(method="min").astype(int)
    return best.assign(budget=budget, rank=rank).reset_index(drop=True)


def agreement(first: pd.DataFrame, other: pd.DataFrame) -> dict[str, float | str]:
    """Return the agreement of two rankings for the same budget.

    Returns
    -------
    dict
        ``techniques``: in both; ``correlation``: Spearman's of their errors; ``first`` and
        ``other``: the best of each; ``error_ratio``: median over techniques of the other's error
        over the first's; ``regret``: the other's error of the first's best, over the least error.
    """
    both = first.merge(other, on="technique", suffixes=("_first", "_other"))
    correlation = both["error_first"].corr(both["error_other"], method="spearman")
    best, least = first.iloc[0]["technique"], other.iloc[0]
    chosen = other.loc[other["technique"] == best, "error"]
    return {
        "techniques": len(both),
        "correlation": float(correlation),
        "first": best,
        "other": least["technique"],
        "error_ratio": float((both["error_other"] / both["error_first"]).median()),
        "regret": float(chosen.iloc[0] / least["error"]) if len(chosen) else float("nan"),
    }


# ------------------------------------------------------------------------------
# Tables.


def compared(scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ranks of all programs, clocks, kinds of T and budgets, and their agreement."""
    ranked, agreed = [], []
    for (program, kind), of in scored.groupby(["program", "kind"], sort=False):
        for budget in BUDGETS:
            by_clock = {ns: ranks(part, budget) for ns, part in of.groupby("ns_per_insn")}
            ranked += list(by_clock.values())
            first = by_clock[max(by_clock)]
            for ns, table in by_clock.items():
                if table is not first and len(table) and len(first):
                    key = {"program": program, "kind": kind, "budget": budget, "ns_per_insn": ns}
                    agreed.append({**key, **agreement(first, table)})
    return pd.concat(ranked, ignore_index=True), pd.DataFrame(agreed)


def main(runs: str, out: str, *names: str) -> None:
    """Make the recordings that are not in the folder yet, and write the tables."""
    folder, sized, scored = Path(runs), [], []
    folder.mkdir(parents=True, exist_ok=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    for program, shift in itertools.product(names or PROGRAMS, SHIFTS):
        print(f"{program} at {1000 >> shift} million instructions a second")
        recorded = recording(folder, program, shift)
        key = {"program": program, "ns_per_insn": ns_per_insn(recorded)}
        sized.append(sizes(recorded).assign(**key))
        for kind, length in TS.items():
            t_ns = round(length * key["ns_per_insn"]) if kind == "instructions" else length
            kept = folder / f"{program}-{shift}-{kind}.csv"
            if not kept.exists():
                points(recorded, t_ns).to_csv(kept, index=False)
            scored.append(pd.read_csv(kept).assign(**key, kind=kind, t_ns=t_ns))
    ranked, agreed = compared(pd.concat(scored))
    tables = {"sizes": pd.concat(sized), "points": pd.concat(scored), "ranks": ranked}
    for name, table in {**tables, "agreement": agreed}.items():
        keys = ["program", "ns_per_insn", *(["kind"] if "kind" in table else [])]
        table = table[[*keys, *(column for column in table if column not in keys)]]
        table.round(6).to_csv(Path(out) / f"{name}.csv", index=False)
    versions = made.versions(folder / f"{name}-{SHIFTS[0]}.trace" for name in names or PROGRAMS)
    command = " ".join(("python -m experiments.clock_sensitivity RUNS", out, *names))
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
