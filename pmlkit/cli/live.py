# SPDX-License-Identifier: Apache-2.0
"""Show a running collection: a table and a curve on a terminal, one line per round elsewhere.

This module is separate from `collect`, which imports it late, because importing rich takes long.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pmlkit.cli import console
from pmlkit.figures import terminal
from pmlkit.progress import can_print
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import format_bytes, format_ns, format_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console

    from pmlkit.sources.host.collection import Collection
    from pmlkit.sources.watch import Seen
    from pmlkit.types import Json


__all__ = ["line", "summary", "watching"]

_ROWS = 10
_CURVE_ROWS, _FEWEST_ROWS = 10, 4


@contextmanager
def watching(name: str, quiet: bool = False) -> Iterator[Callable[[Seen], None]]:
    """Show rounds as they arrive.

    Parameters
    ----------
    name : str
        The domain's name.
    quiet : bool
        Show nothing, because a program reads the output.

    Yields
    ------
    callable
        Takes each `pmlkit.sources.watch.Seen`.
    """
    page = console.console(error=True)
    if quiet:
        yield lambda seen: None
    elif not page.is_terminal:
        yield lambda seen: page.print(line(seen))
    else:
        rows: list[Seen] = []
        view = _Curve(page)
        with Live(_view(name, rows), console=page, auto_refresh=False, transient=True) as live:

            def show(seen: Seen) -> None:
                rows.append(seen)
                view.add(seen)
                del rows[:-_ROWS]
                live.update(Group(_view(name, rows), view.text()), refresh=True)

            yield show


def line(seen: Seen) -> str:
    """Format a round as one line of a log; what is not known is left out."""
    facts = [
        f"round {seen.round}: {seen.t_ns / 1e9:.3f} s",
        f"working set {seen.pages:,} pages ({format_bytes(seen.bytes)}) "
        f"in {format_ns(seen.length_ns)}",
        _rate(seen.entries, seen, " entries/s"),
        _rate(seen.exits, seen, " exits/s"),
        f"{seen.lost:,} lost",
        "" if seen.fill is None else f"ring {format_share(seen.fill, 2)}",
        f"paused {format_ns(seen.pause_ns)}",
        f"{format_share(seen.agent_cpu_ns / 1e9 / seen.seconds)} of a CPU",
    ]
    return ", ".join(filter(None, facts))


def _rate(count: int | None, seen: Seen, unit: str = "") -> str:
    """Format the number of events of a round per second; "" if it is not known."""
    return "" if count is None else f"{count / seen.seconds:,.0f}{unit}"


class _Curve:
    """The working set since the start, as a line of text characters."""

    def __init__(self, page: Console) -> None:
        self.page = page
        self.t_s: list[float] = []
        self.mib: list[float] = []
        self.lost = 0

    def add(self, seen: Seen) -> None:
        """Add a round."""
        self.t_s.append(seen.t_ns / 1e9)
        self.mib.append(seen.bytes / (1 << 20))
        self.lost += seen.lost

    def text(self) -> Text:
        """Return the curve; empty if the terminal is too low for the curve and the table."""
        width, height = self.page.size
        room = min(height - _ROWS - 6, _CURVE_ROWS)
        if len(self.t_s) < 2 or room < _FEWEST_ROWS:
            return Text("")
        ascii_only = not can_print(self.page.file, "\u28ff\u2502")
        screen = terminal.Screen(width, room, ascii_only)
        rows = terminal.line(self.t_s, self.mib, (self.t_s[0], self.t_s[-1]), "s", screen)
        title = f"working set per round, MiB; {self.lost:,} entries lost since the start"
        return Text("\n".join([title[:width], *rows]), no_wrap=True)


def _view(name: str, rows: Sequence[Seen]) -> Table:
    table = Table(title=f"collecting {name}: Ctrl-C stops it", title_justify="left", box=None)
    for header in ("round", "time", "length", "working set", "since the start", "entries/s",
                   "exits/s", "lost", "ring", "paused", "agent CPU"):  # fmt: skip
        table.add_column(header, justify="right")
    for seen in rows:
        table.add_row(
            str(seen.round),
            f"{seen.t_ns / 1e9:.1f} s",
            format_ns(seen.length_ns),
            format_bytes(seen.bytes),
            "" if seen.distinct is None else format_bytes(seen.distinct * PAGE_SIZE),
            _rate(seen.entries, seen),
            _rate(seen.exits, seen),
            Text(f"{seen.lost:,}", style="red" if seen.lost else ""),
            _fill(seen),
            format_ns(seen.pause_ns),
            format_share(seen.agent_cpu_ns / 1e9 / seen.seconds),
        )
    return table


def _fill(seen: Seen) -> Text:
    if seen.fill is None:
        return Text("")
    return Text(format_share(seen.fill, 2), style="yellow" if seen.fill > 0.5 else "")


def summary(run: Collection) -> Json:
    """Return a collection that has ended as JSON."""
    trace, seen = run.trace, run.seen
    return {
        "trace": str(trace.path),
        "domain": trace.meta.domain,
        "mode": trace.meta.options.get("mode"),
        "complete": trace.meta.complete,
        "notes": trace.meta.notes,
        "rounds": trace.n_rounds,
        "duration_ns": int(trace.duration_ns),
        "entries": trace.pml.meta.entries,
        "lost": trace.pml.meta.lost,
        "exits": _sum(s.exits for s in seen),
        "pause_ns": sum(s.pause_ns for s in seen),
        "agent_cpu_ns": sum(s.agent_cpu_ns for s in seen),
        "working_set": [s.as_dict() for s in seen],
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum of counts; None if one is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)
