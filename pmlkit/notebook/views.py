# SPDX-License-Identifier: Apache-2.0
"""Small tables about one trace, which the notebooks show next to the figures.

Notebooks only call functions; computing and looking up is done here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit import recordings, workingset
from pmlkit.notebook.shown import shown
from pmlkit.recordings import name_of, open_trace, opened
from pmlkit.timeline import default_window, period_text, timeline
from pmlkit.trace import known, summary
from pmlkit.trace.schema import MIB_PAGES
from pmlkit.units import check_path, described, format_bytes, format_ns, format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pmlkit.missratio.curve import MissRatioCurve
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike
    from pmlkit.units import Window


__all__ = [
    "checked",
    "facts",
    "guest_memory",
    "known_answers",
    "memory_for",
    "output_folder",
    "overview",
    "phases",
    "regions",
    "rounds",
    "seen_by_pml",
    "shown",
    "working_sets",
]


USUAL_NS = 100_000_000  # default T
DECIMALS = 3  # decimals of MiB: a page is 0.004 MiB
ERROR_DECIMALS = {"mean error": 4, "largest error": 3}


def output_folder(out: PathLike) -> Path:
    """Return the folder a notebook writes to: a relative path is relative to the repository.

    It is the same folder in JupyterLab (which runs a notebook in its own folder) and under
    papermill (which runs it in the caller's). An installed pmlkit takes the working directory.
    """
    check_path("out", out)
    return recordings.workplace() / out


def facts(trace: Trace | PathLike) -> pd.DataFrame:
    """Return the trace's metadata, a DataFrame of ``what`` and ``value``."""
    trace = opened(trace)
    meta = trace.meta
    versions = meta.provenance.get("versions") or {}
    rows = {
        "guest": f"{meta.domain['name']}, {format_bytes(meta.memory_bytes)} of RAM, "
        f"{meta.domain['vcpus']} vCPU",
        "length": f"{format_ns(trace.duration_ns)} of guest time, {trace.n_rounds:,} rounds",
        "period": period_text(trace) if timeline(trace).resolution_ns else "",
        "entries": f"{meta.entries:,}, {meta.lost_text}",
        "complete": {None: "not known", True: "yes"}.get(
            meta.complete, "no: the recording was cut short"
        ),
        "notes": "; ".join(meta.notes),
        "recorded by": meta.source,
        "command": meta.provenance.get("command"),
        "versions": ", ".join(f"{tool} {version}" for tool, version in versions.items()),
    }
    filled = [(what, value) for what, value in rows.items() if value]
    return pd.DataFrame(filled, columns=["what", "value"])


def checked(trace: Trace | PathLike) -> pd.DataFrame:
    """Check every file of a trace against its checksum, count every entry, and return the counts.

    Returns
    -------
    DataFrame
        ``what`` was checked, the trace or the PML log or sample in it; ``files``, ``bytes``,
        ``rounds``, ``entries`` and how many were ``lost``.

    Raises
    ------
    pmlkit.errors.TraceDamaged
        If something does not agree.
    """
    trace = opened(trace)
    report = trace.check()
    parts = {"trace": report, "PML log": report["pml"], "sample": report["sample"]}
    counts = ["files", "bytes", "rounds", "entries", "lost"]
    rows = [{"what": n, **{c: of[c] for c in counts}} for n, of in parts.items() if of]
    return described(_whole_numbers(pd.DataFrame(rows)), {}, {"lost": _NOT_COUNTED})


def rounds(trace: Trace | PathLike, first: int = 5) -> pd.DataFrame:
    """Return the first rounds of a trace, a row each.

    Returns
    -------
    DataFrame
        ``round``, ``start`` and ``length`` in ms; ``entries``, the pages ``rearmed`` at its end,
        and the entries ``lost``.
    """
    trace = opened(trace)
    table = trace.rounds.head(first)
    start_ns, end_ns = table["t_start_ns"], table["t_end_ns"]
    counts = table[["entries", "rearmed", "lost"]]
    times = {"round": table["round"], "start": start_ns / 1e6, "length": (end_ns - start_ns) / 1e6}
    table = pd.DataFrame(times).join(counts.mask(counts < 0).astype("Int64"))
    return described(table, {"start": "ms", "length": "ms"}, _NOT_COUNTED)


_NOT_COUNTED = "not counted by the recorder"


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Convert counts of lost entries to integers, some of which are not known."""
    if table["lost"].isna().any():
        table["lost"] = table["lost"].astype("Int64")
    return table


def phases(trace: Trace | PathLike) -> pd.DataFrame:
    """Return the phases: ``phase``, ``start_s``, ``length_s`` and ``rounds``, one row each."""
    trace = opened(trace)
    columns = ["phase", "start_s", "length_s", "rounds"]
    rows = [(p.name, p.start_ns / 1e9, p.length_ns / 1e9, p.rounds) for p in summary.phases(trace)]
    table = pd.DataFrame(rows, columns=columns)
    return described(table, {"start_s": "s", "length_s": "s"})


def regions(trace: Trace | PathLike) -> pd.DataFrame:
    """Return the regions that the workload named: ``region``, ``pages`` and ``MiB``."""
    trace = opened(trace)
    sums = trace.regions.groupby("name", sort=False)["pages"].sum().astype("int64")
    pages = sums.to_numpy()
    return pd.DataFrame({"region": sums.index, "pages": pages, "MiB": pages / trace.meta.mib_pages})


def guest_memory(trace: Trace | PathLike) -> pd.DataFrame:
    """Return the guest's own view of its memory by phase.

    Returns
    -------
    DataFrame
        ``phase``; means of ``allocated``, ``free``, ``cached``, ``anon`` and ``committed`` in
        MiB; the pages swapped in, ``swap_ins``, and ``major_faults`` of the phase. Empty if the
        guest was not asked.
    """
    trace = opened(trace)
    names = ["allocated", "free", "cached", "anon", "committed"]
    if trace.guest is None:
        empty = pd.DataFrame(columns=["phase", *names, "swap_ins", "major_faults"])
        return described(empty, dict.fromkeys(names, "MiB"))
    starts = trace.phases[["t_ns", "name"]].rename(columns={"name": "phase"})
    samples = pd.merge_asof(trace.guest, starts, on="t_ns").fillna({"phase": ""})
    grouped = samples.groupby("phase", sort=False)
    table = grouped[[f"{name}_bytes" for name in names]].mean() / (1 << 20)
    table.columns = names
    counters = grouped[["pswpin", "pgmajfault"]]
    table[["swap_ins", "major_faults"]] = counters.max() - counters.min()
    units = dict.fromkeys(names, "MiB") | {"swap_ins": "pages"}
    return described(table.reset_index().round(DECIMALS), units, "the guest does not report it")


def known_answers(trace: Trace | PathLike) -> pd.DataFrame:
    """Return the workload's known answers and the measured values, one row each.

    Returns
    -------
    DataFrame
        ``phase``, ``region``, ``kind``, ``expected`` and ``measured`` (pages), ``met``. Empty for
        a trace without known answers.
    """
    trace = opened(trace)
    rows = [answer.as_dict() for answer in known.measure(trace)]
    table = pd.DataFrame(rows, columns=["phase", "region", "kind", "expected", "measured", "met"])
    return described(table, {"expected": "pages", "measured": "pages"})


def working_sets(trace: Trace | PathLike, window: str | int | Window | None = None) -> pd.DataFrame:
    """Return the working set of each phase in MiB, by kind of access.

    Parameters
    ----------
    window : str or Window, optional
        The window T; by default 100 ms, or the nearest T that the trace has.

    Returns
    -------
    DataFrame
        ``phase``, then the mean of W(t, T) over the phase, ``mean``, its maximum, ``peak``, and
        the means of the pages ``read``, ``written`` and ``executed``. A harvest of accessed flags
        has only ``not written`` and ``written``. A window counts for the phase in which it ends.
        Windows that are cut short, as by the start of the recording, do not count.
    """
    trace = opened(trace)
    columns = {"r": "read", "w": "written", "x": "executed"}
    if trace.is_harvest:
        columns = {"r": "not written", "w": "written"}
    window = _window(trace, window)
    used = _mib(trace, window, "rwx")
    parts = {"mean": used["mean"], "peak": used["max"]}
    parts |= {name: _mib(trace, window, kinds)["mean"] for kinds, name in columns.items()}
    table = pd.DataFrame(parts).rename_axis("phase").reset_index().round(DECIMALS)
    return described(table, dict.fromkeys(parts, "MiB"), _SHORT_PHASE)


_SHORT_PHASE = "no full window ends in the phase"


def seen_by_pml(trace: Trace | PathLike, window: str | int | Window | None = None) -> pd.DataFrame:
    """Return the share of each phase's working set that PML's log contains.

    Parameters
    ----------
    trace : Trace
        With the PML log of the same run in it.
    window : str or Window, optional
        As in `working_sets`.

    Returns
    -------
    DataFrame
        ``phase``, the means ``used`` and ``logged`` in MiB, and ``missed``, the share of the used
        pages that is not in the log, in percent.

    Raises
    ------
    pmlkit.errors.NeedsError
        If the trace has no PML log.
    """
    trace = opened(trace)
    log, window = trace.pml, _window(trace, window)
    used, logged = (_mib(source, window, "rwx")["mean"] for source in (trace, log))
    table = pd.DataFrame({"used": used, "logged": logged})
    table["missed"] = 100 * (1 - table["logged"] / table["used"]).mask(table["used"] == 0, 0)
    table = table.rename_axis("phase").reset_index().round(DECIMALS)
    return described(table, {"used": "MiB", "logged": "MiB", "missed": "%"}, _SHORT_PHASE)


def memory_for(
    curves: Mapping[str, MissRatioCurve],
    targets: Iterable[float] = (0.1, 0.05, 0.01),
    mib_pages: float = MIB_PAGES,
) -> pd.DataFrame:
    """Return the memory that miss-ratio curves imply, in MiB.

    Parameters
    ----------
    curves : dict of str to MissRatioCurve
        By name.
    targets : sequence of float
        Miss ratios.
    mib_pages : float
        Pages in a MiB, ``trace.meta.mib_pages``; default: of 4 KiB.

    Returns
    -------
    DataFrame
        ``curve``, ``uses``, ``pages``, ``first_uses`` (their share, in percent), ``knee``, and a
        column for each target; NaN if no size meets it. If there is an exact curve, also the
        ``mean error`` of each and the ``largest error``, over the sizes, in misses per use.
    """
    rows, targets = [], list(targets)
    truth = next((curve for curve in curves.values() if curve.method == "exact"), None)
    for name, curve in curves.items():
        sizes = {"knee": curve.knee(), **{format_share(t): curve.pages_for(t) for t in targets}}
        facts = {"uses": curve.uses, "pages": curve.pages, "first_uses": curve.cold * 100}
        mib = {what: pages and pages / mib_pages for what, pages in sizes.items()}
        spread = curve.errors(truth) if truth else ()
        errors = dict(zip(("mean error", "largest error"), spread, strict=False))
        rows.append({"curve": name, **facts, **mib, **errors})
    table = pd.DataFrame(rows).round(dict.fromkeys(rows[0], DECIMALS) | ERROR_DECIMALS)
    in_mib = ["knee", *(format_share(target) for target in targets)]
    units = {"first_uses": "%"} | dict.fromkeys(in_mib, "MiB")
    units |= dict.fromkeys(ERROR_DECIMALS, "misses per use")
    return described(table, units, "no size has so few misses")


def _window(trace: Trace, window: str | int | Window | None) -> str | int | Window:
    return default_window(timeline(trace), USUAL_NS) if window is None else window


def _mib(trace: Trace, window: str | int | Window, kinds: str | int) -> pd.DataFrame:
    """Return the ``mean`` and the ``max`` of each phase's full windows, in MiB; NaN without one."""
    table = workingset.estimate(trace, window, step="sliding", kinds=kinds)
    full = table[table["full"]]
    by_phase = (full["bytes"] / _MIB).groupby(full["phase"], sort=False).agg(["mean", "max"])
    return by_phase.reindex(table["phase"].unique())


# ------------------------------------------------------------------------------
# Recordings side by side.


_MIB = 1 << 20


def overview(names: Sequence[str]) -> pd.DataFrame:
    """Describe recordings, one row each.

    Parameters
    ----------
    names : sequence of str
        As `pmlkit.open` takes them.

    Returns
    -------
    pandas.DataFrame
        ``recording``; ``origin`` (`summary.origin_text`); ``holds``: accesses or a PML log;
        ``seconds`` of guest time; ``rounds``; ``entries`` and how many were ``lost`` (none: not
        counted); ``RAM`` and what was ``touched`` of it at any time, in MiB; ``known``: the known
        answers that are met, of how many (none: the workload states none).
    """
    table = _whole_numbers(pd.DataFrame([_row(open_trace(name)) for name in names]))
    reasons = {"lost": _NOT_COUNTED, "known": "the workload states no answers"}
    units = {"seconds": "s", "RAM": "MiB", "touched": "MiB"}
    return described(table, units, reasons)


def _row(trace: Trace) -> dict[str, object]:
    meta = trace.meta
    answers = known.measure(trace)
    met = sum(answer.as_dict()["met"] for answer in answers)
    return {
        "recording": name_of(trace.path),
        "origin": summary.origin_text(meta),
        "holds": "accesses" if trace.meta.kind == "access" else "PML log",
        "seconds": round(trace.duration_ns / 1e9, 2),
        "rounds": trace.n_rounds,
        "entries": meta.entries,
        "lost": meta.lost,
        "RAM": meta.memory_bytes // _MIB,
        "touched": round(_pages(trace) / meta.mib_pages, 1),
        "known": f"{met} of {len(answers)}" if answers else None,
    }


def _pages(trace: Trace) -> int:
    """Count a trace's distinct frames: its working set in a window of its whole length."""
    table = workingset.estimate(trace, f"{trace.n_rounds}r", page_tables="keep")
    return int(table["pages"].max())
