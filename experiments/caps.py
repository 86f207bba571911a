# SPDX-License-Identifier: Apache-2.0
"""Does the number help? A guest is capped at what each technique says, and swaps or does not.

A program runs once in a guest with room for all, the roomy run. Each technique watches that
recording and is asked for a size. Then the program runs again in guests that have that size, with a
swap disk, and what counts is how many pages come back from it, and how much later the work is done.

The rule, fixed before any guest was capped: **cap = reserve + p95**, rounded up to `STEP_MIB`.

- p95 is the 95th percentile over time of the technique's estimate of W(t, T), T = `WINDOW`. Of a
  technique that draws random numbers it is the median over `SEEDS` seeds.
- The reserve is what the guest needs whatever its programs use, as its kernel counts it when the
  program starts: the kernel's image, its own allocations and the files of the root, which are
  in memory for good; and the free pages that a kernel keeps (`MemoryModel.slack_pages`).
- Techniques that have a number of looks in T look `LOOKS` times. Those that look at the pace of
  their source keep it.

The rule counts the used part of the reserve twice, for all techniques alike: how much that is of
the truth is ``twice_mib`` of ``programs.csv``. Memory saved is against the guest's peak: the least
memory with which its kernel would never have had to swap, which nobody knows beforehand.

What is real and what is simulated is never in one table: ``caps.csv`` has guests with real limits
in QEMU, ``model.csv`` the answer of `pmlkit.techniques.memory` to the same caps and to programs
that were not capped. The emulated disk is a file of the host: how long a request takes is chance,
and each cap is run `REPEATS` times. So slow-downs are told twice: as measured, and computed of the
counted swap-ins with `DISK_NS` each, which is an assumption and the same for all.

    python -m experiments.caps RUNS data/caps [PROGRAM]...

Runs are kept in the folder RUNS: an interrupted series goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit import techniques
from pmlkit.errors import GuestError, NeedsError
from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder.record import record
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.techniques import scores
from pmlkit.techniques.memory import Guest, MemoryModel
from pmlkit.techniques.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pmlkit.techniques.scores import Truth
    from pmlkit.types import Floats, Json

__all__ = [
    "PROGRAMS",
    "Program",
    "joined",
    "percentile",
    "programs",
    "simulated",
    "sizings",
    "summary",
]

WINDOW, WINDOW_NS = "1s", 1_000_000_000
PERCENT = 95
STEP_MIB = 4
LOOKS = 4
SEEDS = 3
REPEATS = 3
SWAP_MIB = 256
DISK_NS = 100_000  # assumed: a solid-state disk reads a page
HURT = 1.05  # times as long as with room for all
MIB_PAGES = 256
TRUTH = "truth"  # W(t, T) itself, as a perfect technique would say it


@dataclass(frozen=True)
class Program:
    """A program, and the guest with room for all of it.

    Attributes
    ----------
    settings : tuple of (str, str)
        Parameters of the workload that are not its defaults.
    memory_mib : int
        Of the roomy guest.
    real : bool
        Whether guests are really capped; otherwise the memory model answers.
    """

    workload: str
    settings: tuple[tuple[str, str], ...] = ()
    memory_mib: int = 256
    real: bool = True


PROGRAMS = {
    "pressure": Program("pressure", (("phase_ms", "2000"),)),
    "redis": Program("redis", (("keys", "70000"), ("idle_s", "1"))),
    "sqlite": Program("sqlite", (("purchases", "30000"),)),
    "xz": Program("xz"),
    # Its compiler and libraries are files of the root: to unpack them at boot takes more memory
    # than any cap that would be worth a run.
    "gcc": Program("gcc", memory_mib=320, real=False),
}


# ------------------------------------------------------------------------------
# Runs.


def roomy(folder: Path, name: str) -> Recorded:
    """Return the program's recording with room for all; from the folder if it is there."""
    path = folder / f"{name}.trace"
    if not path.exists():
        program = PROGRAMS[name]
        workload = load(program.workload).with_parameters(dict(program.settings))
        record(workload, path, RecordOptions(memory_mib=program.memory_mib))
    return Recorded.of(pmlkit.open(path))


def run(folder: Path, name: str, cap_mib: int, repeat: int) -> Json:
    """Run the program in a guest of a size with a swap disk; return what it did.

    Returns
    -------
    dict
        ``phases``: seconds of each; ``swap_ins``, ``swap_outs``, ``major_faults``; or ``died``, the
        reason why the guest did not end its work.
    """
    kept = folder / f"{name}-{cap_mib}-{repeat}.json"
    if not kept.exists():
        program, path = PROGRAMS[name], folder / f"{name}-{cap_mib}-{repeat}.trace"
        workload = load(program.workload).with_parameters(dict(program.settings))
        options = RecordOptions(memory_mib=cap_mib, swap_mib=SWAP_MIB, overwrite=True)
        try:
            record(workload, path, options)
            result = outcome(Recorded.of(pmlkit.open(path)))
        except GuestError as error:
            result = {"died": str(error).splitlines()[0]}
        kept.write_text(json.dumps(result))
        for rest in (path, path.with_name(f"{path.name}.spool")):  # a spool, if it died
            shutil.rmtree(rest, ignore_errors=True)
    return json.loads(kept.read_text())


def phases(recorded: Recorded) -> dict[str, float]:
    """Return the seconds of each phase; the last, ``done``, is not work."""
    starts = [(name, int(recorded.t_ns[r])) for name, r in recorded.phases]
    ends = [t for _, t in starts[1:]]
    return {name: (end - t) / 1e9 for (name, t), end in zip(starts, ends, strict=False)}


def outcome(recorded: Recorded) -> Json:
    """Return how long the phases of a recording took, and what its kernel counted."""
    last = recorded.guest_samples.iloc[-1]
    names = {"swap_ins": "pswpin", "swap_outs": "pswpout", "major_faults": "pgmajfault"}
    return {
        "phases": phases(recorded),
        **{ours: int(last[theirs]) for ours, theirs in names.items()},
    }


# ------------------------------------------------------------------------------
# Sizes.


def reserve_pages(recorded: Recorded) -> int:
    """Return what the guest needs whatever its programs use, and its kernel's free pages."""
    first = recorded.guest_samples.iloc[0]
    image = recorded.known_memory_pages - int(first["total_bytes"]) // 4096
    return image + int(first["allocated_bytes"] - first["anon_bytes"]) // 4096 + _slack()


def peak_pages(recorded: Recorded) -> int:
    """Return the least memory with which the guest would never have had to swap."""
    samples = recorded.guest_samples
    image = recorded.known_memory_pages - int(samples["total_bytes"].iloc[0]) // 4096
    return image + int(samples["allocated_bytes"].max()) // 4096 + _slack()


def _slack() -> int:
    return MemoryModel().slack_pages


def percentile(estimates: pd.DataFrame, truth: Truth, percent: float = PERCENT) -> float:
    """Return the percentile over time of estimates where windows are scored; NaN if there is none.

    An estimate holds until the next; each end of a round weighs as long as its round.
    """
    scored = truth.scored
    values = scores.at(estimates, truth.t_ns[scored])
    return _percentile(values, np.diff(truth.t_ns, prepend=0)[scored], percent)


def _percentile(values: Floats, weights: Floats, percent: float) -> float:
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    weights = weights[known].astype(float)
    return float(np.percentile(values[known], percent, weights=weights, method="inverted_cdf"))


def cap_mib(pages: float, reserve: int, memory_mib: int) -> int:
    """Return the cap for an estimate, MiB: a multiple of `STEP_MIB`, the roomy memory at most."""
    steps = math.ceil((pages + reserve) / MIB_PAGES / STEP_MIB)
    return min(steps * STEP_MIB, memory_mib)


def sizings(recorded: Recorded, names: Iterable[str] = ()) -> pd.DataFrame:
    """Ask the truth and each technique for a size.

    Returns
    -------
    DataFrame
        ``technique``, ``title``, ``looks``; ``p95_mib`` and, over seeds, ``least_mib`` and
        ``most_mib``; ``cap_mib``, ``saved_mib`` and ``saved`` (a share of the peak). Techniques
        without an estimate have no cap.
    """
    truth = scores.truth(recorded, WINDOW_NS)
    weights = np.diff(truth.t_ns, prepend=0)[truth.scored]
    own = _percentile(truth.pages[truth.scored].astype(float), weights, PERCENT)
    rows = [(TRUTH, "W(t, T) itself", 0, own, own, own)]
    for name in names or techniques.TECHNIQUES:
        technique, looks = _made(name)
        values = _asked(recorded, technique, truth)
        if np.isfinite(values).any():
            spread = np.nanmedian(values), np.nanmin(values), np.nanmax(values)
            rows.append((name, technique.title, looks, *map(float, spread)))
    columns = ["technique", "title", "looks", "p95_mib", "least_mib", "most_mib"]
    table = pd.DataFrame(rows, columns=columns)
    memory_mib = recorded.known_memory_pages // MIB_PAGES
    reserve, peak_mib = reserve_pages(recorded), peak_pages(recorded) / MIB_PAGES
    table["cap_mib"] = [cap_mib(pages, reserve, memory_mib) for pages in table["p95_mib"]]
    table[columns[3:]] /= MIB_PAGES
    table["saved_mib"] = peak_mib - table["cap_mib"]
    return table.assign(saved=table["saved_mib"] / peak_mib)


def _made(name: str) -> tuple[techniques.Technique, int]:
    """Return the technique with its looks in T, 0 if they are not a number."""
    knob = techniques.TECHNIQUES[name].parameters().get("looks") is not None
    return techniques.make(name, **({"looks": LOOKS} if knob else {})), LOOKS if knob else 0


def _asked(recorded: Recorded, technique: techniques.Technique, truth: Truth) -> Floats:
    """Return the percentile of each seed, pages."""
    seeds = range(SEEDS if technique.random else 1)
    try:
        runs = [techniques.run(technique, recorded, WINDOW_NS, seed=seed) for seed in seeds]
    except NeedsError:
        return np.array([np.nan])
    return np.array([percentile(each.estimates, truth) for each in runs])


def facts(recorded: Recorded) -> dict[str, float]:
    """Return what the rule takes of a roomy run, MiB; and how much it counts twice.

    ``twice_mib`` is the mean over time of the used pages that the guest could not have given up:
    those that were never written since its first sample, or that its kernel used before.
    """
    truth = scores.truth(recorded, WINDOW_NS)
    return {
        "memory_mib": recorded.known_memory_pages / MIB_PAGES,
        "reserve_mib": reserve_pages(recorded) / MIB_PAGES,
        "peak_mib": peak_pages(recorded) / MIB_PAGES,
        "w_mib": float(truth.pages[truth.scored].mean()) / MIB_PAGES,
        "twice_mib": _twice(recorded) / MIB_PAGES,
        "seconds": sum(phases(recorded).values()),
    }


def _twice(recorded: Recorded) -> float:
    """Return the 95th percentile, over windows T, of the used pages that are not reclaimable."""
    first = recorded.guest_samples["t_ns"].iloc[0] - recorded.t_ns[0]
    ends = recorded.t_ns[1:] - recorded.t_ns[0]
    before = int(np.searchsorted(ends, first, "right"))
    kernels = recorded.accesses.between(0, before)
    written = np.setdiff1d(recorded.writes.between(before, recorded.n_rounds), kernels)
    rounds = max(WINDOW_NS // recorded.resolution_ns, 1)
    starts = range(before, max(recorded.n_rounds - rounds, before + 1), max(rounds // 2, 1))
    used = [np.unique(recorded.accesses.between(r, r + rounds)) for r in starts]
    kept = [np.setdiff1d(frames, written, assume_unique=True).size for frames in used]
    return float(np.percentile(kept, PERCENT))


# ------------------------------------------------------------------------------
# Tables.


def programs(roomies: Mapping[str, Recorded]) -> pd.DataFrame:
    """Return the settings of each program, and the facts of its roomy run."""
    rows = []
    for name, of in roomies.items():
        settings = " ".join(f"{key}={value}" for key, value in PROGRAMS[name].settings)
        rows.append({"program": name, "settings": settings, **facts(of)})
    return pd.DataFrame(rows)


def to_run(sizes: pd.DataFrame, peak_mib: float) -> list[int]:
    """Return the caps to run, MiB: those below the peak, and the least that is not.

    A guest with more memory than one that never swaps does not swap either.
    """
    caps = sorted(set(sizes["cap_mib"]))
    roomy_enough = [cap for cap in caps if cap >= peak_mib]
    return [cap for cap in caps if cap < peak_mib] + roomy_enough[:1]


def joined(sizes: pd.DataFrame, results: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Return a row for each technique with what guests of its cap did, of one program.

    Parameters
    ----------
    sizes : DataFrame
        Of `sizings`.
    results : DataFrame
        Rows of runs: ``cap_mib``, ``repeat``, ``swap_ins``, ``seconds`` (NaN: it died).
    seconds : float
        How long the roomy run took.

    Returns
    -------
    DataFrame
        With ``ran_mib``, the cap that was run: the own one, or the largest for larger ones.
        ``repeats``, ``died``; ``swap_ins``, ``swap_ins_per_s`` (of the capped guest's own time),
        ``slowdown`` as measured, each a mean with the half width of its 95 % interval (``_pm``);
        ``slowdown_disk``: computed with `DISK_NS` for each swap-in.
    """
    ran = np.array(sorted(set(results["cap_mib"])))
    rows = []
    for size in sizes.to_dict("records"):
        at = int(ran[min(np.searchsorted(ran, size["cap_mib"]), len(ran) - 1)])
        of = results[results["cap_mib"] == at]
        alive = of.dropna(subset=["seconds"])
        row = {**size, "ran_mib": at, "repeats": len(of), "died": len(of) - len(alive)}
        measured = {
            "swap_ins": alive["swap_ins"],
            "swap_ins_per_s": alive["swap_ins"] / alive["seconds"],
            "slowdown": alive["seconds"] / seconds,
            "slowdown_disk": 1 + alive["swap_ins"] * DISK_NS / 1e9 / seconds,
        }
        for column, values in measured.items():
            row[column], row[f"{column}_pm"] = scores.interval(values.astype(float))
        rows.append(row)
    return pd.DataFrame(rows)


def simulated(recorded: Recorded, sizes: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each technique with what the memory model does at its cap.

    The model's guest has the room for pages that a real guest of that size has: the kernel's image
    is smaller in it, by the descriptors (64 bytes) of the pages that it lacks.
    """
    memory, seconds = recorded.known_memory_pages, sum(phases(recorded).values())
    swap_ins = {}
    for cap in sorted(set(sizes["cap_mib"])):
        guest = Guest(recorded, MemoryModel())
        pages = cap * MIB_PAGES
        guest.resize(pages + (memory - pages) // 64)
        guest.advance(recorded.n_rounds)
        swap_ins[cap] = guest.swap_ins + guest.refaults
    table = sizes.assign(swap_ins=sizes["cap_mib"].map(swap_ins))
    table["swap_ins_per_s"] = table["swap_ins"] / seconds
    return table.assign(slowdown_disk=1 + table["swap_ins"] * DISK_NS / 1e9 / seconds)


def beside(results: pd.DataFrame, model: pd.DataFrame) -> pd.DataFrame:
    """Return swap-ins of real guests, and in the next column those of the model, by cap."""
    real = results.groupby(["program", "cap_mib"])["swap_ins"]
    table = real.agg(real="mean", least="min", most="max").reset_index()
    model = model.drop_duplicates(["program", "cap_mib"])[["program", "cap_mib", "swap_ins"]]
    return table.merge(model.rename(columns={"swap_ins": "model"}), how="left")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each technique over all programs; those that hurt least come first.

    Parameters
    ----------
    table : DataFrame
        Of `joined`, or of `simulated`, for several programs.

    Returns
    -------
    DataFrame
        ``technique``, ``title``; ``programs``; ``hurt``: programs that died, or whose work takes
        more than `HURT` times as long with `DISK_NS` a swap-in; ``saved``: the mean share of the
        peak; ``beyond_mib``: how much more the cap is than that of the truth, a mean;
        ``swap_ins_per_s``: a mean; ``slowdown``: the worst that was measured, if it was, and
        ``slowdown_disk``: the worst that was computed.
    """
    truth = table[table["technique"] == TRUTH].set_index("program")["cap_mib"]
    table = table.assign(
        beyond_mib=table["cap_mib"] - table["program"].map(truth),
        hurt=~(table["slowdown_disk"] <= HURT),  # NaN: it died
    )
    how = {"title": "first", "program": "nunique", "hurt": "sum", "saved": "mean"}
    how |= {"beyond_mib": "mean", "swap_ins_per_s": "mean", "slowdown_disk": "max"}
    how |= {"slowdown": "max"} if "slowdown" in table else {}
    made_of = (
        table.groupby("technique", sort=False).agg(how).rename(columns={"program": "programs"})
    )
    return made_of.sort_values(["hurt", "saved"], ascending=[True, False]).reset_index()


def rows_of(folder: Path, name: str, caps: Iterable[int]) -> pd.DataFrame:
    """Run a program at each cap, `REPEATS` times; return a row for each run."""
    rows = []
    for cap in caps:
        for repeat in range(REPEATS):
            result = run(folder, name, cap, repeat)
            lengths = result.pop("phases", {})
            seconds = sum(lengths.values()) if lengths else float("nan")
            rows.append({"cap_mib": cap, "repeat": repeat, "seconds": seconds, **result})
    return pd.DataFrame(rows)


def run_all(folder: Path, name: str) -> None:
    """Make all runs of a program that are not in the folder yet."""
    recorded = roomy(folder, name)
    if PROGRAMS[name].real:
        caps = to_run(sizings(recorded), peak_pages(recorded) / MIB_PAGES)
        print(f"{name}: guests of {', '.join(map(str, caps))} MiB")
        rows_of(folder, name, caps)


def main(runs: str, out: str, *names: str) -> None:
    """Run what is not in the folder of runs yet, and write the tables."""
    folder, chosen = Path(runs), names or tuple(PROGRAMS)
    folder.mkdir(parents=True, exist_ok=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    roomies = {name: roomy(folder, name) for name in chosen}
    described = programs(roomies).set_index("program")
    tables: dict[str, list[pd.DataFrame]] = {"caps": [], "model": [], "runs": []}
    for name, recorded in roomies.items():
        print(f"{name}: asking techniques")
        sizes = sizings(recorded)
        tables["model"].append(simulated(recorded, sizes).assign(program=name))
        if PROGRAMS[name].real:
            caps = to_run(sizes, float(described.loc[name, "peak_mib"]))
            print(f"{name}: guests of {', '.join(map(str, caps))} MiB")
            results = rows_of(folder, name, caps)
            seconds = float(described.loc[name, "seconds"])
            tables["runs"].append(results.assign(program=name))
            tables["caps"].append(joined(sizes, results, seconds).assign(program=name))
    whole = {name: pd.concat(parts) for name, parts in tables.items() if parts}
    if "runs" in whole:
        whole["check"] = beside(whole["runs"], whole["model"])
    for name, table in {**whole, "programs": described.reset_index()}.items():
        first = table.pop("program")
        table.insert(0, "program", first)
        table.round(4).to_csv(Path(out) / f"{name}.csv", index=False)
    versions = pmlkit.open(folder / f"{chosen[0]}.trace").meta.provenance["versions"]
    made.note(Path(out) / "made.json", f"python -m experiments.caps RUNS {out}", versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
