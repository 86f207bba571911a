# SPDX-License-Identifier: Apache-2.0
"""Several recordings at once: their labels, and differences that forbid a comparison.

Functions that take several recordings take a mapping of label to trace::

    pmlkit.wss({"before": "a.trace", "after": "b.trace"}, window="1s")

`labelled` makes such a mapping of anything that names recordings. `unlike` states differences of
recordings that change the meaning of a number: a log of writes holds fewer pages than all accesses,
and a second of a guest's instructions is not a second of a host's clock. Tables and figures of
several recordings name these differences; a comparison in numbers refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pmlkit.errors import UsageError
from pmlkit.recordings import open_trace
from pmlkit.selection import stream
from pmlkit.timeline import SECOND, default_window, timeline
from pmlkit.trace.kinds import Kind, parse_kinds
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import ADDRESSES
from pmlkit.units import Window, exact_ns, format_bytes, parse_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    import pandas as pd

    from pmlkit.selection import Selection
    from pmlkit.types import PathLike

    Traces: TypeAlias = (
        "Trace | PathLike | Mapping[str, Trace | PathLike] | Sequence[Trace | PathLike]"
    )

__all__ = ["Unlike", "are_several", "common_window", "labelled", "losses", "stacked", "unlike"]


def are_several(traces: object) -> bool:
    """Return whether a value stands for several recordings: a mapping, a list or a tuple."""
    return isinstance(traces, Mapping | list | tuple)


def labelled(traces: Traces, labels: Sequence[str] = ()) -> dict[str, Trace]:
    """Return recordings by their labels, in the order given.

    Parameters
    ----------
    traces : Trace, path-like, mapping of str to these, or sequence of these
        One recording or several; paths and names are opened.
    labels : sequence of str, optional
        A label for each; by default the recordings' names, with as much of their paths as makes
        them distinct.

    Returns
    -------
    dict of str to Trace

    Raises
    ------
    UsageError
        If there is no recording, the labels are not as many as the recordings, or a label is empty
        or there twice.

    Examples
    --------
    >>> from pmlkit.several import labelled
    >>> list(labelled("hotcold"))
    ['hotcold']
    >>> list(labelled({"before": "hotcold", "after": "pressure"}))
    ['before', 'after']
    """
    if isinstance(traces, Mapping):
        given, labels = list(traces.values()), labels or list(traces)
    elif isinstance(traces, Trace | str | os.PathLike):
        given = [traces]
    elif isinstance(traces, Iterable):
        given = list(traces)
    else:
        raise UsageError(
            f"{traces!r} is not a recording: give a trace, or a mapping of name to trace"
        )
    if not given:
        raise UsageError("there is no recording: give one or more")
    opened = [trace if isinstance(trace, Trace) else open_trace(trace) for trace in given]
    return dict(zip(_checked(labels or _names(opened), len(opened)), opened, strict=True))


def _checked(labels: Sequence[str], count: int) -> Sequence[str]:
    if len(labels) != count:
        many = f"{count} recording{'s' * (count != 1)}"
        raise UsageError(f"{len(labels)} labels for {many}: give one label for each")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise UsageError(f"a label is {label!r}: give a text")
        if list(labels).count(label) > 1:
            raise UsageError(f"the label {label!r} occurs twice: give distinct labels")
    return labels


def _names(traces: Sequence[Trace]) -> list[str]:
    """Return the names of recordings, which are distinct."""
    parts = [_parts(trace) for trace in traces]
    distinct = list(dict.fromkeys(parts))
    names = dict(zip(distinct, _shortest(distinct), strict=True))
    return [
        f"{names[part]} ({parts[: index + 1].count(part)})"
        if parts.count(part) > 1
        else names[part]
        for index, part in enumerate(parts)
    ]


def _parts(trace: Trace) -> tuple[str, ...]:
    parts = Path(os.path.abspath(trace.path)).parts[1:]
    return tuple(part.removesuffix(".trace") for part in parts) or ("/",)


def _shortest(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the shortest ends of distinct paths that distinguish them."""
    lengths = [1 + (path[-1] == "pml") for path in paths]  # the log nested in another recording
    while True:
        names = ["/".join(path[-n:]) for path, n in zip(paths, lengths, strict=True)]
        if len(set(names)) == len(names):
            return names
        lengths = [n + (names.count(name) > 1) for n, name in zip(lengths, names, strict=True)]


# ------------------------------------------------------------------------------
# Differences that forbid a comparison.


class Unlike(NamedTuple):
    """One difference between recordings.

    Attributes
    ----------
    what : str
        The respect: ``"contents"``, ``"clock"``, ``"page size"``, ``"addresses"``, ``"rounds"``.
    values : dict of str to str
        What each recording has, in words, by its label.
    """

    what: str
    values: dict[str, str]

    def __str__(self) -> str:
        each = ", ".join(f"{label}: {value}" for label, value in self.values.items())
        return f"the recordings differ in their {self.what} ({each})"


def unlike(traces: Mapping[str, Trace], kinds: str | int | None = "rwx") -> list[Unlike]:
    """Return the differences of recordings that change the meaning of a number of pages.

    Parameters
    ----------
    traces : dict of str to Trace
        As in `labelled`.
    kinds : str or int
        What counts. If only writes do, a log of writes is like a recording of all accesses.

    Returns
    -------
    list of Unlike
        Empty if the recordings can be compared. ``"rounds"`` differ only in what they resolve: W of
        a T that both have is comparable, counts of uses (m, miss ratios) are not.
    """
    facts = {
        "contents": {label: _contents(trace, kinds) for label, trace in traces.items()},
        "clock": {label: _clock(trace) for label, trace in traces.items()},
        "page size": {
            label: format_bytes(trace.meta.domain["page_size"]) for label, trace in traces.items()
        },
        "addresses": {
            label: trace.meta.domain.get("address", ADDRESSES[0]) for label, trace in traces.items()
        },
        "rounds": {label: _rounds(trace) for label, trace in traces.items()},
    }
    return [Unlike(what, values) for what, values in facts.items() if len(set(values.values())) > 1]


def losses(traces: Mapping[str, Trace]) -> list[str]:
    """Return a note for each recording that lost entries."""
    notes = {label: trace.meta.loss_note for label, trace in traces.items()}
    return [f"{label}: {note}" for label, note in notes.items() if note]


def _contents(trace: Trace, kinds: str | int | None) -> str:
    if trace.meta.kind == "pml" or parse_kinds(kinds) == Kind.WRITE:
        return "writes only"
    return "touched frames" if trace.is_harvest else "all accesses"


def _clock(trace: Trace) -> str:
    clock = trace.meta.clock
    if clock["kind"] != "icount" or not clock.get("ns_per_insn"):
        return f"{clock['kind']} clock"
    return f"{clock['ns_per_insn']:g} ns per instruction"


def _rounds(trace: Trace) -> str:
    resolution_ns = timeline(trace).resolution_ns
    return "of no stated time" if resolution_ns is None else exact_ns(resolution_ns)


# ------------------------------------------------------------------------------
# One T and one table for all of them.


def common_window(
    traces: Mapping[str, Trace],
    window: str | int | Window | None = None,
    wanted_ns: int = SECOND,
    **selection: Unpack[Selection],
) -> Window:
    """Return a common T for several recordings.

    Parameters
    ----------
    window : str, int or Window, optional
        By default the shortest of those that `timeline.default_window` chooses for each and all
        resolve.
    wanted_ns : int
        The default T, if all can resolve it.
    **selection
        The part of each recording, as of `pmlkit.selection`.

    Raises
    ------
    UsageError
        If T is in rounds, and rounds differ between the recordings.
    """
    if window is None:
        parts = [stream(trace, **selection).timeline for trace in traces.values()]
        defaults = [default_window(part, wanted_ns) for part in parts]
        timed = [one for one in defaults if one.ns is not None]
        shortest = max((part.resolution_ns or 0 for part in parts), default=0)
        lengths = [one.length for one in timed]
        fitting = [ns for ns in lengths if ns >= shortest] or lengths
        window = Window(ns=min(fitting)) if timed else defaults[0]
    chosen = parse_window(window)
    if chosen.ns is None and len({_rounds(trace) for trace in traces.values()}) > 1:
        each = ", ".join(f"{label}: rounds {_rounds(trace)}" for label, trace in traces.items())
        raise UsageError(f"{chosen} is another T in each recording ({each}): give T as a time")
    return chosen


def stacked(
    measure: Callable[..., pd.DataFrame], traces: Traces, *arguments: object, **how: object
) -> pd.DataFrame:
    """Return one table of several recordings, each under its label.

    Parameters
    ----------
    measure : callable
        Called with each trace, `arguments` and `how`; returns a DataFrame.

    Returns
    -------
    DataFrame
        The column ``trace`` (the label), then those of `measure`. Counts that a recording does not
        have (``region:NAME``) are missing.
    """
    import pandas as pd

    tables = {label: measure(trace, *arguments, **how) for label, trace in labelled(traces).items()}
    columns = list(dict.fromkeys(str(name) for table in tables.values() for name in table))
    counts = dict.fromkeys((name for name in columns if name.startswith("region:")), "Int64")
    parts = []
    for label, table in tables.items():
        part = table.reindex(columns=columns).astype(counts)
        part.insert(0, "trace", label)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
