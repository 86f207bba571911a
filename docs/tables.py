# SPDX-License-Identifier: Apache-2.0
"""The tables of the concept pages: made anew at each build, from the bundled recordings."""

from pathlib import Path

import pandas as pd

import pmlkit
from pmlkit import compare
from pmlkit import techniques as known
from pmlkit.forecast import verdict
from pmlkit.notebook import reads_tables
from pmlkit.period.advice import BUFFER_ENTRIES, advise, bitmap_bytes, log_bytes
from pmlkit.techniques.scores import resampled
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import format_bytes

RECORDINGS = ("hotcold", "redis", "rrww", "sqlite", "pressure", "rrww-lab", "sqlite-lab")
# Technique: what it sees.
TECHNIQUES = {
    "pml-page-tables": "all accesses",
    "idle-pages": "all accesses",
    "pruned-scan": "all accesses",
    "cold-age": "all accesses",
    "mglru": "all accesses",
    "mglru-blind": "newly mapped pages",
    "hint-faults": "all accesses",
    "prl": "all accesses",
    "flag-sample": "one frame in 64",
    "flag-sample-pml": "writes; one frame in 64",
    "access-sampler": "one access in 199",
    "intermittent": "2,000 pages, or 1 %",
    "vtmm": "writes; reads now and then",
    "vmware": "100 pages a period",
    "pml": "writes",
    "qemu-bitmap": "writes",
    "qemu-sampling": "writes",
    "soft-dirty": "writes",
    "damon": "a page a region",
    "telescope": "a table entry a region",
    "pml-plateau": "writes since the start",
    "prl-plateau": "all since the start",
}
SIZED = ("redis", "gcc-jobs", "sqlite-lab")
KNOWERS = {
    "own past": "own past",
    "hindsight": "hindsight",
    "told the phase": "knows the phase",
}


def limits(found):
    """Return what a forecast can save at most, in percent of the best rule's slack."""
    made = {"ahead": [f"{seconds:g} s" for seconds in found["ahead_s"]]}
    for column, title in KNOWERS.items():
        made[title] = [f"{(1 - slack) * 100:.0f}" for slack in found[column]]
    return pd.DataFrame(made)


def forecasts(found):
    """Return a trial's tables as texts: {name: table}, with what is shown of each."""
    chosen = found.chosen.set_index(["inputs", "horizon"])
    means = found.means[(found.means["asked"] - 0.05).abs() < 1e-9]
    rows = []
    for row in means.to_dict("records"):
        best = chosen.loc[(row["inputs"], row["horizon"])]
        parts = {best["rule"]: "best rule: ", best["model"]: "best model: "}
        if row["decider"] not in (*parts, "recommended", "VPA 60, as is"):
            continue
        cells = {"inputs": row["inputs"], "ahead": f"{row['horizon'] * 0.5:g} s"}
        cells["decider"] = parts.get(row["decider"], "") + row["decider"]
        for name, title in (("violations", "violations, %"), ("again", "after a violation, %")):
            cells[title] = f"{100 * row[name]:.1f}"
        cells["longest run"] = f"{row['longest']:.0f}"
        low, high = 100 * row["idle_low"], 100 * row["idle_high"]
        cells["idle over used, %"] = f"{100 * row['idle']:.0f} ({low:.0f} to {high:.0f})"
        rows.append(cells)
    tests = found.tests
    shown = pd.DataFrame(
        {
            "inputs": tests["inputs"],
            "ahead": [f"{h * 0.5:g} s" for h in tests["horizon"]],
            "model": tests["ours"],
            "against": tests["theirs"] + " with " + tests["against"],
            "cost": [f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})" for r in tests.itertuples()],
            "cheaper on": [f"{r.lower} of {r.programs}" for r in tests.itertuples()],
            "p": [f"{p:.2g}" for p in tests["p_permutation"]],
            "least p": [f"{p:.1g}" for p in tests["least_p"]],
        }
    )
    said = found.statements.assign(
        value=[f"{v:.3g}" for v in found.statements["value"]],
        holds=["yes" if holds else "no" for holds in found.statements["holds"]],
    )
    return {"means": pd.DataFrame(rows), "tests": shown, "statements": said}


PROGRAMS = {
    verdict.HELD_OUT: "The programs are the held-out ones: nothing was fitted to them or set on "
    "them.",
    verdict.DEVELOPMENT: "**The programs are those for development.** Each is scored with models "
    "and settings of the others. The rule and the model were named on them, so the comparison "
    "favours both. The held-out programs are not scored yet.",
}


def choices(found):
    """Return what models of peaks and of pages are worth beside their rules, as texts."""
    shown = found[["what", "inputs"]].assign(score=found["score"].str.replace("_", " "))
    for name in ("model", "rule"):
        shown[name] = [f"{value:.2f}" for value in found[name]]
    shown["model over rule"] = [
        f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})" for r in found.itertuples()
    ]
    shown["p"] = [f"{p:.2g}" for p in found["p_permutation"]]
    return shown


def make(folder):
    """Write the tables into the folder that has the figures; what is there is left as it is."""
    # A figure has its data beside it.
    found = pd.read_csv(Path(folder) / "forecast-limits.csv")
    limits(found).to_csv(Path(folder) / "limits.csv", index=False)
    trial = verdict.load()
    for name, table in forecasts(trial).items():
        table.to_csv(Path(folder) / f"forecast-{name}.csv", index=False)
    choices(verdict.choices()).to_csv(Path(folder) / "forecast-choices.csv", index=False)
    programs = sorted(trial.judged["program"].unique())
    text = f"{PROGRAMS[trial.programs]} ({', '.join(programs)})\n"
    (Path(folder) / "forecast-programs.md").write_text(text)
    sizing().to_csv(Path(folder) / "sizing.csv", index=False)
    data = Path(pmlkit.bundled("redis")).parent
    for name in ("exit-costs/exits.csv", "exit-off/exits-off.csv", "reads-draws/worst.csv"):
        table = pd.read_csv(data / name).rename(columns=lambda title: title.replace("anew", "new"))
        table.to_csv(Path(folder) / Path(name).name, index=False)
    harvests(pd.read_csv(data / "harvests" / "guests.csv")).to_csv(
        Path(folder) / "harvests.csv", index=False
    )
    host_sees(reads_tables.host_sees()).to_csv(Path(folder) / "host-sees-rows.csv", index=False)
    if not (Path(folder) / "techniques.csv").exists():
        found = compare.compare(RECORDINGS, compare.plan("1s", ",".join(TECHNIQUES)), jobs=2)
        techniques(found.scores).to_csv(Path(folder) / "techniques.csv", index=False)


def host_sees(ways):
    """Return pages in a round that each way sees: medians, or from the least to the most."""
    rows = []
    for row in ways.itertuples():
        counts = [row.seen, row.written, row.read, row.tables]
        told = ["" if pd.isna(count) else f"{count:,}" for count in counts]
        if pd.isna(row.seen):
            told[0] = "the kernel does not have it"
        elif not pd.isna(row.least) and row.least != row.most:
            told[0] = f"{row.seen:,} ({row.least:,} to {row.most:,})"
        rows.append((row.name, "" if pd.isna(row.kernel) else row.kernel, *told))
    return pd.DataFrame(rows, columns=["way", "Linux", "all", "written", "only read", "tables"])


def harvests(guests):
    """Return thousands of instructions a round of each harvest, and the frames that were left."""
    made = guests[["guest", "memory_mib", "touched"]].rename(columns={"memory_mib": "MiB"})
    for name in ("pruned", "guided", "scan", "sampled"):
        made[name] = [f"{insn / 1e3:,.0f}" if insn == insn else "" for insn in guests[name]]
    for name in ("left by pruned", "left by guided"):
        made[name] = [f"{left:,.0f}" if left == left else "" for left in guests[name]]
    return made.assign(touched=[f"{pages:,}" for pages in made["touched"]])


def sizing():
    """Return the log of a round against its length T, for recordings with a PML log."""
    rows = []
    for name in SIZED:
        trace = pmlkit.open(pmlkit.bundled(name))
        table = advise(trace).table
        for row in table.iloc[[0, len(table) // 2, -1]].itertuples():
            entries = round(row.pages)
            rows.append(
                {
                    "recording": name,
                    "T": f"{row.period_ns / 1e9:g} s",
                    "pages written, N(T)": f"{entries:,}",
                    "log": format_bytes(log_bytes(entries)),
                    "exits a round": f"{entries / BUFFER_ENTRIES:.1f}",
                    "bitmap": format_bytes(bitmap_bytes(trace.memory_pages * PAGE_SIZE)),
                }
            )
    return pd.DataFrame(rows)


def techniques(scores):
    """Return medians over the recordings, by technique; a step that none follows is `never`.

    Errors and overheads have the 95 % interval of the median (`scores.resampled`). Recordings with
    real page tables and with simulated ones have a row each.
    """
    rows = []
    for name, sees in TECHNIQUES.items():
        looks = getattr(known.make(name), "looks", None)
        looks = "its own" if looks is None else str(looks)
        for title, of in scores[scores["technique"] == name].groupby("title", sort=False):
            down = of["down"].median()
            step = "never" if pd.isna(down) else f"{down:.1f}"
            shares = _interval(of["mae"], ".0f"), _interval(of["overhead"], ".2g")
            rows.append((title, sees, looks, str(len(of)), *shares, step))
    columns = ["technique", "sees", "looks", "recordings", "error", "overhead", "step down"]
    return pd.DataFrame(rows, columns=columns)


def _interval(shares, form):
    """Return a median and its interval in percent, as text."""
    middle, low, high = (f"{share * 100:{form}}" for share in resampled(shares))
    return f"{middle} ({low} to {high})"
