# SPDX-License-Identifier: Apache-2.0
"""Output of the commands for people: tables on stdout, progress on stderr.

`pmlkit.progress` shows progress. Colours obey NO_COLOR. Output into a pipe has no colours, and its
lines are folded only if COLUMNS states a width.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pmlkit import progress
from pmlkit.cli.options import as_options
from pmlkit.cli.sheets import fold, make_table, put
from pmlkit.errors import visible
from pmlkit.timeline import FAR, period_text
from pmlkit.trace import summary
from pmlkit.units import (
    exact_ns,
    format_bytes,
    format_ns,
    format_share,
    missing_notes,
    missing_texts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    import pandas as pd
    from rich.console import ConsoleOptions, RenderableType
    from rich.segment import Segment

    from pmlkit.answers import WorkingSet
    from pmlkit.difference import Difference
    from pmlkit.doctor import Capability, Check
    from pmlkit.sources.guest.workload import Workload
    from pmlkit.sources.recorder.recording import Progress as HowFar
    from pmlkit.trace.known import KnownAnswer
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Json


__all__ = [
    "answer",
    "busy",
    "doctor",
    "named",
    "parameters",
    "recording",
    "records",
    "recordings",
    "sheet",
    "reads",
    "trace",
    "trace_dict",
    "window_notes",
    "windows",
    "workload_dict",
    "workloads",
]


GAP_WINDOWS = 10  # a longer run of windows without uses is printed as one line
WIDE = 120  # columns at most on a wider terminal
UNFOLDED = 10_000  # columns of output that is not a terminal


class _Console(Console):
    """A console that escapes control characters in texts; its own styles pass."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(visible(text), **how)  # escaped before the width is measured

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def console(error: bool = False) -> Console:
    """Make a console without markup: names of regions may contain [brackets] and :colons:."""
    stream = sys.stderr if error else sys.stdout
    # In a width of 0, which some terminals state, nothing would be printed.
    known = {n: v for n, v in os.environ.items() if n != "COLUMNS" or _is_width(v)}
    width = None if stream.isatty() or "COLUMNS" in known else UNFOLDED
    how: Json = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
    return _Console(stderr=error, width=width, _environ=known, **how)


def _is_width(text: str) -> bool:
    return text.isdecimal() and len(text) < 10 and int(text) > 0


def answer(lines: Iterable[str], *tables: Callable[[], object]) -> None:
    """Print the lines of an answer, folded at words, and then its tables."""
    page = console()
    for line in lines:
        indent = "    " if line.startswith(" ") else "  " if line.startswith("- ") else ""
        for part in fold(visible(as_options(line)), page.width, indent) if line.strip() else [""]:
            page.print(part, no_wrap=True, crop=False)
    for print_table in tables:
        page.print()
        print_table()


@contextmanager
def busy(
    what: str, total: int | None = None, of_parts: bool = False, quiet: bool = False
) -> Iterator[progress.Task]:
    """Show the block's progress on standard error; parameters as in `pmlkit.progress.Task`."""
    with progress.shown(quiet), progress.task(what, total, of_parts) as task:
        yield task


@contextmanager
def recording(quiet: bool = False) -> Iterator[Callable[[HowFar], None]]:
    """Show a recording's progress; yields the callback for `pmlkit.sources.recorder.record`."""
    with busy("recording", quiet=quiet) as task:
        task.begin("building and booting the guest")

        def show(now: HowFar) -> None:
            phase = f"{now.phase}, " if now.phase else ""
            guest_s = now.guest_ns / 1e9
            task.begin(f"{phase}guest time {guest_s:.2f} s, {now.entries:,} entries")

        yield show


def doctor(capabilities: Sequence[Capability]) -> None:
    """Print the capabilities that `pmlkit.doctor.examine` returned: verdict, remedies, checks.

    A check that several capabilities share is in the table of the first.
    """
    page, printed = console(), set[str]()
    answer(_verdict(capabilities))
    for capability in capabilities:
        page.print()
        verdict = "yes" if capability.ready else "no"
        page.print(
            Text(f"{capability.name}: {verdict} ({capability.purpose})", style="bold"),
            soft_wrap=False,
        )
        new = [check for check in capability.checks if check.name not in printed]
        shared = [check.name for check in capability.checks if check.name in printed]
        put(page, _checks(new))
        if shared:
            answer([f"and, as above: {', '.join(shared)}"])
        printed |= {check.name for check in new}


def _verdict(capabilities: Sequence[Capability]) -> list[str]:
    """Return the capabilities that work here, and each remedy for the others once."""
    ready = [capability.name for capability in capabilities if capability.ready]
    other = [capability.name for capability in capabilities if not capability.ready]
    lines = [f"Works here: {', '.join(ready) or 'nothing'}."]
    if other:
        lines.append(f"Does not work here: {', '.join(other)}.")
    remedies = {
        check.name: f"  {check.name}: {check.mend}{' (root)' * check.root}"
        for capability in capabilities
        for check in capability.checks
        if check.state != "ok" and check.mend
    }
    return [*lines, *["To fix:"] * bool(remedies), *remedies.values()]


def _checks(checks: Iterable[Check]) -> Table:
    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    table = make_table("", "what", "found", "for")
    for check in checks:
        state = Text(check.state, style=colours[check.state])
        table.add_row(state, check.name, check.found, check.purpose)
    return table


def workloads(known: Iterable[Workload]) -> None:
    """Print workloads, one line each."""
    table = make_table("workload", "memory", "guest time", "summary", right=(1, 2))
    for w in known:
        table.add_row(w.name, f"{w.memory_mib} MiB", f"{w.seconds:g} s", w.summary)
    put(console(), table)


def recordings(known: Iterable[Json]) -> None:
    """Print the recordings that come with pmlkit, one line each."""
    page = console()
    names = ["name", "length", "workload", "contents", "good_for"]
    if page.width < WIDE:
        names.remove("workload")  # nearly always the name
    table = make_table(*(name.replace("_", " ") for name in names), right=(1,))
    for one in known:
        row = {**one, "length": f"{one['seconds']:.1f} s"}
        table.add_row(*(row[name] for name in names))
    put(page, table)


def parameters(known: Iterable[Workload]) -> None:
    """Print the parameters of workloads, with their defaults."""
    for workload in known:
        table = make_table(workload.name, "default", "")
        for name, parameter in workload.parameters.items():
            table.add_row(name, str(parameter.default), parameter.help)
        put(console(), table)


def workload_dict(workload: Workload) -> Json:
    """Return a workload as JSON."""
    return {
        "name": workload.name,
        "summary": workload.summary,
        "memory_mib": workload.memory_mib,
        "seconds": workload.seconds,
        "phases": list(workload.phases),
        "parameters": {
            name: {"default": p.default, "help": p.help} for name, p in workload.parameters.items()
        },
    }


def windows(columns: Mapping[str, Array]) -> None:
    """Print working sets, one line per window; `columns` are those of `workingset.columns`."""
    regions = [name for name in columns if name.startswith("region:")]
    headers = ("end", "effective", "pages", "size", *regions, "phase", "")
    page = make_table(*headers, right=range(4 + len(regions)))
    for row, skipped in _without_long_gaps(columns):
        if skipped:
            page.add_row("...", f"{skipped:,} windows", "0", "0 B")
        page.add_row(
            f"{row['t_ns'] / 1e9:.3f} s",
            format_ns(row["effective_ns"]),
            f"{row['pages']:,}",
            format_bytes(row["bytes"]),
            *(f"{row[name]:,}" for name in regions),
            row["phase"],
            "" if row["full"] else "cut short",
        )
    shown = console()
    put(shown, page)
    answer(window_notes(columns))


def records(columns: Mapping[str, Array]) -> list[Json]:
    """Return the rows of columns, as JSON."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _without_long_gaps(columns: Mapping[str, Array]) -> Iterator[tuple[Json, int]]:
    """Yield the rows to print, each with the number of rows skipped before it.

    Only the first and the last window of a long run without uses are printed.
    """
    empty = columns["pages"] == 0
    alike = empty & np.append(False, empty[:-1]) & np.append(empty[1:], False)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], alike.astype(np.int8), [0]))))
    for first, stop in edges.reshape(-1, 2):
        alike[first:stop] = stop - first >= GAP_WINDOWS
    kept = np.flatnonzero(~alike)
    skipped = np.diff(kept, prepend=-1) - 1
    rows = records({name: column[kept] for name, column in columns.items()})
    yield from zip(rows, skipped.tolist(), strict=True)


def window_notes(table: Mapping[str, Array] | pd.DataFrame) -> Iterator[str]:
    """Yield lines on T, and on windows whose effective T differs much from it."""
    t_ns, full, asked_ns, effective_ns = (
        np.asarray(table[name]) for name in ("t_ns", "full", "asked_ns", "effective_ns")
    )
    if not len(t_ns) or asked_ns[0] < 0:
        return
    asked, first = int(asked_ns[0]), np.unique(t_ns, return_index=True)[1]
    effective_ns = effective_ns[first][full[first]]
    yield f"T = {exact_ns(asked)}"
    far = np.abs(effective_ns - asked) > FAR * asked
    if far.any():
        median = format_ns(float(np.median(effective_ns)))
        yield (
            f"note: in {int(far.sum()):,} of {len(far):,} windows the effective T differs by "
            f"more than {format_share(FAR)}; its median is {median}"
        )


def summaries(answers: Mapping[str, WorkingSet]) -> None:
    """Print the working sets of recordings in a few numbers, a line each."""
    sizes = ("mean", "p50", "p95", "p99", "peak")
    page = make_table("recording", *sizes, "peak at", "in phase", "T", "windows", right=range(1, 7))
    for label, answer in answers.items():
        numbers = (format_bytes(getattr(answer, size)) if answer.windows else "" for size in sizes)
        at = f"{answer.peak_ns / 1e9:.3f} s" if answer.windows else ""
        page.add_row(label, *numbers, at, answer.peak_phase, answer.window, f"{answer.windows:,}")
    put(console(), page)


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> None:
    """Print the sizes of the working sets of recordings, a line for each end of a window.

    Windows that the start or the end cuts short have no size here.
    """
    import pandas as pd

    sizes = {
        label: table[table["full"]].groupby("t_ns")["bytes"].last()
        for label, table in tables.items()
    }
    joined = pd.concat(sizes, axis=1).sort_index()
    page = make_table("end", *joined.columns, right=range(1 + len(joined.columns)))
    for t_ns, row in joined.iterrows():
        cells = ("" if np.isnan(size) else format_bytes(size) for size in row)
        page.add_row(f"{float(t_ns) / 1e9:.3f} s", *cells)  # type: ignore[arg-type]
    shown = console()
    put(shown, page)
    for label, table in tables.items():
        for line in window_notes(table):
            if line.startswith("note"):
                answer([f"{label}: {line}"])


def difference(result: Difference) -> None:
    """Print statistics before and after, their differences, and those of each repeat."""
    from pmlkit.difference import interval_text, signed_bytes

    headers = ("W", "phase", result.before, result.after, "difference", "95 % interval")
    page = make_table(*headers, right=range(2, 6))
    for row in result.table.to_dict("records"):
        sizes = (format_bytes(row["before"]), format_bytes(row["after"]))
        numbers = (*sizes, signed_bytes(row["difference"]), interval_text(row))
        page.add_row(row["statistic"], row["phase"] or "all", *numbers)
    put(console(), page, keys=2)
    if result.repeats is not None:
        each = make_table("", "recording", "mean", "p95", "peak", right=range(2, 5))
        for row in result.repeats.to_dict("records"):
            means = (format_bytes(row[name]) for name in ("mean", "p95", "peak"))
            each.add_row(row["label"], row["recording"], *means)
        answer([], lambda: put(console(), each, keys=2))


def trace_dict(trace: Trace, answers: Sequence[KnownAnswer]) -> Json:
    """Return a trace's description as JSON."""
    meta = trace.meta.to_json()
    phases = meta.pop("phases")
    meta.pop("known")
    return {
        "path": str(trace.path),
        **meta,
        "rounds": trace.n_rounds,
        "duration_ns": int(trace.duration_ns),
        "memory_pages": int(trace.memory_pages),
        "phases": phases,
        "regions": _pages_by_region(trace),
        "bytes_per_entry": trace.bytes_per_entry,
        "known": [answer.as_dict() for answer in answers],
        "all_known_met": all(answer.met for answer in answers),
    }


def _pages_by_region(trace: Trace) -> dict[str, int]:
    pages = dict.fromkeys(trace.region_names, 0)
    for row in trace.regions_table.to_pylist():
        pages[row["name"]] += row["pages"]
    return pages


def trace(trace: Trace, answers: Sequence[KnownAnswer]) -> None:
    """Print a trace's facts, its phases, and its known answers."""
    page = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary.facts(trace, period_text(trace)):
        table.add_row(Text(name, style="bold"), value)
    put(page, table)
    _print_phases(page, trace)
    if answers:
        table = make_table("phase", "region", "pages", "expected", "measured", "", right=(3, 4))
        for a in answers:
            verdict = Text("met", style="green") if a.met else Text("NOT MET", style="red")
            row = (f"{a.expected:,}", f"{a.measured:,}", verdict)
            table.add_row(a.phase, a.region, a.kind, *row)
        page.print(Text("known answers", style="bold"))
        put(page, table)


def _print_phases(page: Console, trace: Trace) -> None:
    rows = summary.phases(trace)
    if not rows:
        return
    table = make_table("phase", "start", "length", "round", right=(1, 2, 3))
    for phase in rows:
        start, length = f"{phase.start_ns / 1e9:.3f} s", format_ns(phase.length_ns)
        table.add_row(phase.name, start, length, f"{phase.round:,}")
    put(page, table)


def named(header: str, lines: Mapping[str, str]) -> None:
    """Print names and their descriptions, one line each."""
    table = make_table(header, "")
    for name, line in lines.items():
        table.add_row(name, line)
    put(console(), table)


# ------------------------------------------------------------------------------
# `pmlkit mrc`


ROWS, COLUMNS = 12, 6


def curves(by_name: Mapping[str, Json], page_sizes: Sequence[int]) -> None:
    """Print curves by name: number of uses, derived working sets, and ratios at some sizes.

    Parameters
    ----------
    page_sizes : sequence of int
        Of each curve, bytes.
    """

    def size(pages: float | None, page_size: int) -> str:
        return "never" if pages is None else format_bytes(pages * page_size)

    each, least = list(zip(by_name.values(), page_sizes, strict=True)), min(page_sizes)
    page = make_table("", *by_name, right=range(1, 1 + len(by_name)))
    for label, value in _LINES.items():
        page.add_row(label, *(value(curve) for curve, _ in each))
    page.add_row("memory at the knee", *(size(curve["knee_pages"], of) for curve, of in each))
    for target in each[0][0]["pages_for"]:
        sizes = (size(curve["pages_for"][target], of) for curve, of in each)
        page.add_row(f"memory for a miss ratio of {target}", *sizes)
    for pages in _spread(max(curve["sizes_pages"][-1] * of // least for curve, of in each)):
        ratios = (_at(curve, pages * least // of) for curve, of in each)
        page.add_row(f"miss ratio at {size(pages, least)}", *ratios)
    put(console(), page)


_LINES: dict[str, Callable[[Json], str]] = {
    "uses": lambda curve: f"{curve['uses']:,}",
    "pages": lambda curve: f"{curve['pages']:,}",
    "pages sampled": lambda curve: f"{curve['sampled_pages'] or curve['pages']:,}",
    "first uses": lambda curve: format_share(curve["cold"]),
}


def over_time(table: pd.DataFrame, page_size: int) -> None:
    """Print the miss ratio of each window at some sizes."""
    grid = table.pivot(index="t_ns", columns="pages", values="miss_ratio")
    sizes = grid.columns  # empty if the part has no rounds
    places = np.unique(np.linspace(0, max(len(sizes) - 1, 0), COLUMNS).astype(int))
    chosen = sizes[places[: len(sizes)]]
    headers = [format_bytes(int(n) * page_size) for n in chosen]
    page = make_table("end", *headers, "", right=range(1 + len(headers)))
    full = dict(table.groupby("t_ns")["full"].all())
    for t_ns, row in grid[chosen].iterrows():
        ratios = ("" if np.isnan(r) else f"{r:.4f}" for r in row)
        page.add_row(f"{t_ns / 1e9:.3f} s", *ratios, "" if full[t_ns] else "cut short")  # type: ignore[operator]
    put(console(), page)
    answer(window_notes(table))


def _spread(last: int) -> list[float]:
    """Return sizes that double, up to `last`."""
    doubling = [last >> shift for shift in range(ROWS)]
    return sorted({size for size in doubling if size})


def _at(curve: Json, size: float) -> str:
    place = np.searchsorted(curve["sizes_pages"], size, "right") - 1
    ratio = f"{curve['miss_ratio'][place]:.4f}"
    if curve["low"] is None:
        return ratio
    return f"{ratio} ({curve['low'][place]:.4f} to {curve['high'][place]:.4f})"


# ------------------------------------------------------------------------------
# `pmlkit compare`


def sheet(table: pd.DataFrame, title: str, right: Sequence[int] = ()) -> None:
    """Print a DataFrame under a title, with numbers rounded; columns `right` are flush right.

    Below it are the reasons for missing values, if the table has them (`units.described`).
    """
    from pmlkit.figures.tables import cell, is_number

    right = right or [i for i, dtype in enumerate(table.dtypes) if is_number(dtype)]
    page = make_table(*table.columns, right=right)
    for row in table.itertuples(False):
        page.add_row(*(as_options(cell(value)) for value in row))
    answer([title])
    put(console(), page, _keys(table))
    answer(f"{cell(None)}: {note}" for note in missing_notes(table, missing_texts(table)))


def _keys(table: pd.DataFrame) -> int:
    """Return how many of the first columns tell the rows apart; a mark is no name."""
    least = 1 if table.columns[0] else 2
    numbers = range(least, min(len(table.columns), least + 2))
    return next((n for n in numbers if not table.iloc[:, :n].duplicated().any()), least)


# ------------------------------------------------------------------------------
# `pmlkit reads`


def reads(table: pd.DataFrame) -> None:
    """Print estimates or a comparison of methods, one line each."""
    (_comparison if "method" in table else _estimates)(table)


def _estimates(table: pd.DataFrame) -> None:
    headers = ("end", "pages", "size", "low", "high", "PML alone", "phase", "")
    page = make_table(*headers, right=range(6))
    for row in table.to_dict("records"):
        written = f"{row['written']:,}" if row["written"] >= 0 else ""
        page.add_row(
            f"{row['t_ns'] / 1e9:.3f} s",
            f"{row['pages']:,}",
            format_bytes(row["bytes"]),
            f"{row['low']:,}",
            f"{row['high']:,}",
            written,
            row["phase"],
            "" if row["full"] else "cut short",
        )
    put(console(), page)


def _comparison(table: pd.DataFrame) -> None:
    names = [name for name in table.columns if name not in ("phase", "method")]
    page = make_table("phase", "method", *names, right=range(2, 2 + len(names)))
    for row in table.to_dict("records"):
        page.add_row(row["phase"], row["method"], *(f"{row[name]:,g}" for name in names))
    put(console(), page, keys=2)
    legend = "truth and estimate in MiB; missed (by PML), errors, inside and width in percent"
    answer([legend])
