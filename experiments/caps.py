# SPDX-License-Identifier: Apache-2.0
"""Caps: is an estimate of use to an operator?

A guest is capped at each technique's estimate. A program runs once in a guest with enough memory,
the roomy run. Each technique observes that recording and gives a size. The program then runs again
in guests of that size with a swap disk. Two results count: the pages that return from the disk, and
the delay of the work.

The rule, fixed before any guest was capped: **cap = reserve + p95**, rounded up to `STEP_MIB`.

- p95 is the 95th percentile over time of the technique's estimate of W(t, T), T = `WINDOW`. If the
  technique draws random numbers, it is the median over `SEEDS` seeds.
- The reserve is the memory that the guest needs independently of its programs, as counted by its
  kernel when the program starts. It consists of the kernel's image, its allocations, the files of
  the root (always in memory), and the kernel's free pages (`MemoryModel.slack_pages`).
- Techniques with a number of looks in T look `LOOKS` times. The others keep their published
  interval.

The rule counts the used part of the reserve twice, for all techniques. ``twice_mib`` in
``programs.csv`` is this part of the truth. Saved memory is relative to the guest's peak: the least
memory with which its kernel would never have swapped. The peak is not known in advance.

Real and simulated results are in separate tables. ``caps.csv`` has guests with real limits in QEMU.
``model.csv`` has the results of `pmlkit.techniques.memory` for the same caps, for programs that
were not capped, and for caps that were not run, because the model expects more than `MOST`
returning pages. ``windows.csv`` is also from the model: the truth's cap by T.

Each cap is run several times, because the emulated disk is a file of the host: the duration of
requests is random, and so is the duration of the work. Two results do not depend on it: the pages
that return, and the instructions of the work without waiting. An idle guest executes a process that
does nothing, whose run time its kernel counts. The work of its timer is not counted (`idle_share`).
The count is inexact if a run waits long. The slow-down consists of the measured instructions and an
assumed cost, `DISK`, for each returning page. It is a ratio of instructions: the guest's second has
125 million, and the disk is as slow relative to it as to a processor of 3 GHz. For a paced program,
which idles anyway, the slow-down is an upper bound.

    python -m experiments.caps RUNS data/caps [PROGRAM]...

Runs are kept in the folder RUNS, so that an interrupted series can continue. With a PROGRAM, only
its rows are replaced; the tables keep the other rows, and the idle guest of the first series.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit import techniques
from pmlkit.errors import NeedsError
from pmlkit.law.swapping import DISK, HURT
from pmlkit.sources.guest.image import build
from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.ingest import read_report
from pmlkit.sources.recorder.record import DETERMINISTIC_CMDLINE, record
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.sources.spooling import with_us
from pmlkit.techniques import scores
from pmlkit.techniques.memory import peak_pages, reserve_pages, returned_pages
from pmlkit.techniques.recorded import Recorded
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from pmlkit.sources.guest.image import GuestImage
    from pmlkit.sources.guest.workload import Workload
    from pmlkit.sources.recorder.ingest import Report
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
LONGEST_S = 3600  # longest time of a run, seconds of the host; a longer run counts as dead
SWAP_MIB = 256
IDLE_MIB = 128  # memory of the guest that measures idle work, MiB
MOST = 50_000  # most returning pages, by the model, in a guest that is run
WINDOWS_NS = (300_000_000, 1_000_000_000, 3_000_000_000, 10_000_000_000)
FEW = 1000  # fewer swap-ins are not compared in percent
SIZE_COLUMNS = ["technique", "title", "looks", "p95_mib", "least_mib", "most_mib"]
SIZE_COLUMNS += ["cap_mib", "saved_mib", "saved"]
TRUTH = "truth"  # W(t, T) itself, the answer of a perfect technique


@dataclass(frozen=True)
class Program:
    """A program, and a guest with enough memory for it.

    Attributes
    ----------
    settings : tuple of (str, str)
        Parameters of the workload that are not its defaults.
    memory_mib : int
        Of the roomy guest.
    boots_mib : int
        The least in which the recorder boots it, a multiple of 4. What a smaller cap takes away
        from it, a balloon has; 0: the memory model answers, and no guest.
    repeats : int
        Runs of each cap.
    """

    workload: str
    settings: tuple[tuple[str, str], ...] = ()
    memory_mib: int = 256
    boots_mib: int = 0
    repeats: int = 1


PROGRAMS = {
    "pressure": Program("pressure", (("phase_ms", "2000"),), boots_mib=96, repeats=2),
    "redis": Program("redis", (("keys", "70000"), ("idle_s", "1")), boots_mib=140, repeats=2),
    "sqlite": Program("sqlite", (("purchases", "30000"),), boots_mib=112, repeats=2),
    "gcc": Program("gcc", memory_mib=320, boots_mib=244, repeats=2),
    "xz": Program("xz"),
}


# ------------------------------------------------------------------------------
# Runs.


# The guest reports through the names of phases: the run time of its idle process so far, and the
# time, ns. The balloon is a file of the root, whose pages stay in memory. Before the work, the
# guest idles for a second. If the work is idle, too, this second is the first of the two periods of
# `idle_periods`.
_COMMAND = """for process in /proc/[0-9]*; do
    [ "$(tr '\\0' ' ' <$process/cmdline)" = 'pmlguest spin ' ] && idle=$process
done
now() {{ sed -n '/^now at/{{s/[^0-9]//g;p;q}}' /proc/timer_list; }}
spun() {{ pmlguest phase "spun-$(cut -d ' ' -f 1 $idle/schedstat)-$(now)"; }}
dd if=/dev/zero of=/balloon bs=1048576 count={balloon_mib} 2>/dev/null
spun; sleep 1; spun
{command}
status=$?; spun; exit $status"""
_COUNTERS = {"swap_ins": "pswpin", "swap_outs": "pswpout", "major_faults": "pgmajfault"}


def timed(name: str, balloon_mib: int = 0) -> Workload:
    """Return the program's workload in a guest with a balloon; the guest reports its idle time."""
    program = PROGRAMS[name]
    workload = load(program.workload).with_parameters(dict(program.settings))
    command = _COMMAND.format(command=workload.command, balloon_mib=balloon_mib)
    return replace(workload, command=command)


def roomy(folder: Path, name: str) -> Recorded:
    """Return the program's recording with enough memory; from the folder if it exists."""
    path = folder / f"{name}.trace"
    if not path.exists():
        record(timed(name), path, RecordOptions(memory_mib=PROGRAMS[name].memory_mib))
    return Recorded.of(pmlkit.open(path))


def run(folder: Path, name: str, cap_mib: int, repeat: int) -> Json:
    """Run the program in a guest of a size with a swap disk; return the results.

    It is the recorder's machine, unobserved: nothing is asked of it but what its kernel counts.

    Returns
    -------
    dict
        Of `outcome`; or ``died``, the reason why the guest did not end its work.
    """
    kept = folder / f"{name}-{cap_mib}-{repeat}.json"
    if not kept.exists():
        memory_mib = max(cap_mib, PROGRAMS[name].boots_mib)
        image = build(
            timed(name, memory_mib - cap_mib),
            memory_mib=memory_mib,
            extra_cmdline=DETERMINISTIC_CMDLINE,
            swap=True,
        )
        kept.write_text(json.dumps(outcome(read_report(_unobserved(image, memory_mib)))))
    return json.loads(kept.read_text())


def idle_periods(folder: Path) -> pd.DataFrame:
    """Return the periods of an idle guest: run it, or read the folder's results.

    Returns
    -------
    DataFrame
        ``seconds`` (of the guest's time) and ``spun_s`` (of its idle process), a row for each of
        two periods of unlike length.
    """
    kept = folder / "idle.json"
    if not kept.exists():
        idle = replace(load("pressure"), command=_COMMAND.format(command="sleep 4", balloon_mib=0))
        image = build(idle, memory_mib=IDLE_MIB, extra_cmdline=DETERMINISTIC_CMDLINE, swap=True)
        phases = read_report(_unobserved(image, IDLE_MIB)).phases
        kept.write_text(json.dumps(_periods(phases)))
    return pd.DataFrame(json.loads(kept.read_text()), columns=["seconds", "spun_s"])


def idle_share(periods: pd.DataFrame) -> float:
    """Return the idle process's share of the time in an idle guest.

    The rest is the kernel's, its timer's mostly. To tell the time takes some, too, as much in each
    of the two periods: in their difference there is none of it. One period has it, and over a long
    wait that error is larger than the work.
    """
    return float(periods["spun_s"].diff().iloc[1] / periods["seconds"].diff().iloc[1])


def _unobserved(image: GuestImage, memory_mib: int) -> str:
    """Run a guest until it switches itself off, or for `LONGEST_S`; return its report."""
    with tempfile.TemporaryDirectory() as scratch:
        console, report, disk = (Path(scratch) / name for name in ("console", "report", "disk"))
        command = qemu.command_line(image, memory_mib, console, report, deterministic=True)
        command += qemu.disk(disk, SWAP_MIB)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*with_us(), *command], stdin=subprocess.DEVNULL, timeout=LONGEST_S, check=True
            )
        return report.read_text()


def outcome(report: Report) -> Json:
    """Return a program's duration and its kernel's counts, from the guest's report.

    Returns
    -------
    dict
        ``seconds`` of the guest's time from the work's start to its end; ``spun_s``: those of its
        idle process; ``swap_ins``, ``swap_outs``, ``major_faults``. Or ``died``.
    """
    if report.status is None:
        return {"died": f"it was not done after {LONGEST_S} s"}
    if report.status != 0:
        return {"died": f"its program ended with status {report.status}"}
    counts = {ours: report.samples[-1][theirs] for ours, theirs in _COUNTERS.items()}
    return {**times(report.phases), **counts}


def times(phases: Iterable[str]) -> dict[str, float]:
    """Return ``seconds`` and ``spun_s`` of `outcome`, by the names of the phases."""
    return dict(zip(("seconds", "spun_s"), _periods(phases)[1], strict=True))


def _periods(phases: Iterable[str]) -> list[list[float]]:
    """Return the guest's seconds and its idle process's between each two marks."""
    marks = [name.split("-")[1:] for name in phases if name.startswith("spun-")]
    spun_ns, at_ns = np.array(marks, np.int64).T
    return np.transpose([np.diff(at_ns) / 1e9, np.diff(spun_ns) / 1e9]).tolist()


def busy(times: pd.DataFrame | Mapping[str, float], share: float) -> Any:
    """Return the seconds of work in a period, without an idle guest's own work.

    Parameters
    ----------
    share : float
        Of `idle_share`.
    """
    return times["seconds"] - times["spun_s"] / share


def took(recorded: Recorded, share: float) -> dict[str, float]:
    """Return the times of a recording, by its own clock: ``seconds`` and ``busy_s``."""
    spun = [(name, recorded.t_ns[r]) for name, r in recorded.phases if name.startswith("spun-")]
    told = times(f"spun-{name.split('-')[1]}-{t_ns}" for name, t_ns in spun)
    return {"seconds": told["seconds"], "busy_s": busy(told, share)}


# ------------------------------------------------------------------------------
# Sizes.


def percentile(estimates: pd.DataFrame, truth: Truth, percent: float = PERCENT) -> float:
    """Return the percentile over time of estimates at scored windows; NaN without any.

    An estimate holds until the next; each end of a round weighs as long as its round.
    """
    return weighted_percentile(scores.at(estimates, truth.t_ns[truth.scored]), truth, percent)


def weighted_percentile(values: Floats, truth: Truth, percent: float) -> float:
    """Return the percentile over time of values at scored moments, without NaN."""
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    weights = np.diff(truth.t_ns, prepend=0)[truth.scored][known].astype(float)
    return float(np.percentile(values[known], percent, weights=weights, method="inverted_cdf"))


def cap_mib(pages: float, reserve: int, memory_mib: int) -> int:
    """Return the cap for an estimate, MiB: a multiple of `STEP_MIB`, the roomy memory at most."""
    steps = math.ceil((pages + reserve) / MIB_PAGES / STEP_MIB)
    return min(steps * STEP_MIB, memory_mib)


def sizings(recorded: Recorded, names: Iterable[str] = ()) -> pd.DataFrame:
    """Return the sizes from the truth and each technique.

    Returns
    -------
    DataFrame
        ``technique``, ``title``, ``looks``; ``p95_mib`` and, over seeds, ``least_mib`` and
        ``most_mib``; ``cap_mib``, ``saved_mib`` and ``saved`` (a share of the peak). Techniques
        without an estimate have no cap.
    """
    truth = scores.truth(recorded, WINDOW_NS)
    own = weighted_percentile(truth.pages[truth.scored].astype(float), truth, PERCENT)
    rows = [(TRUTH, "W(t, T) itself", 0, own, own, own)]
    for name in names or techniques.TECHNIQUES:
        technique, looks = _made(name)
        values = _asked(recorded, technique, truth)
        if np.isfinite(values).any():
            spread = np.nanmedian(values), np.nanmin(values), np.nanmax(values)
            rows.append((name, technique.title, looks, *map(float, spread)))
    columns = SIZE_COLUMNS[:6]
    table = pd.DataFrame(rows, columns=columns)
    memory_mib = recorded.known_memory_pages // MIB_PAGES
    reserve, peak_mib = reserve_pages(recorded), peak_pages(recorded) / MIB_PAGES
    table["cap_mib"] = [cap_mib(pages, reserve, memory_mib) for pages in table["p95_mib"]]
    table[columns[3:]] /= MIB_PAGES
    table["saved_mib"] = peak_mib - table["cap_mib"]
    return table.assign(saved=table["saved_mib"] / peak_mib)


def _made(name: str) -> tuple[techniques.Technique, int]:
    """Return the technique and its looks in T (0 if it has no such knob)."""
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


def facts(recorded: Recorded, share: float) -> dict[str, float]:
    """Return the rule's inputs from a roomy run, MiB; and the part that it counts twice.

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
        **took(recorded, share),
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


def programs(roomies: Mapping[str, Recorded], share: float) -> pd.DataFrame:
    """Return the settings of each program, and the facts of its roomy run."""
    rows = []
    for name, of in roomies.items():
        settings = " ".join(f"{key}={value}" for key, value in PROGRAMS[name].settings)
        rows.append({"program": name, "settings": settings, **facts(of, share)})
    return pd.DataFrame(rows)


def to_run(sizes: pd.DataFrame, peak_mib: float) -> list[int]:
    """Return the caps to run, MiB: those below the peak, and the least that is not.

    A guest with more memory than one that never swaps does not swap either.
    """
    caps = sorted(set(sizes["cap_mib"]))
    roomy_enough = [cap for cap in caps if cap >= peak_mib]
    return [cap for cap in caps if cap < peak_mib] + roomy_enough[:1]


def joined(
    sizes: pd.DataFrame, results: pd.DataFrame, seconds: float, busy_s: float, disk_s: float
) -> pd.DataFrame:
    """Return a row per technique with the results of guests of its cap, for one program.

    Parameters
    ----------
    sizes : DataFrame
        Of `sizings`.
    results : DataFrame
        Rows of runs: ``cap_mib``, ``repeat``, and of `outcome`; ``seconds`` is NaN if it died.
    seconds, busy_s : float
        Of the roomy run.
    disk_s : float
        `DISK` by the guest's clock.

    Returns
    -------
    DataFrame
        With ``ran_mib``, the cap that was run: the own one, or the largest for larger ones. Those
        with another cap that was not run are left out.
        ``repeats``, ``died``. Each a mean with the half width of its 95 % interval (``_pm``;
        of one run there is none):
        ``swap_ins``; ``swap_ins_per_s``, by the time of the roomy run; ``work``: instructions
        without waiting, over those of the roomy run; ``slowdown``: with `DISK` for each
        swap-in; ``wait_ms``: of a swap-in on the emulated disk.
    """
    ran = np.array(sorted(set(results["cap_mib"])))
    rows = []
    known = sizes["cap_mib"].isin(ran) | (sizes["cap_mib"] > ran[-1])
    for size in sizes[known].to_dict("records"):
        at = min(size["cap_mib"], int(ran[-1]))
        of = results[results["cap_mib"] == at]
        alive = of.dropna(subset=["seconds"])
        row = {**size, "ran_mib": at, "repeats": len(of), "died": len(of) - len(alive)}
        more_s, swap_ins = alive["busy_s"] - busy_s, alive["swap_ins"]
        waited_s = alive["seconds"] - seconds - more_s
        measured = {
            "swap_ins": swap_ins,
            "swap_ins_per_s": swap_ins / seconds,
            "work": alive["busy_s"] / busy_s,
            "slowdown": 1 + (more_s + swap_ins * disk_s) / seconds,
            "wait_ms": 1e3 * waited_s / swap_ins.where(swap_ins > 0),
        }
        for column, values in measured.items():
            row[column], half = scores.interval(values.astype(float))
            row[f"{column}_pm"] = half if values.count() > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def simulated(recorded: Recorded, sizes: pd.DataFrame, boots_mib: int = 0) -> pd.DataFrame:
    """Return a row per technique with the memory model's results at its cap.

    Parameters
    ----------
    boots_mib : int
        A guest with a smaller cap has this size and a balloon. The kernel's image is smaller than
        in the roomy guest, by the descriptors (64 bytes) of the pages that it lacks.
    """
    seconds = took(recorded, 1)["seconds"]
    caps = sorted(set(sizes["cap_mib"]))
    swap_ins = {cap: _replayed(recorded, cap * MIB_PAGES, boots_mib * MIB_PAGES) for cap in caps}
    table = sizes.assign(swap_ins=sizes["cap_mib"].map(swap_ins))
    table["swap_ins_per_s"] = table["swap_ins"] / seconds
    return table.assign(waiting=1 + table["swap_ins"] * disk_s(recorded) / seconds)


def _replayed(recorded: Recorded, pages: int, boots_pages: int) -> int:
    memory = recorded.known_memory_pages
    return returned_pages(recorded, pages + (memory - max(pages, boots_pages)) // 64)


def disk_s(recorded: Recorded) -> float:
    """Return the assumed disk's time for a page, s of the recording's clock."""
    return recorded.time.ns(DISK) / 1e9


def windows(recorded: Recorded, boots_mib: int = 0) -> pd.DataFrame:
    """Return, for each T, the truth's cap and the memory model's results at it.

    Returns
    -------
    DataFrame
        ``window_ns``, and of `simulated`; T that is longer than half of the recording is left out.
    """
    memory_mib = recorded.known_memory_pages // MIB_PAGES
    reserve, peak_mib = reserve_pages(recorded), peak_pages(recorded) / MIB_PAGES
    rows = []
    for window_ns in WINDOWS_NS:
        if 2 * window_ns <= recorded.duration_ns:
            truth = scores.truth(recorded, window_ns)
            own = weighted_percentile(truth.pages[truth.scored].astype(float), truth, PERCENT)
            cap = cap_mib(own, reserve, memory_mib)
            rows.append((window_ns, own / MIB_PAGES, cap, peak_mib - cap, 1 - cap / peak_mib))
    columns = ["window_ns", "p95_mib", "cap_mib", "saved_mib", "saved"]
    return simulated(recorded, pd.DataFrame(rows, columns=columns), boots_mib)


def beside(results: pd.DataFrame, model: pd.DataFrame) -> pd.DataFrame:
    """Return swap-ins of real guests and of the model, by cap."""
    real = results.groupby(["program", "cap_mib"])["swap_ins"]
    table = real.agg(real="mean", least="min", most="max").reset_index()
    model = model.drop_duplicates(["program", "cap_mib"])[["program", "cap_mib", "swap_ins"]]
    return table.merge(model.rename(columns={"swap_ins": "model"}), how="left")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per technique; those with all programs first, by increasing slow-down.

    Parameters
    ----------
    table : DataFrame
        Of `joined`, or of `simulated`, for several programs.

    Returns
    -------
    DataFrame
        ``technique``, ``title``; ``programs``; ``hurt``: programs that died, or whose work takes
        more than `HURT` times as long; ``saved``: the mean share of the peak; ``beyond_mib``: how
        much more the cap is than that of the truth, a mean; ``swap_ins_per_s``: a mean; the worst
        ``slowdown``, of the model ``waiting``.
    """
    truth = table[table["technique"] == TRUTH].set_index("program")["cap_mib"]
    slowdown = "slowdown" if "slowdown" in table else "waiting"
    table = table.assign(
        beyond_mib=table["cap_mib"] - table["program"].map(truth),
        hurt=~(table[slowdown] <= HURT),  # NaN: the guest died
    )
    how = {"title": "first", "program": "nunique", "hurt": "sum", "saved": "mean"}
    how |= {"beyond_mib": "mean", "swap_ins_per_s": "mean", slowdown: "max"}
    made_of = (
        table.groupby("technique", sort=False).agg(how).rename(columns={"program": "programs"})
    )
    if "slowdown_pm" in table:
        worst = table.loc[table.groupby("technique")[slowdown].idxmax()].set_index("technique")
        made_of["slowdown_pm"] = worst["slowdown_pm"]
    order = ["programs", "hurt", "saved"]
    return made_of.sort_values(order, ascending=[False, True, False]).reset_index()


def rows_of(folder: Path, name: str, caps: Iterable[int], share: float) -> pd.DataFrame:
    """Run a program at each cap several times; return a row per run, with ``busy_s``."""
    rows = []
    for cap in caps:
        for repeat in range(PROGRAMS[name].repeats):
            result = run(folder, name, cap, repeat)
            key = {"cap_mib": cap, "repeat": repeat, "seconds": np.nan, "spun_s": np.nan}
            rows.append({**key, **result})
    table = pd.DataFrame(rows)
    table.insert(4, "busy_s", busy(table, share))
    return table


def measured(folder: Path, name: str, share: float) -> dict[str, pd.DataFrame]:
    """Do the runs of a program that are not in the folder yet; return its tables by name.

    Parameters
    ----------
    share : float
        Of `idle_share`.
    """
    recorded, boots_mib = roomy(folder, name), PROGRAMS[name].boots_mib
    sizes = sizings(recorded)
    model = simulated(recorded, sizes, boots_mib)
    tables = {"model": model, "windows": windows(recorded, boots_mib)}
    if boots_mib:
        few = sizes[(model["swap_ins"] <= MOST).to_numpy()]
        caps = to_run(few, peak_pages(recorded) / MIB_PAGES)
        print(f"{name}: guests of {', '.join(map(str, caps))} MiB")
        runs = rows_of(folder, name, caps, share)
        against = {**took(recorded, share), "disk_s": disk_s(recorded)}
        tables |= {"runs": runs, "caps": joined(sizes, runs, **against)}
    return tables


def replaced(kept: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table with new rows of some programs and the kept ones of others, in their order."""
    table = pd.concat([kept[~kept["program"].isin(rows["program"])], rows])
    return table.sort_values(
        "program", key=lambda names: names.map([*PROGRAMS].index), kind="stable"
    )


def _versions(folder: Path, out: Path, names: Iterable[str], kept: bool) -> Json:
    """Return the versions of the software in the guests of the tables."""
    note = out / "made.json"
    versions: Json = json.loads(note.read_text())["provenance"]["versions"] if kept else {}
    return versions | made.versions(folder / f"{name}.trace" for name in names)


def main(runs: str, out: str, *names: str) -> None:
    """Do the runs that are not in the folder yet, and write the tables."""
    folder, tables_in, chosen = Path(runs), Path(out), names or tuple(PROGRAMS)
    for path in (folder, tables_in):
        path.mkdir(parents=True, exist_ok=True)
    files = tables_in.glob("*.csv") if names else ()
    kept = {file.stem: pd.read_csv(file) for file in files}
    periods = kept["idle"] if kept else idle_periods(folder)
    share = idle_share(periods)
    parts: dict[str, list[pd.DataFrame]] = {}
    for name in chosen:
        for table, rows in measured(folder, name, share).items():
            rows.insert(0, "program", name)
            parts.setdefault(table, []).append(rows)
    tables = {table: pd.concat(rows) for table, rows in parts.items()}
    if "runs" in tables:
        tables["check"] = beside(tables["runs"], tables["model"])
    tables["programs"] = programs({name: roomy(folder, name) for name in chosen}, share)
    for table, rows in tables.items():
        rows = replaced(kept[table], rows.round(4)) if kept else rows.round(4)
        rows.to_csv(tables_in / f"{table}.csv", index=False)
    periods.round(9).to_csv(tables_in / "idle.csv", index=False)
    versions = _versions(folder, tables_in, chosen, bool(kept))
    command = " ".join(("python -m experiments.caps RUNS", out, *(() if kept else names)))
    made.note(tables_in / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
