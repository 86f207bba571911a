# SPDX-License-Identifier: Apache-2.0
"""WSS-Bench: all techniques on a half of the corpus, and the statements of its protocol.

    python -m experiments.wss_bench TRACES POINTS data/wss-bench
    python -m experiments.wss_bench --short TRACES POINTS data/wss-bench-100ms
    python -m experiments.wss_bench --development DEVELOPMENT POINTS data/wss-bench-development

TRACES is a folder of recordings (`pmlkit corpus record`). POINTS keeps the sweep, so that an
interrupted one can continue. The statements are those of ``experiments/protocol.md``, by their
numbers. With ``--short``, T is 0.1 s and no statement is tested: the protocol calls these tables
exploratory. With ``--development``, no statement is tested: this half chooses the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit import frontier, law
from pmlkit.errors import NeedsError
from pmlkit.forecast import significance
from pmlkit.law.advise import advise
from pmlkit.recordings import open_trace
from pmlkit.techniques import TECHNIQUES, Need, Recorded, make
from pmlkit.units import format_share, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Json

__all__ = ["PLANS", "advice", "equal_looks", "main", "predictions", "sample_with_pml", "statements"]

PLANS = (
    frontier.Plan(windows=("1s",)),
    frontier.Plan(windows=("5s",)),
)
CHOSEN = (0.001, 0.01)  # budgets of the table of settings that the development half chose
# Exploratory, added after the results were seen: rounds of 25 ms allow four looks.
SHORT = frontier.Plan(windows=("100ms",), looks=(1, 2, 4), watched=(256, 4096), seeds=1)
SHORT_BUDGETS = (0.001, 0.01, 0.1)  # ten times those of T = 1 s: looks are ten times as frequent
# Plans by the names of their folders, and budgets, by the option of the command.
BOTH = {str(number): plan for number, plan in enumerate(PLANS)}
SWEEPS = {
    "": (BOTH, frontier.BUDGETS),
    "--development": (BOTH, frontier.BUDGETS),
    "--short": ({"short": SHORT}, SHORT_BUDGETS),
}
PRIMARY_NS = parse_duration_ns("1s")
BUDGETS = (0.001, 0.01)
SEE_ALL = ("pml-page-tables", "idle-pages", "prl")  # statement 1
SAMPLES = ("flag-sample", "flag-sample-pml")
SILENT = 0.05  # of the time: without an estimate for more of it, a technique is marked
LEAST_ERROR = 0.001  # of W: what is less is not divided by

# The protocol's criterion for each statement.
SAME, BLIND, LAW, BEST, WITHIN = 0.001, 0.2, 0.05, 1.25, 1.1
MOST = 9  # recordings of twelve for which the advice must be right


def exists(name: str) -> bool:
    """Whether processors and the recordings have the inputs of the technique."""
    return not TECHNIQUES[name].needs & {Need.REFERENCES, Need.TABLES}


def looks_on(name: str) -> bool:
    """Whether a technique changes neither the guest nor its memory."""
    return exists(name) and not TECHNIQUES[name].active and not TECHNIQUES[name].intrusive


def means(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points as means over seeds."""
    keys = ["trace", "technique", "window_ns", "looks", "watched", "published", "simulated"]
    columns = ["mae", "bias", "says", "overhead"]
    return points.groupby(keys, dropna=False, sort=False)[columns].mean().reset_index()


def primary(points: pd.DataFrame) -> pd.DataFrame:
    """Return the swept points at the primary T."""
    return points[(points["window_ns"] == PRIMARY_NS) & ~points["published"]]


def equal_looks(points: pd.DataFrame, looks: int = 4) -> pd.DataFrame:
    """Return errors at equal looks of techniques that see all: (recordings, techniques)."""
    chosen = primary(points)
    chosen = chosen[(chosen["looks"] == looks) & chosen["technique"].isin(SEE_ALL)]
    return chosen.pivot_table(index="trace", columns="technique", values="mae")[list(SEE_ALL)]


def sample_with_pml(points: pd.DataFrame) -> pd.DataFrame:
    """Return the gain from PML for a sample at equal cost.

    Returns
    -------
    DataFrame
        ``budget``, ``difference`` (error with PML less without, shares of W), ``low``, ``high``.
    """
    without, with_pml = SAMPLES
    return frontier.differences(primary(points), with_pml, without, BUDGETS).drop(
        columns="window_ns"
    )


def predictions(points: pd.DataFrame, traces: Sequence[Path]) -> pd.DataFrame:
    """Return predicted and measured errors of the law's techniques, T = 1 s: a row per setting."""
    rows = []
    for path in traces:
        recorded = Recorded.of(open_trace(path))
        curves, of_trace = law.Curves(recorded), primary(points)
        of_trace = of_trace[of_trace["trace"] == recorded.name]
        for point in of_trace[of_trace["technique"].isin(list(law.STATED))].itertuples():
            watched = recorded.known_memory_pages if pd.isna(point.watched) else int(point.watched)
            try:
                technique = make(point.technique).turned(int(point.looks), watched)
                found = law.predict(technique, curves, PRIMARY_NS, interval=False)
            except NeedsError:
                continue
            rows.append((recorded.name, point.technique, point.looks, point.watched, found.error,
                         point.mae, found.overhead, point.overhead))  # fmt: skip
    columns = ["trace", "technique", "looks", "watched", "predicted", "measured",
               "overhead_predicted", "overhead"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def advice(points: pd.DataFrame, traces: Sequence[Path]) -> pd.DataFrame:
    """Return the advised technique per recording and budget, its run, and the sweep's best."""
    covered = [name for name in law.STATED if exists(name)]
    swept = primary(points)
    swept = swept[swept["technique"].isin(covered)]
    rows: list[Json] = []
    for path in traces:
        for budget in BUDGETS:
            given = advise(path, budget, window="1s")
            assert given.checked is not None
            within = swept[(swept["trace"] == given.name) & (swept["overhead"] <= budget)]
            best = within.loc[within["mae"].idxmin()]
            rows.append({
                "trace": given.name, "budget": budget,
                "technique": given.choice.technique.name, "looks": given.choice.looks,
                "watched": given.choice.parts.watched or -1, "predicted": given.choice.error,
                "measured": given.checked.error, "overhead": given.checked.overhead,
                "best": best["mae"], "best_technique": best["technique"],
                "best_looks": best["looks"], "best_watched": best["watched"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def statements(
    points: pd.DataFrame, cheap: pd.DataFrame, predicted: pd.DataFrame, advised: pd.DataFrame
) -> pd.DataFrame:
    """Return the statements: ``statement``, ``what``, ``value``, ``asked``, ``holds``."""
    spread = equal_looks(points)
    spread = (spread.max(axis=1) - spread.min(axis=1)).max()
    rows: list[tuple[int, str, object, str, bool]] = [
        (1, "largest difference at four looks, share of W", spread, f"<= {SAME}", spread <= SAME)
    ]
    ranked = cheap[(cheap["window_ns"] == PRIMARY_NS) & (cheap["budget"] == BUDGETS[0])]
    ranked = ranked[ranked["technique"].map(looks_on)].sort_values("error", kind="stable")
    first = ranked["technique"].iloc[0]
    text = f"the least error within {format_share(BUDGETS[0])}"
    rows.append((2, text, first, " or ".join(SAMPLES), first in SAMPLES))
    for row in sample_with_pml(points).itertuples():
        text = f"PML's difference within {format_share(row.budget)}: its interval's end, share of W"
        rows.append((3, text, row.high, ">= 0", row.high >= 0))
    blind = primary(points)
    blind = blind[blind["technique"] == "pml"].groupby("looks")["mae"].mean().min()
    rows.append((4, "least mean error of PML's log, share of W", blind, f"> {BLIND}",
                 blind > BLIND))  # fmt: skip
    far = factors(predicted).median()
    rows.append((5, "median |log10(predicted / measured)|", far, f"<= {LAW}", far <= LAW))
    for budget, part in advised.groupby("budget"):
        good = (part["measured"] <= BEST * part["best"]) & (part["overhead"] <= WITHIN * budget)
        text = (
            f"recordings of {len(part)} whose advice within {format_share(budget)} is near the best"
        )
        rows.append((6, text, int(good.sum()), f">= {MOST}", bool(good.sum() >= MOST)))
    return pd.DataFrame(rows, columns=["statement", "what", "value", "asked", "holds"])


def factors(predicted: pd.DataFrame) -> pd.Series[float]:
    """Return |log10(predicted / measured)| of the pairs that the protocol counts."""
    counted = predicted[(predicted["measured"] >= LEAST_ERROR) & (predicted["predicted"] > 0)]
    return np.abs(np.log10(counted["predicted"] / counted["measured"]))


def against(points: pd.DataFrame, cheap: pd.DataFrame) -> pd.DataFrame:
    """Return exact sign tests of the best technique at each budget against each other one."""
    at_t, rows = points[points["window_ns"] == PRIMARY_NS], []
    for budget in BUDGETS:
        ranked = cheap[(cheap["window_ns"] == PRIMARY_NS) & (cheap["budget"] == budget)]
        ranked = ranked[ranked["technique"].map(looks_on) & np.isfinite(ranked["error"])]
        errors = {row.technique: _errors(at_t, row) for row in ranked.itertuples()}
        best = ranked["technique"].iloc[0]
        for name, error in errors.items():
            if name != best:
                wins = int((errors[best] < error).sum())
                p = significance.sign(errors[best] - error)
                rows.append((budget, best, name, wins, len(error), p))
    return pd.DataFrame(rows, columns=["budget", "best", "technique", "wins", "recordings", "p"])


def _errors(points: pd.DataFrame, row: object) -> pd.Series[float]:
    """Return the errors of a chosen setting by recording; the published one without knobs."""
    of = points[points["technique"] == row.technique]
    if (~of["published"]).any():
        of = of[~of["published"]]
    for knob in ("looks", "watched"):
        value = getattr(row, knob)
        of = of[of[knob].isna() if pd.isna(value) else of[knob] == value]
    return of.set_index("trace")["mae"].sort_index()


# ------------------------------------------------------------------------------
# Tables of texts.


def statement_table(folder: Path) -> pd.DataFrame:
    """Return the statements, and whether they hold."""
    found = pd.read_csv(folder / "statements.csv")
    found["value"] = found["value"].map(_rounded)
    found["what"] = found["what"].str.replace("|", "\\|", regex=False)
    found["holds"] = found["holds"].map({True: "yes", False: "**no**"})
    return found.rename(columns={"statement": "no.", "what": "measured", "value": "is"})


def cost_table(folder: Path, window_ns: int = PRIMARY_NS) -> pd.DataFrame:
    """Return each technique's error within each budget, in percent of W, sorted by the last.

    A star marks a technique whose inputs are simulated. A dagger marks what has no estimate for
    more than `SILENT` of the time in some column: such times are not scored.
    """
    cheap = pd.read_csv(folder / "at-cost.csv")
    return _by_budget(cheap[cheap["window_ns"] == window_ns])


def chosen_table(folder: Path, development: Path, window: str = "1s") -> pd.DataFrame:
    """Return each technique's error at the settings that the development half chose."""
    held_out, training = (frontier.read(one, [window]) for one in (folder, development))
    return _by_budget(frontier.at_settings(held_out, training, CHOSEN))


def _by_budget(cheap: pd.DataFrame) -> pd.DataFrame:
    """Return a column per budget; see `cost_table`."""
    errors = cheap.pivot_table(index="technique", columns="budget", values="error", sort=False)
    order = errors.fillna(np.inf).sort_values(list(errors.columns[::-1])).index
    silent = set(cheap.loc[cheap["says"] < 1 - SILENT, "technique"])
    marks = {name: "*" * (not exists(name)) + "†" * (name in silent) for name in order}
    made = {"technique": [make(name).title + marks[name] for name in order]}
    for budget, part in cheap.groupby("budget"):
        rows = part.set_index("technique").reindex(order)
        made[f"within {format_share(budget)}"] = [_interval(row) for row in rows.itertuples()]
    table = pd.DataFrame(made)
    return table[(table.iloc[:, 1:] != "").any(axis=1)]


def _interval(row: object) -> str:
    """Return an error and its interval, percent; empty if the technique costs more."""
    if not np.isfinite(row.error):
        return ""
    return f"{_percent(row.error)} ({_percent(row.low)} to {_percent(row.high)})"


def _percent(share: float) -> str:
    """Return a share as percent, with three digits."""
    text = f"{100 * share:#.3g}" if share < 1 else f"{100 * share:.0f}"
    return text.rstrip(".").replace("inf", "∞")


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.3g}".replace("inf", "∞")
    except ValueError:
        return value


def described(points: pd.DataFrame, budgets: Sequence[float]) -> dict[str, pd.DataFrame]:
    """Return the tables that are not for a statement."""
    return {
        "at-cost": frontier.at_cost(points, budgets),
        "at-error": frontier.at_error(points),
        "published": frontier.published(points).drop(columns="notes"),
        "left-out": frontier.left_out(points),
    }


def tested(points: pd.DataFrame, cheap: pd.DataFrame, paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Return the statements, and their tables."""
    kept_points = means(points)
    predicted, advised = predictions(kept_points, paths), advice(kept_points, paths)
    return {
        "equal-looks": equal_looks(kept_points).reset_index(),
        "sample-with-pml": sample_with_pml(kept_points),
        "law": predicted,
        "advice": advised,
        "against": against(kept_points, cheap),
        "statements": statements(kept_points, cheap, predicted, advised),
    }


def write(folder: Path, tables: dict[str, pd.DataFrame], points: pd.DataFrame, option: str) -> None:
    """Write the tables, and the points."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
    # Without prices: `frontier.read` adds the current prices of the events.
    unpriced = points.drop(columns=["insn", "overhead"])
    unpriced.to_parquet(folder / "all.points.parquet", index=False, compression="zstd")
    command = f"python -m experiments.wss_bench {option} TRACES POINTS {folder}".replace("  ", " ")
    made.note(folder / "made.json", command, {"pmlkit": pmlkit.__version__})


def main(*given: str) -> None:
    """Sweep, and write the tables; the functions describe the columns."""
    option, (traces, kept, out) = "".join(given[:-3]), given[-3:]
    paths = sorted(Path(traces).glob("*.trace"))
    plans, budgets = SWEEPS[option]
    swept = [frontier.sweep(paths, plan, Path(kept) / name, 2) for name, plan in plans.items()]
    points = pd.concat(swept, ignore_index=True)
    tables = described(points, budgets)
    if not option:
        tables |= tested(points, tables["at-cost"], paths)
        print(tables["statements"].to_string(index=False))
    write(Path(out), tables, points, option)


if __name__ == "__main__":
    main(*sys.argv[1:])
