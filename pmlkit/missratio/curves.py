# SPDX-License-Identifier: Apache-2.0
"""Miss-ratio curves: the share of uses that miss in a cache of each size.

>>> curve = missratio.of_trace(trace)                         # exact LRU     # doctest: +SKIP
>>> curve.at([1000, 2000]), curve.pages_for(0.1), curve.knee()                # doctest: +SKIP

`exact` counts every use. `shards` samples pages (`sampled`). `aet` models the stack by the times
between uses (`eviction`). All take the pages in order of use, as one array or as a stream of
arrays. Their memory is proportional to the number of pages. The curve of a PML log covers writes
only, because the log contains each written page once per re-arm.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, overload

import numpy as np

from pmlkit.errors import UnknownName, UsageError, argument
from pmlkit.kernels.pages import grown, numbered_pages
from pmlkit.missratio.curve import MissRatioCurve
from pmlkit.missratio.distances import LruStack, stack_distances
from pmlkit.missratio.eviction import aet, aet_of
from pmlkit.missratio.inversions import distances
from pmlkit.missratio.sampled import shards
from pmlkit.recordings import opened
from pmlkit.selection import Selection, stream
from pmlkit.several import labelled
from pmlkit.timeline import MOST, default_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Unpack

    import pandas as pd

    from pmlkit.kernels.pages import Uses
    from pmlkit.selection import Stream
    from pmlkit.timeline import Windows
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ids, Ints, PathLike
    from pmlkit.units import Window


__all__ = [
    "METHODS",
    "MissRatioCurve",
    "aet",
    "exact",
    "of_trace",
    "over_time",
    "shards",
    "stack_distances",
]


def exact(gfns: Uses) -> MissRatioCurve:
    """Return the miss ratio of an LRU cache at every size.

    Parameters
    ----------
    gfns : array of int, shape (uses,), or iterable of such arrays
        Pages in order of use.

    Returns
    -------
    MissRatioCurve
        With one size for each number of pages from 0 to all.

    Notes
    -----
    Mattson et al. (1970): one pass over the stack distances gives all sizes. `pmlkit.kernels.lru`
    describes how the distances are computed.

    Examples
    --------
    >>> import numpy as np
    >>> from pmlkit import missratio
    >>> curve = missratio.exact(np.array([1, 2, 3, 1, 2, 3, 1, 2, 3]))
    >>> curve.sizes_pages.tolist()
    [0, 1, 2, 3]
    >>> curve.miss_ratio.round(2).tolist()  # round and round: all or nothing
    [1.0, 1.0, 1.0, 0.33]
    """
    return _exact(numbered_pages(gfns))


def _exact(numbered: Iterator[tuple[Ids, int]]) -> MissRatioCurve:
    from pmlkit.kernels.lru import histogram

    stack, counts, uses = LruStack(), np.zeros(1 << 12, np.int64), 0
    for ids, pages in numbered:
        counts = grown(counts, pages, 0)
        histogram(stack.use(ids, pages), counts)
        uses += len(ids)
    return _of_hits(counts[: len(stack)], uses)


def _is_faster_at_once(source: Stream) -> bool:
    short = source.trace.meta.entries <= AT_ONCE and not source.expand
    return short and "numba" not in sys.modules


def _exact_at_once(source: Stream) -> MissRatioCurve:
    """Return the exact curve of a short trace, without the compiler."""
    last = source.last_uses()
    pages = int(np.count_nonzero(last < 0))
    return _of_hits(np.bincount(distances(last), minlength=pages), len(last))


def _of_hits(counts: Ints, uses: int) -> MissRatioCurve:
    """Return the exact curve of the uses by their distance, shape (pages,)."""
    misses = uses - np.concatenate(([0], np.cumsum(counts)))
    pages = len(counts)
    return MissRatioCurve(np.arange(pages + 1), misses / max(uses, 1), uses, pages, "exact")


AT_ONCE = 1 << 22  # entries whose distances numpy computes in less time than the compiler's import
METHODS = ("exact", "shards", "aet")


@overload
def of_trace(trace: Trace | PathLike, method: str = "exact", **options: Any) -> MissRatioCurve: ...
@overload
def of_trace(
    trace: Mapping[str, Trace | PathLike], method: str = "exact", **options: Any
) -> dict[str, MissRatioCurve]: ...
def of_trace(
    trace: Trace | PathLike | Mapping[str, Trace | PathLike],
    method: str = "exact",
    **options: Any,
) -> MissRatioCurve | dict[str, MissRatioCurve]:
    """Return the miss-ratio curve of a trace.

    Parameters
    ----------
    trace : Trace or path-like, or dict of str to these
        One recording, or several by their labels: then the result is a curve for each label.
    method : {"exact", "shards", "aet"}
    start, end, phase, between, kinds, region, page_tables
        The part of the trace: see `pmlkit.selection`. An access trace counts a page once per round.
    **options
        Options of the method: `rate`, `max_pages`, `groups`... of `shards`.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import missratio
    >>> curve = missratio.of_trace(pmlkit.open(pmlkit.bundled("hotcold")))
    >>> curve.method, curve.uses > curve.pages
    ('exact', True)
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    if isinstance(trace, Mapping):
        return {label: of_trace(one, method, **options) for label, one in labelled(trace).items()}
    names = list(Selection.__annotations__)
    chosen = {name: options.pop(name) for name in names if name in options}
    _check_options(method, options, names)
    source = stream(opened(trace), **chosen)
    if method == "shards":
        return shards(source, **options)
    if method == "exact" and _is_faster_at_once(source):
        return _exact_at_once(source)
    uses = ((ids, pages) for _, ids, pages in source.numbered())
    return _exact(uses) if method == "exact" else aet_of(uses)


def _check_options(method: str, options: Iterable[str], names: Sequence[str]) -> None:
    """Refuse options that a method does not have; `names`: those of all methods."""
    if "window" in options:
        raise UsageError("a miss-ratio curve has no window: take `pmlkit.missratio.over_time`")
    own = list(inspect.signature(shards).parameters)[1:] if method == "shards" else []
    for name in options:
        if name not in own:
            raise UnknownName(f"option of the method {method}", name, [*names, *own])


def over_time(
    trace: Trace,
    window: str | int | Window | None = None,
    sizes: Sequence[int] | Ints | None = None,
    **selection: Unpack[Selection],
) -> pd.DataFrame:
    """Return the miss ratio of each time window at several sizes.

    The caches are not emptied between windows: pages used in one are there in the next.

    Parameters
    ----------
    window : str, int or Window, optional
        The default is one second, or the nearest T that the part of the trace supports.
    sizes : sequence of int, optional
        In pages; the default sizes grow by a fifth, up to all pages of the trace.
    **selection
        `kinds`, `start`, `end`, `phase`, `between`, `region`, `page_tables`: see
        `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``t_ns`` (the window's end), ``pages`` and ``bytes`` (the size), ``uses`` in the window, and
        ``miss_ratio`` (NaN without uses). ``asked_ns``, ``effective_ns`` and ``full`` are as in
        `pmlkit.workingset.estimate`.
    """
    import pandas as pd

    source = stream(trace, **selection)
    window = default_window(source.timeline) if window is None else window
    windows = source.timeline.windows(window)
    default = sizes is None
    sizes = _default_sizes(trace) if sizes is None else np.unique(np.asarray(sizes, np.int64))
    if len(windows) * len(sizes) > MOST:
        what = f"{len(windows):,} windows of {len(sizes):,} sizes are more than a table can hold"
        raise UsageError(
            f"{what}: give a longer {argument('window')}, or a {argument('start')} and "
            f"{argument('end')}"
        )
    hits, uses, pages = _by_window(source, windows, sizes)
    if default:
        keep = slice(None, np.searchsorted(sizes, pages) + 1)
        sizes, hits = sizes[keep], hits[:, keep]
    with np.errstate(invalid="ignore"):
        ratios = 1 - hits / uses[:, None]
    return pd.DataFrame(
        {
            "t_ns": np.repeat(windows.t_ns, len(sizes)),
            "pages": np.tile(sizes, len(uses)),
            "bytes": np.tile(sizes, len(uses)) * trace.meta.domain["page_size"],
            "uses": np.repeat(uses, len(sizes)),
            "miss_ratio": ratios.reshape(-1),
            "asked_ns": windows.asked_ns,
            "effective_ns": np.repeat(windows.effective_ns, len(sizes)),
            "full": np.repeat(windows.full, len(sizes)),
        }
    )


def _default_sizes(trace: Trace) -> Ints:
    """Return sizes that grow by a fifth, up to all of the domain's memory."""
    last = max(trace.memory_pages, 1)
    return np.unique(np.rint(np.geomspace(1, last, 4 * last.bit_length()))).astype(np.int64)


def _by_window(source: Stream, windows: Windows, sizes: Ints) -> tuple[Ints, Ints, int]:
    """Count the hits of each window at each size, and its uses; and all pages."""
    stack, bins, pages = LruStack(), len(sizes) + 2, 0
    counts = np.zeros((len(windows), bins), np.int64)
    for rounds, ids, known in source.numbered():
        pages = known
        # A cache hits the uses with distances below its size: the bins up to its own. First uses,
        # whose distance is -1, go into the last bin, which no size hits.
        distances = stack.use(ids, pages)
        beyond = np.searchsorted(sizes, distances, "right")
        beyond[distances < 0] = bins - 1
        if len(rounds):
            first, last = int(windows.enter[rounds[0]]), int(windows.enter[rounds[-1]])
            flat = (windows.enter[rounds].astype(np.int64) - first) * bins + beyond
            in_batch = np.bincount(flat, minlength=(last + 1 - first) * bins).reshape(-1, bins)
            counts[first : last + 1] += in_batch
    return np.cumsum(counts[:, : len(sizes)], axis=1), counts.sum(axis=1), pages
