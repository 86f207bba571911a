# SPDX-License-Identifier: Apache-2.0
"""The numbers that texts quote, by key: a function for each group, computed from ``data/``.

`experiments.quoted` writes them into the texts.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments import ablation, caps, cost_tables, law, mrc_errors
from pmlkit.costs import prices
from pmlkit.law import OUTSIDE, STATED
from pmlkit.notebook import reads_tables
from pmlkit.reads import calibration
from pmlkit.recordings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Keyed = Iterator[tuple[str, str]]  # a key within its group, and the number as quoted

__all__ = ["DATA", "GROUPS", "count", "number", "numbers", "short"]

DATA = ROOT / "data"


def count(value: float) -> str:
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Return a percentage with two digits or more."""
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:,.0f}"


def _range(key: str, values: pd.Series[float], form: Callable[[float], str] = short) -> Keyed:
    """Yield the least and the largest value."""
    yield f"{key}.least", form(values.min())
    yield f"{key}.most", form(values.max())


def draws() -> Keyed:
    """Yield the errors of a sample of accessed flags over its draws, in percent.

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
        yield f"{name}.rounds", count(part["rounds"].iloc[0])
        for what, value in rows[f"{one_in}.{kind}", name].items():
            yield f"{name}.{one_in}.{kind}.{what}", short(value)
    summed = pd.DataFrame(rows).T
    for sample, part in summed.groupby(level=0):
        for what in summed:
            yield from _range(f"all.{sample}.{what}", part[what])
    yield "draws", count(table["draw"].nunique())
    yield "recordings", count(table["recording"].nunique())


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
            yield f"{row['guest']}.{row['method']}.{column}", short(row[column])
    for (group, method), part in table.groupby(["group", "method"], sort=False):
        plural = {"adversary": "adversaries"}.get(group, f"{group}s")
        for column in columns:
            yield from _range(f"{plural}.{method}.{column}", part[column])
        yield from _range(f"{plural}.rounds", part["rounds"], count)
    sampled = table[table["method"] == "sample"]
    yield "sample.inside.least", short(sampled["inside"].min())
    yield from _taught(table)
    yield from _phases()
    yield from _leftovers()
    yield from _clearing()


def _phases() -> Keyed:
    """Yield PML's missed pages while rrww reads; and the estimate (c) and truth of a phase, MiB."""
    errors = calibration.load("errors")
    errors = errors[~errors["cleared"]].fillna({"phase": ""})
    errors = errors.set_index(["guest", "phase", "method"])
    yield "read-phase.rrww", short(errors.loc[("rrww", "read1", "written"), "missed"])
    for guest, phase, method in errors.index:
        if method == "accessed" and phase not in ("", "work"):
            row = errors.loc[(guest, phase, method)]
            yield f"phase.{guest}.{phase}.estimate", short(row["estimate"])
            yield f"phase.{guest}.{phase}.truth", short(row["truth"])


def _taught(table: pd.DataFrame) -> Keyed:
    """Yield the coverage of calibrated intervals, and their median width relative to the truth."""
    for name, methods in (("", ("leaves", "present", "accessed")), ("-cleared", ("cleared",))):
        part = table[table["method"].isin(methods)]
        held = (part["inside"] * part["rounds"]).sum() / part["rounds"].sum()
        yield f"taught{name}.inside", short(held)
        yield f"taught{name}.width", f"{part['width'].median() / 100:.1f}"


def _leftovers() -> Keyed:
    """Yield the frames that the guided harvest left: ``left.GUEST`` and its ``share``, ``most``."""
    rounds = calibration.load("equality")
    for name, part in rounds.groupby("guest", sort=False):
        left, guided = part["left"].sum(), part["guided"].sum()
        yield f"left.{name}", count(left)
        yield f"left.{name}.share", short(left / (left + guided) * 100)
        yield f"left.{name}.most", count(part["left"].max())


def _clearing() -> Keyed:
    """Yield thousands of instructions per round: of clearing flags, and of a scan."""
    table = calibration.load("costs")
    table = table[(table["group"] == "program") & ~table["sampled"].astype(bool)]
    means = table.groupby(["guest", "cleared"])[["tables_tsc", "scan_tsc"]].mean() / 1e3
    tables = means["tables_tsc"].unstack()
    yield from _range("clearing", tables[True] - tables[False], count)
    yield from _range("scanning", means["scan_tsc"], count)


def kernel() -> Keyed:
    """Yield the share of touched pages that cleared flags leave uncertain, in percent.

    These pages are under large pages of the kernel alone. ``GUEST`` (a mean), ``guests.`` and
    ``rounds.`` (the least and the most).
    """
    unsure = calibration.load("unsure").merge(_truths(), on=["guest", "round"])
    unsure = unsure[unsure["group"] == "program"]
    shares = unsure["pages"] / unsure["truth"] * 100
    means = shares.groupby(unsure["guest"], sort=False).mean()
    for name, share in means.items():
        yield str(name), short(share)
    yield from _range("guests", means)
    yield from _range("rounds", shares)


def _truths() -> pd.DataFrame:
    """Return the truth of the rounds in which guests work, in runs with cleared flags."""
    rounds = calibration.load("rounds")
    works = rounds["phase"].notna() & (rounds["phase"] != "start")
    chosen = works & rounds["cleared"] & (rounds["method"] == "accessed")
    return rounds.loc[chosen, ["guest", "round", "truth"]]


def harvests() -> Keyed:
    """Yield instructions per round of each harvest: ``GUEST.HARVEST``, and frames ``left``.

    ``redrawn.``: how many times as much a sample that is drawn anew costs as a fixed one.
    """
    table = pd.read_csv(DATA / "harvests" / "guests.csv").set_index("guest")
    names = {"sampled, fixed": "fixed", "sampled": "anew"}
    for name, row in table[["touched", "guided", "pruned", "scan", *names]].iterrows():
        for harvest, value in row.dropna().items():
            yield f"{name}.{names.get(str(harvest), harvest)}", count(value)
    yield from _range("redrawn", table["sampled"] / table["sampled, fixed"], short)
    for harvest in ("pruned", "guided"):
        yield f"left.{harvest}", count(table[f"left by {harvest}"].sum())
    yield "guests", count(len(table))


def hotness() -> Keyed:
    """Yield the quality of the ranking of regions: medians over held-out guests.

    ``lab.`` (real page tables) and ``recorder.`` (a stand-in: 2 MiB of guest-physical memory, by
    its first use): ``correlation``, ``precision``, ``chance``, and ``share-`` of these, which knows
    no order.
    """
    table = reads_tables.hotness_scores()
    table = table[table["truth"] == "rounds"].rename(columns=lambda name: name.replace("_", "-"))
    for source, part in table.groupby("source"):
        yield f"{source}.guests", count(len(part))
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
        yield f"{source}.share-better", count(better)


def pieces() -> Keyed:
    """Yield the longest pieces, in instructions: ``OPERATION.most``, and their ends, ``at.``.

    These are of the guests that ran, without the model of 1 TiB.
    """
    table = cost_tables.longest_pieces().set_index("operation")
    counted = table[[column for column in table if "model" not in column]]
    for operation, most in counted.max(axis=1).items():
        yield f"{re.sub('[^a-z0-9]+', '-', str(operation))}.most", count(most)
    rows = pd.read_csv(DATA / "pieces" / "pieces.csv")
    for place, most in rows.groupby("ended")["longest"].max().items():
        yield f"at.{place}", count(most)


def mrc() -> Keyed:
    """Yield errors of miss-ratio curves, in misses per use.

    ``RECORDING.SETTING.``: ``mean`` and ``largest`` over the sizes, ``sampled`` (pages). Settings:
    ``default`` (SHARDS as `pmlkit mrc` runs it), ``10``, ``1`` (percent of the pages, means over
    seeds), ``aet``.
    """
    table = pd.read_csv(DATA / "mrc-errors" / "errors.csv")
    named = dict(zip(mrc_errors.SETTINGS, ("default", "10", "1", "aet"), strict=True))
    means = table.groupby(["recording", "setting"])[["sampled", "mean", "largest"]].mean()
    for (name, setting), row in means.iterrows():  # type: ignore[misc]
        yield f"{name}.{named[setting]}.sampled", count(row["sampled"])
        yield f"{name}.{named[setting]}.mean", f"{row['mean']:.3f}"
        yield f"{name}.{named[setting]}.largest", f"{row['largest']:.2f}"
    default = table[table["setting"] == next(iter(named))]
    yield "default.mean.most", f"{default['mean'].max():.4f}"
    yield "default.largest.most", f"{default['largest'].max():.2f}"
    yield "recordings", count(len(default))
    yield "whole", count(default["looked_at"].eq(1).sum())


def price() -> Keyed:
    """Yield the prices of events, in instructions, including a VM exit if there is one."""
    for event, of in prices().items():
        yield event, f"{of.insn:,.1f}" if of.insn < 10 else count(of.insn)


def kvm() -> Keyed:
    """Yield the instructions with which KVM logs a page by PML and arms it again.

    ``bitmap.`` and ``ring.``: the least and the most over kernels and ways to capture.
    """
    table = pd.read_csv(DATA / "kvm-costs" / "costs.csv")
    for log, part in table.groupby("log"):
        yield from _range(str(log), part["log a page"] + part["re-arm it"], count)


def exits() -> Keyed:
    """Yield the additional cost of an exit with the series: ``more.off``, ``more.on`` (logged)."""
    off = cost_tables.exits_off().set_index(["Xen", "logged"])["more"]
    yield "more.off", count(off["with it", "no domain is logged"])
    yield "more.on", count(off["with it", "this domain is logged"])


def bench() -> Keyed:
    """Yield ratios of speed from one run of the benchmark."""
    for row in pd.read_csv(DATA / "bench" / "ratios.csv").itertuples():
        yield str(row.ratio), f"{row.value:.2g}"


def law_of_errors() -> Keyed:
    """Yield the factors between predicted and measured errors, on the recorder's guests.

    ``half``, ``nine``: within it are half of the points, or nine of ten. ``counting.``, ``ruled.``:
    of techniques that count the pages of T, and of those that report by a rule. ``start.``: if it
    is known when looks begin; ``parts.``: of the three parts alone, and counting techniques;
    ``lab.``: on the lab's guests; ``TECHNIQUE.``, ``RECORDING.``: counting ones. ``overhead.``: of
    the predicted cost. ``drawn.inside``, ``counted.inside``: percent of the runs within the
    interval, of techniques that draw frames and of those that count. ``ruled.techniques``,
    ``outside``: how many report by a rule, and are not covered.
    """
    table, lab = (law.load(DATA / "law", lab=of_lab) for of_lab in (False, True))
    counts = table["technique"].isin(list(STATED))
    kinds = [("", law.factors(table)), ("start.", law.factors(table, "from_start"))]
    kinds += [("counting.", law.factors(table[counts])), ("ruled.", law.factors(table[~counts]))]
    kinds.append(("parts.", law.factors(table[counts], "by_parts")))
    kinds.append(("lab.", law.factors(lab[lab["technique"].isin(list(STATED))])))
    cost = table["overhead"] / table["overhead_measured"]
    kinds.append(("overhead.", np.exp(np.log(cost).abs())))
    for column, of in (("technique", table), ("recording", table[counts])):
        kinds += [(f"{name}.", law.factors(part)) for name, part in of.groupby(column)]
    for name, off in kinds:
        yield f"{name}half", f"{off.median():.2f}"
        yield f"{name}nine", f"{off.quantile(0.9):.2f}"
    yield "points", count(len(table))
    yield "recordings", count(table["recording"].nunique())
    yield "techniques", count(table["technique"].nunique())
    drawn = table["watched"] > 0
    yield "drawn.inside", count(100 * table.loc[drawn, "inside"].mean())
    yield "counted.inside", count(100 * table.loc[~drawn, "inside"].mean())
    yield "ruled.techniques", count(table.loc[~counts, "technique"].nunique())
    yield "outside", count(len(OUTSIDE))


def ablated() -> Keyed:
    """Yield what PML's log adds to a sample of one frame in 16, by recording.

    ``pml.`` and ``twice.``: the error with the log, or of a sample twice as large, over that of the
    sample alone. ``pml.closer``, ``pml.cheaper``: recordings in which the log has the smaller error
    or cost of the two; ``recordings``: of so many.
    """
    table = ablation.summary(pd.read_csv(DATA / "ablation" / "errors.csv"))
    wide = table.pivot(index="recording", columns="inputs", values=["error", "overhead"])
    alone, with_log, twice = ablation.INPUTS
    error, cost = wide["error"], wide["overhead"]
    yield from _range("pml", error[with_log] / error[alone], "{:.2f}".format)
    yield from _range("twice", error[twice] / error[alone], "{:.2f}".format)
    yield "pml.closer", count((error[with_log] < error[twice]).sum())
    yield "pml.cheaper", count((cost[with_log] < cost[twice]).sum())
    yield "recordings", count(len(wide))


def capped() -> Keyed:
    """Yield the results of real guests with the memory that a technique gives.

    ``PROGRAM.``: ``peak``, ``reserve``, ``w`` and ``twice``, MiB; ``PROGRAM.TECHNIQUE.``: ``cap``
    (MiB), ``saved`` (percent of the peak), ``swap-ins``, ``per-s``, ``work`` and ``slowdown``
    (times). ``waits.``: what a page took on the emulated disk, ms. ``model.``: the model's swap-ins
    over the real ones, in percent, of the guests that swapped `caps.FEW` pages or more. ``same``:
    techniques of ``all`` whose cap is that of the truth, a step more or less, in each program.
    """
    for row in pd.read_csv(DATA / "caps" / "programs.csv").itertuples():
        for what in ("peak", "reserve", "w", "twice"):
            yield f"{row.program}.{what}", count(getattr(row, f"{what}_mib"))
    table = pd.read_csv(DATA / "caps" / "caps.csv")
    for row in table.dropna(subset=["swap_ins"]).itertuples():
        at = f"{row.program}.{row.technique}"
        yield f"{at}.cap", count(row.cap_mib)
        yield f"{at}.saved", count(row.saved * 100)
        yield f"{at}.swap-ins", count(row.swap_ins)
        yield f"{at}.per-s", count(row.swap_ins_per_s)
        yield f"{at}.work", f"{row.work:.2f}"
        yield f"{at}.slowdown", f"{row.slowdown:.2f}"
    swapped = table[table["swap_ins"] >= caps.FEW]
    yield from _range("waits", swapped["wait_ms"])
    check = pd.read_csv(DATA / "caps" / "check.csv")
    check = check[check["real"] >= caps.FEW]
    yield from _range("model", (check["model"] / check["real"] - 1) * 100, count)
    yield "model.guests", count(len(check))
    wide = pd.read_csv(DATA / "caps" / "model.csv").pivot(
        index="technique", columns="program", values="cap_mib"
    )
    near = ((wide - wide.loc[caps.TRUTH]).abs() <= caps.STEP_MIB).all(axis=1)
    yield "same", count(near.sum() - 1)
    yield "all", count(len(wide) - 1)


def clock() -> Keyed:
    """Yield the changes with the guest's clock, from 125 MIPS to 1,000.

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
        yield f"{kind}.best", count((of["first"] == of["other"]).sum())
        yield f"{kind}.cases", count(len(of))


GROUPS: dict[str, Callable[[], Keyed]] = {
    "draws": draws,
    "lab": lab,
    "kernel": kernel,
    "harvests": harvests,
    "hotness": hotness,
    "pieces": pieces,
    "mrc": mrc,
    "kvm": kvm,
    "price": price,
    "exits": exits,
    "bench": bench,
    "ablation": ablated,
    "law": law_of_errors,
    "caps": capped,
    "clock": clock,
}


@cache
def numbers(group: str) -> dict[str, str]:
    """Return the numbers of a group by key."""
    return dict(GROUPS[group]())


def number(key: str) -> str:
    """Return a number as quoted, by its key: the group, a point, and the key in it.

    Raises
    ------
    KeyError
        If there is none.
    """
    group, _, rest = key.partition(".")
    if group not in GROUPS or rest not in numbers(group):
        raise KeyError(f"no number has the key {key}: python -m experiments.quoted --list")
    return numbers(group)[rest]
