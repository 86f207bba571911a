# SPDX-License-Identifier: Apache-2.0
"""The numbers and tables that texts quote: each is made of ``data/``, and the text names its key.

A number has its key in a comment after it, which neither a forge nor Sphinx shows; a table stands
between two comments:

    its mean error is 6.7<!--n:draws.sqlite-lab.16.anew.error--> %

    <!-- table: exits -->
    ...
    <!-- end -->

A comment must not begin a line: Markdown would take the line for HTML.

    python -m experiments.quoted            # writes every text anew
    python -m experiments.quoted --check    # says which are out of date, and changes nothing
    python -m experiments.quoted --list     # the keys, and what each is now
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import yaml

from experiments import caps, cost_tables, equal_looks, law, mrc_errors, wss_bench
from pmlkit.costs import prices
from pmlkit.notebook import reads_tables
from pmlkit.reads import calibration
from pmlkit.recordings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    Keyed = Iterator[tuple[str, str]]  # a key within its group, and the number as texts have it

__all__ = [
    "GROUPS",
    "TABLES",
    "Bare",
    "bare",
    "filled",
    "keys",
    "markdown",
    "number",
    "plain",
    "texts",
]

DATA = ROOT / "data"
HELD_OUT = DATA / "wss-bench"
PLAIN = ROOT / "docs" / "plain_numbers.yaml"
_NUMBER = re.compile(r"(?P<text>[-+]?\d[\d,]*(?:\.\d+)?)<!--n:(?P<key>[\w.-]+)-->")
_MARK = re.compile(r"<!--n:[^>]*-->")
_TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.S)


# ------------------------------------------------------------------------------
# The numbers: each function yields those of a group.


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    """Return a percentage with two digits or more."""
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:,.0f}"


def _range(key: str, values: pd.Series[float], form: Callable[[float], str] = _short) -> Keyed:
    """Yield the least and the most, and whose they are is for the text to say."""
    yield f"{key}.least", form(values.min())
    yield f"{key}.most", form(values.max())


def draws() -> Keyed:
    """Yield errors of a sample of accessed flags, in percent, from each of its draws.

    ``RECORDING.ONE_IN.KIND.``: ``error`` (mean over the draws of a round's absolute error),
    ``first`` (of the first draw), ``worst`` (of the worst), ``worst-mean`` (of the worst draw's
    mean over all rounds), ``inside`` and ``worst-inside`` (rounds whose truth is in the interval).
    ``all.`` in place of a recording: the least and the most over the recordings.
    """
    table = pd.read_csv(DATA / "reads-draws" / "draws.csv")
    rows = {}
    for (name, one_in, kind), part in table.groupby(["recording", "one_in", "drawn"], sort=False):
        rows[f"{one_in}.{kind}", name] = {
            "error": part["error"].mean(),
            "first": part["error"].iloc[0],
            "worst": part["error"].max(),
            "worst-mean": part["of_mean"].abs().max(),
            "inside": part["inside"].mean(),
            "worst-inside": part["inside"].min(),
        }
        yield f"{name}.rounds", _count(part["rounds"].iloc[0])
        for what, value in rows[f"{one_in}.{kind}", name].items():
            yield f"{name}.{one_in}.{kind}.{what}", _short(value)
    summed = pd.DataFrame(rows).T
    for sample, part in summed.groupby(level=0):
        for what in summed:
            yield from _range(f"all.{sample}.{what}", part[what])
    yield "draws", _count(table["draw"].nunique())
    yield "recordings", _count(table["recording"].nunique())


def lab() -> Keyed:
    """Yield errors of the estimates in the lab, in percent.

    ``GUEST.METHOD.``: ``mean``, ``median`` (of a round's absolute error), ``missed`` (by PML
    alone), ``inside`` and ``width`` (of the interval). ``programs.``, ``benchmarks.``,
    ``adversaries.`` in place of a guest: the least and the most over those.
    """
    table = reads_tables.errors().rename(columns={"mape": "mean"})
    columns = ["mean", "median", "missed", "inside", "width"]
    for row in table.to_dict("records"):
        for column in columns:
            yield f"{row['guest']}.{row['method']}.{column}", _short(row[column])
    for (group, method), part in table.groupby(["group", "method"], sort=False):
        plural = {"adversary": "adversaries"}.get(group, f"{group}s")
        for column in columns:
            yield from _range(f"{plural}.{method}.{column}", part[column])
        yield from _range(f"{plural}.rounds", part["rounds"], _count)
    sampled = table[table["method"] == "sample"]
    yield "sample.inside.least", _short(sampled["inside"].min())
    yield from _taught(table)
    yield from _phases()
    yield from _leftovers()
    yield from _clearing()


def _phases() -> Keyed:
    """Yield what PML alone misses while rrww reads; of (c), estimate and truth of a phase, MiB."""
    errors = calibration.load("errors")
    errors = errors[~errors["cleared"]].fillna({"phase": ""})
    errors = errors.set_index(["guest", "phase", "method"])
    yield "read-phase.rrww", _short(errors.loc[("rrww", "read1", "written"), "missed"])
    for guest, phase, method in errors.index:
        if method == "accessed" and phase not in ("", "work"):
            row = errors.loc[(guest, phase, method)]
            yield f"phase.{guest}.{phase}.estimate", _short(row["estimate"])
            yield f"phase.{guest}.{phase}.truth", _short(row["truth"])


def _taught(table: pd.DataFrame) -> Keyed:
    """Yield how far intervals that other guests teach hold, and their median width in truths."""
    for name, methods in (("", ("leaves", "present", "accessed")), ("-cleared", ("cleared",))):
        part = table[table["method"].isin(methods)]
        held = (part["inside"] * part["rounds"]).sum() / part["rounds"].sum()
        yield f"taught{name}.inside", _short(held)
        yield f"taught{name}.width", f"{part['width'].median() / 100:.1f}"


def _leftovers() -> Keyed:
    """Yield what the guided harvest left to a scan: ``left.GUEST`` and its ``share``, ``most``."""
    rounds = calibration.load("equality")
    for name, part in rounds.groupby("guest", sort=False):
        left, guided = part["left"].sum(), part["guided"].sum()
        yield f"left.{name}", _count(left)
        yield f"left.{name}.share", _short(left / (left + guided) * 100)
        yield f"left.{name}.most", _count(part["left"].max())


def _clearing() -> Keyed:
    """Yield thousands of instructions a round: what clearing flags adds, and what a scan takes."""
    table = calibration.load("costs")
    table = table[(table["group"] == "program") & ~table["sampled"].astype(bool)]
    means = table.groupby(["guest", "cleared"])[["tables_tsc", "scan_tsc"]].mean() / 1e3
    tables = means["tables_tsc"].unstack()
    yield from _range("clearing", tables[True] - tables[False], _count)
    yield from _range("scanning", means["scan_tsc"], _count)


def kernel() -> Keyed:
    """Yield the share of what programs' guests touch that cleared flags leave unsure, in percent.

    These pages are under large pages of the kernel alone. ``GUEST`` (a mean), ``guests.`` and
    ``rounds.`` (the least and the most).
    """
    unsure = calibration.load("unsure").merge(_truths(), on=["guest", "round"])
    unsure = unsure[unsure["group"] == "program"]
    shares = unsure["pages"] / unsure["truth"] * 100
    means = shares.groupby(unsure["guest"], sort=False).mean()
    for name, share in means.items():
        yield str(name), _short(share)
    yield from _range("guests", means)
    yield from _range("rounds", shares)


def _truths() -> pd.DataFrame:
    """Return the truth of the rounds in which guests work, in runs with cleared flags."""
    rounds = calibration.load("rounds")
    works = rounds["phase"].notna() & (rounds["phase"] != "start")
    chosen = works & rounds["cleared"] & (rounds["method"] == "accessed")
    return rounds.loc[chosen, ["guest", "round", "truth"]]


def harvests() -> Keyed:
    """Yield instructions a round of each harvest: ``GUEST.HARVEST``, and frames ``left``.

    ``redrawn.``: how many times as much a sample that is drawn anew costs as a fixed one.
    """
    table = pd.read_csv(DATA / "harvests" / "guests.csv").set_index("guest")
    names = {"sampled, fixed": "fixed", "sampled": "anew"}
    for name, row in table[["touched", "guided", "pruned", "scan", *names]].iterrows():
        for harvest, value in row.dropna().items():
            yield f"{name}.{names.get(str(harvest), harvest)}", _count(value)
    yield from _range("redrawn", table["sampled"] / table["sampled, fixed"], _short)
    for harvest in ("pruned", "guided"):
        yield f"left.{harvest}", _count(table[f"left by {harvest}"].sum())
    yield "guests", _count(len(table))


def hotness() -> Keyed:
    """Yield how well regions are ranked: medians over guests that nothing was chosen on.

    ``lab.`` (real page tables) and ``recorder.`` (a stand-in: 2 MiB of guest-physical memory, by
    its first use): ``correlation``, ``precision``, ``chance``, and ``share-`` of these, which knows
    no order.
    """
    table = reads_tables.hotness_scores()
    table = table[table["truth"] == "rounds"].rename(columns=lambda name: name.replace("_", "-"))
    for source, part in table.groupby("source"):
        yield f"{source}.guests", _count(len(part))
        for column in (
            "correlation",
            "share-correlation",
            "precision",
            "share-precision",
            "chance",
        ):
            yield f"{source}.{column}", f"{part[column].median():.2f}"
        for column in ("precision", "share-precision", "chance"):
            yield f"{source}.{column}.of-10", f"{part[column].median() * 10:.2g}"
        better = (part["share-correlation"] > part["correlation"]).sum()
        yield f"{source}.share-better", _count(better)


def pieces() -> Keyed:
    """Yield the longest pieces, in instructions: ``OPERATION.most``, and ``at.`` where they end.

    These are of the guests that ran, without the model of 1 TiB.
    """
    table = cost_tables.longest_pieces().set_index("operation")
    counted = table[[column for column in table if "model" not in column]]
    for operation, most in counted.max(axis=1).items():
        yield f"{re.sub('[^a-z0-9]+', '-', str(operation))}.most", _count(most)
    rows = pd.read_csv(DATA / "pieces" / "pieces.csv")
    for place, most in rows.groupby("ended")["longest"].max().items():
        yield f"at.{place}", _count(most)


def mrc() -> Keyed:
    """Yield errors of miss-ratio curves, in misses per use.

    ``RECORDING.SETTING.``: ``mean`` and ``largest`` over the sizes, ``sampled`` (pages). Settings:
    ``default`` (SHARDS as `pmlkit mrc` runs it), ``10``, ``1`` (percent of the pages, means over
    seeds), ``aet``.
    """
    table = pd.read_csv(DATA / "mrc-errors" / "errors.csv")
    short = dict(zip(mrc_errors.SETTINGS, ("default", "10", "1", "aet"), strict=True))
    means = table.groupby(["recording", "setting"])[["sampled", "mean", "largest"]].mean()
    for (name, setting), row in means.iterrows():  # type: ignore[misc]
        yield f"{name}.{short[setting]}.sampled", _count(row["sampled"])
        yield f"{name}.{short[setting]}.mean", f"{row['mean']:.3f}"
        yield f"{name}.{short[setting]}.largest", f"{row['largest']:.2f}"
    default = table[table["setting"] == next(iter(short))]
    yield "default.mean.most", f"{default['mean'].max():.4f}"
    yield "default.largest.most", f"{default['largest'].max():.2f}"
    yield "recordings", _count(len(default))
    yield "whole", _count(default["looked_at"].eq(1).sum())


def price() -> Keyed:
    """Yield the prices of events, in instructions, with the way out of a guest if it is left."""
    for event, of in prices().items():
        yield event, f"{of.insn:,.1f}" if of.insn < 10 else _count(of.insn)


def exits() -> Keyed:
    """Yield what an exit takes more with the series: ``more.off``, ``more.on`` (logged)."""
    off = cost_tables.exits_off().set_index(["Xen", "logged"])["more"]
    yield "more.off", _count(off["with it", "no domain is logged"])
    yield "more.on", _count(off["with it", "this domain is logged"])


def bench() -> Keyed:
    """Yield ratios of speed, of one run of the benchmark."""
    for row in pd.read_csv(DATA / "bench" / "ratios.csv").itertuples():
        yield str(row.ratio), f"{row.value:.2g}"


def law_of_errors() -> Keyed:
    """Yield by what factor predicted errors are off, on the recorder's guests.

    ``half``, ``nine``: within it are half of the points, or nine of ten. ``start.``: if it is known
    when looks begin; ``parts.``: of the three parts alone; ``lab.``: on the lab's guests;
    ``TECHNIQUE.``, ``RECORDING.``. ``drawn.inside``, ``counted.inside``: percent of the runs within
    the interval, of techniques that draw frames and of those that count.
    ``overhead.``: of the predicted cost.
    """
    table, lab = (law.load(DATA / "law", lab=of_lab) for of_lab in (False, True))
    columns = {"": "predicted", "start.": "from_start", "parts.": "by_parts"}
    kinds = [(name, law.factors(table, column)) for name, column in columns.items()]
    kinds.append(("lab.", law.factors(lab)))
    cost = table["overhead"] / table["overhead_measured"]
    kinds.append(("overhead.", np.exp(np.log(cost).abs())))
    for column in ("technique", "recording"):
        kinds += [(f"{name}.", law.factors(part)) for name, part in table.groupby(column)]
    for name, off in kinds:
        yield f"{name}half", f"{off.median():.2f}"
        yield f"{name}nine", f"{off.quantile(0.9):.2f}"
    yield "points", _count(len(table))
    yield "recordings", _count(table["recording"].nunique())
    yield "techniques", _count(table["technique"].nunique())
    drawn = table["watched"] > 0
    yield "drawn.inside", _count(100 * table.loc[drawn, "inside"].mean())
    yield "counted.inside", _count(100 * table.loc[~drawn, "inside"].mean())


def capped() -> Keyed:
    """Yield what guests did that had the memory that a technique says; real ones only.

    ``PROGRAM.``: ``peak``, ``reserve``, ``w`` and ``twice``, MiB; ``PROGRAM.TECHNIQUE.``: ``cap``
    (MiB), ``saved`` (percent of the peak), ``swap-ins``, ``per-s``, ``work`` and ``slowdown``
    (times). ``waits.``: what a page took on the emulated disk, ms. ``model.``: the model's swap-ins
    over the real ones, in percent, of the guests that swapped `caps.FEW` pages or more. ``same``:
    techniques of ``all`` whose cap is that of the truth, a step more or less, in each program.
    """
    for row in pd.read_csv(DATA / "caps" / "programs.csv").itertuples():
        for what in ("peak", "reserve", "w", "twice"):
            yield f"{row.program}.{what}", _count(getattr(row, f"{what}_mib"))
    table = pd.read_csv(DATA / "caps" / "caps.csv")
    for row in table.dropna(subset=["swap_ins"]).itertuples():
        at = f"{row.program}.{row.technique}"
        yield f"{at}.cap", _count(row.cap_mib)
        yield f"{at}.saved", _count(row.saved * 100)
        yield f"{at}.swap-ins", _count(row.swap_ins)
        yield f"{at}.per-s", _count(row.swap_ins_per_s)
        yield f"{at}.work", f"{row.work:.2f}"
        yield f"{at}.slowdown", f"{row.slowdown:.2f}"
    swapped = table[table["swap_ins"] >= caps.FEW]
    yield from _range("waits", swapped["wait_ms"])
    check = pd.read_csv(DATA / "caps" / "check.csv")
    check = check[check["real"] >= caps.FEW]
    yield from _range("model", (check["model"] / check["real"] - 1) * 100, _count)
    yield "model.guests", _count(len(check))
    wide = pd.read_csv(DATA / "caps" / "model.csv").pivot(
        index="technique", columns="program", values="cap_mib"
    )
    near = ((wide - wide.loc[caps.TRUTH]).abs() <= caps.STEP_MIB).all(axis=1)
    yield "same", _count(near.sum() - 1)
    yield "all", _count(len(wide) - 1)


def clock() -> Keyed:
    """Yield what moves with the guest's clock, from 125 MIPS to 1,000.

    ``w.instructions.`` and ``w.time.``: mean W with T of as many instructions, or as long, over
    that at 125 MIPS; ``p95.``: its 95th percentile. ``KIND.correlation.`` of ranks,
    ``KIND.ratio.`` of errors, ``KIND.best``: how often the best technique is the same,
    ``KIND.regret.``: its error over the least.
    """
    folder = DATA / "clock-sensitivity"
    sizes = pd.read_csv(folder / "sizes.csv")
    for kind, column in (("instructions", "t_insn"), ("time", "t_ns")):
        for what in ("w", "p95"):
            of = sizes[sizes["kind"] == kind]
            wide = of.pivot_table(what, ["program", column], "ns_per_insn")
            yield from _range(f"{what}.{kind}", (wide[1.0] / wide[8.0]).dropna(), "{:.2f}".format)
    agreed = pd.read_csv(folder / "agreement.csv")
    for kind, of in agreed[agreed["ns_per_insn"] == 1].groupby("kind"):
        yield from _range(f"{kind}.correlation", of["correlation"], "{:.2f}".format)
        yield from _range(f"{kind}.ratio", of["error_ratio"], "{:.2f}".format)
        yield from _range(f"{kind}.regret", of["regret"], "{:.2f}".format)
        yield f"{kind}.best", _count((of["first"] == of["other"]).sum())
        yield f"{kind}.cases", _count(len(of))


GROUPS: dict[str, Callable[[], Keyed]] = {
    "draws": draws,
    "lab": lab,
    "kernel": kernel,
    "harvests": harvests,
    "hotness": hotness,
    "pieces": pieces,
    "mrc": mrc,
    "price": price,
    "exits": exits,
    "bench": bench,
    "law": law_of_errors,
    "caps": capped,
    "clock": clock,
}


@cache
def numbers(group: str) -> dict[str, str]:
    """Return the numbers of a group by key."""
    return dict(GROUPS[group]())


def number(key: str) -> str:
    """Return a number as texts have it, by its key: the group, a point, and the key in it.

    Raises
    ------
    KeyError
        If there is none.
    """
    group, _, rest = key.partition(".")
    if group not in GROUPS or rest not in numbers(group):
        raise KeyError(f"no number has the key {key}: python -m experiments.quoted --list")
    return numbers(group)[rest]


def mrc_table() -> pd.DataFrame:
    """Return how far SHARDS and AET are from the exact curve."""
    return mrc_errors.summary(pd.read_csv(DATA / "mrc-errors" / "errors.csv"))


def swap_table() -> pd.DataFrame:
    """Return what limited guests swapped, and by how much the model is off."""
    table = pd.read_csv(DATA / "swap-model" / "swaps.csv")
    made = {"guest": [f"{row.program}, {row.memory_mib} MiB" for row in table.itertuples()]}
    for way, title in (("read", "pages read from swap"), ("written", "pages written")):
        off = table[f"model_{way}"] / table[way] - 1
        told = ["" if share != share else f"{share * 100:+.0f} %" for share in off]
        made |= {title: table[way], f"the model, {way}": told}
    return pd.DataFrame(made)


def equal_table() -> pd.DataFrame:
    """Return the errors of techniques that see all accesses, at equal numbers of looks."""
    return equal_looks.summary(pd.read_csv(DATA / "equal-looks" / "errors.csv"))


def law_table() -> pd.DataFrame:
    """Return, for each technique, how far predicted errors are off, on the recorder's guests."""
    table = law.summary(law.load(DATA / "law")).reset_index()
    shares = [name for name in table if name.endswith("%")]
    table[shares] = table[shares].map(_short)
    return table.assign(
        **{n: table[n].map("{:.2f}".format) for n in ("half within", "nine of ten")}
    )


def capped_table(name: str = "caps") -> pd.DataFrame:
    """Return what techniques are worth to an operator, over all programs."""
    made = caps.summary(pd.read_csv(DATA / "caps" / f"{name}.csv"))
    worst = made["slowdown" if "slowdown" in made else "waiting"]
    return pd.DataFrame(
        {
            "technique": [title.partition(" (")[0] for title in made["title"]],
            f"slowed by more than {caps.HURT - 1:.0%}": [
                f"{row.hurt} of {row.programs}" for row in made.itertuples()
            ],
            "slow-down, the worst (times)": [f"{times:.2f}" for times in worst],
            "pages back a second": [_count(value) for value in made["swap_ins_per_s"]],
            "memory saved (% of the peak)": [_count(value * 100) for value in made["saved"]],
            "MiB beyond the truth's cap": [f"{value:+.0f}" for value in made["beyond_mib"]],
        }
    )


def windows_table() -> pd.DataFrame:
    """Return what the memory model says of the true W(t, T) for several T."""
    table = pd.read_csv(DATA / "caps" / "windows.csv")
    return pd.DataFrame(
        {
            "program": table["program"],
            "T (s)": [f"{ns / 1e9:g}" for ns in table["window_ns"]],
            "size (MiB)": table["cap_mib"],
            "memory saved (% of the peak)": [_count(share * 100) for share in table["saved"]],
            "pages back a second": [_count(value) for value in table["swap_ins_per_s"]],
            "slow-down (times)": [f"{value:.2f}" for value in table["waiting"]],
        }
    )


def clock_table() -> pd.DataFrame:
    """Return, for each program and kind of T, what moves from 125 MIPS to 1,000."""
    table = pd.read_csv(DATA / "clock-sensitivity" / "agreement.csv")
    table = table[(table["ns_per_insn"] == 1) & (table["budget"] == 0.005)]
    return pd.DataFrame(
        {
            "program": table["program"],
            "T of the same": table["kind"],
            "techniques": table["techniques"],
            "correlation of errors": [f"{value:.2f}" for value in table["correlation"]],
            "error, over that at 125 MIPS": [f"{value:.2f}" for value in table["error_ratio"]],
            "best at 125 MIPS": table["first"],
            "best at 1,000": table["other"],
        }
    )


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    **cost_tables.TABLES,
    "mrc-errors": mrc_table,
    "swap-model": swap_table,
    "equal-looks": equal_table,
    "law": law_table,
    "caps": capped_table,
    "caps-model": lambda: capped_table("model"),
    "caps-windows": windows_table,
    "clock": clock_table,
    "wss-statements": lambda: wss_bench.statement_table(HELD_OUT),
    "wss-cost": lambda: wss_bench.cost_table(HELD_OUT),
}


# ------------------------------------------------------------------------------
# The texts.


def texts() -> Iterable[Path]:
    """Return the texts that may quote: Markdown and notebooks, without what `make docs` makes."""
    yield ROOT / "README.md"
    yield ROOT / "hypervisor-patches" / "README.md"
    made = {"_figures", "notebooks"}
    yield from sorted(p for p in (ROOT / "docs").glob("*/*.md") if p.parent.name not in made)
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from sorted((ROOT / "notebooks").glob("*.ipynb"))


def filled(text: str) -> str:
    """Return the text with its numbers and tables written anew."""
    text = _NUMBER.sub(lambda m: f"{number(m['key'])}<!--n:{m['key']}-->", text)
    return _TABLE.sub(lambda m: m[1] + cost_tables.markdown(TABLES[m["name"]]()) + m[3], text)


def keys(text: str) -> list[str]:
    """Return the keys of the numbers in a text."""
    return [match["key"] for match in _NUMBER.finditer(text)]


# ------------------------------------------------------------------------------
# Numbers without a key.


class Bare(NamedTuple):
    """A number that looks measured and names no key: its line (from 1), and what stands there."""

    line: int
    text: str


_UNITS = (
    r"(?:%|percent|times|instructions?|pages|frames|entries|exits|points|rounds of|"
    r"(?:thousand|million)\b|[mµn]s\b|s\b|seconds?\b|[KMGT]iB\b|MB\b|GB\b)"
)
_DIGITS = r"\d[\d,]*(?:\.\d+)?"
# With a unit, or of more than three digits, or a fraction.
_MEASURED = re.compile(
    rf"(?<![\w.,/^-])(?:{_DIGITS}(?= ?{_UNITS})|\d{{1,3}}(?:,\d{{3}})++|\d+\.\d++(?!\.?\w))"
    "(?!<!--n:)"
)
_HIDDEN = re.compile(r"`[^`\n]*`|\]\([^)]*\)|\$[^$\n]+\$|<!--(?!n:).*?-->")
_FENCE = re.compile(r" {0,3}(`{3,}|:{3,})")


def markdown(path: Path) -> str:
    """Return the Markdown of a text: of a notebook, that of its cells."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of Markdown (from 1) that are neither code nor a table made of data."""
    fence, made = False, False
    for place, line in enumerate(text.splitlines(), 1):
        fence ^= bool(_FENCE.match(line))
        made = not line.startswith("<!-- end -->") and (made or line.startswith("<!-- table: "))
        if not (fence or made or line.startswith(("    ", "\t"))):
            yield place, _HIDDEN.sub(" ", line)


def bare(text: str, plain: Sequence[str] = ()) -> list[Bare]:
    """Return the numbers of a text in Markdown that look measured and name no key.

    Parameters
    ----------
    text : str
    plain : sequence of str
        What is no measurement, as regular expressions: settings, sizes of structures, versions,
        numbers whose source stands beside them.
    """
    known = re.compile("|".join(f"(?:{one})" for one in plain) or "(?!)")
    found = []
    for place, line in prose(text):
        spans = [match.span() for match in known.finditer(line)]
        for match in _MEASURED.finditer(line):
            if not any(start <= match.start() < end for start, end in spans):
                found.append(Bare(place, line[max(match.start() - 30, 0) : match.end() + 20]))
    return found


def plain(path: Path) -> list[str]:
    """Return what of a text is no measurement, as `bare` takes it: `PLAIN` says why."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(PLAIN.read_text())
    name = path.relative_to(ROOT).as_posix()
    return [
        one for of in ("everywhere", name) for ones in listed.get(of, {}).values() for one in ones
    ]


# ------------------------------------------------------------------------------
# The command.


def _write(path: Path) -> None:
    text = path.read_text()
    if (made := filled(text)) != text:
        path.write_text(made)
        print(f"{path.relative_to(ROOT)}: written anew")


def _problems() -> Iterator[str]:
    """Yield what is wrong with the texts: numbers out of date, or without a key; old exceptions."""
    for path in texts():
        name, text, excepted = path.relative_to(ROOT), markdown(path), plain(path)
        if filled(path.read_text()) != path.read_text():
            yield f"{name}: its numbers are out of date: python -m experiments.quoted"
        for found in bare(text, excepted):
            yield f"{name}:{found.line}: name its key, or list it in {PLAIN.name}: {found.text}"
    listed = yaml.safe_load(PLAIN.read_text())
    for name in set(listed) - {"everywhere"}:
        lines = "\n".join(line for _, line in prose(markdown(ROOT / name)))
        for regex in (one for ones in listed[name].values() for one in ones):
            if not re.search(regex, lines, re.M):
                yield f"{PLAIN.name}: {name} has no {regex} any more"


def main(option: str = "") -> None:
    """Write the texts anew; or check them, or list the keys."""
    if option == "--check":
        sys.exit("\n".join(_problems()) or 0)
    elif option == "--list":
        for group in GROUPS:
            for key, value in numbers(group).items():
                print(f"{group}.{key} {value}")
    elif option:
        sys.exit(f"{option}: give --check, --list, or nothing")
    else:
        for path in texts():
            _write(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
