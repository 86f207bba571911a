# SPDX-License-Identifier: Apache-2.0
"""The memory that keeps the miss ratio at targets: of a whole recording, and of each window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.answers.wss import window_text
from pmlkit.recordings import name_of
from pmlkit.selection import usage_verb
from pmlkit.trace.summary import source_text
from pmlkit.units import exact_ns, format_bytes, format_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Self, Unpack

    import pandas as pd

    from pmlkit.missratio.curve import MissRatioCurve
    from pmlkit.selection import Selection
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json
    from pmlkit.units import Window

__all__ = ["MissRatio", "MissRatios", "miss_ratio", "miss_ratios"]


@dataclass(frozen=True)
class _Answer:
    """What an answer on miss ratios is about.

    Attributes
    ----------
    name, source, verb : str
        As in `WorkingSet`.
    round_ns : int or None
        The length of a usual round: a page counts once in each.
    """

    name: str
    source: str
    verb: str
    round_ns: int | None

    @classmethod
    def on(cls, trace: Trace, selection: Selection, **numbers: Any) -> Self:
        """Return the answer on a part of a trace: what is found, and what it is about."""
        return cls(
            name=name_of(trace.path),
            source=source_text(trace),
            verb=usage_verb(trace, **selection),
            round_ns=trace.meta.resolution_ns,
            **numbers,
        )

    @property
    def origin(self) -> str:
        """What a use is, and the kind of the source."""
        period = "a round" if self.round_ns is None else f"a round of {exact_ns(self.round_ns)}"
        uses = f"Each page that the VM {self.verb} in {period} is one use"
        return f"{uses}; first uses are misses. Source: {self.source}."


@dataclass(frozen=True)
class MissRatio(_Answer):
    """The memory that keeps the miss ratio at targets, by one method.

    Attributes
    ----------
    name, source, verb, round_ns
        What the answer is about.
    curve : MissRatioCurve
    sizes : dict of float to int or None
        Bytes by target; None if no size meets it.
    knee_bytes : int
        The size beyond which more memory gains little.
    page_size : int
        Bytes.
    """

    curve: MissRatioCurve
    sizes: dict[float, int | None]
    knee_bytes: int
    page_size: int = 4096

    def __str__(self) -> str:
        return "\n".join([*self.lines, self.origin])

    @property
    def answer(self) -> str:
        """The answer in a sentence or two."""
        met = {target: size for target, size in self.sizes.items() if size is not None}
        never = [f"{target:g}" for target in self.sizes if target not in met]
        needs = [f"{format_bytes(size)} for a miss ratio of {t:g}" for t, size in met.items()]
        text = f"{self.name} needs {' and '.join(needs)} (LRU, {self.curve.method})." * bool(needs)
        if not never:
            return text
        return (
            f"{text} No size has a miss ratio of {' or '.join(never)}: first uses alone are "
            f"{format_share(self.curve.cold)} of all."
        ).strip()

    @property
    def lines(self) -> list[str]:
        """The answer, how sure it is, and the knee: a line each."""
        lines = [self.answer, self._sure]
        return [
            *lines,
            f"Beyond {format_bytes(self.knee_bytes)} (the knee), more memory gains little.",
        ]

    @property
    def _sure(self) -> str:
        curve = self.curve
        if curve.method == "exact":
            return f"Exact for this recording: {curve.uses:,} uses of {curve.pages:,} pages."
        if curve.low is None:
            return "A model of the LRU stack (AET), without an interval."
        if curve.sampled_pages == curve.pages:
            return f"The sample has all {curve.pages:,} pages, so sampling adds no error."
        ends = [
            f"{low:.3g} to {high:.3g} at {format_bytes(size)}" for size, low, high in self._bands
        ]
        sampled = f"{curve.sampled_pages or 0:,} of about {curve.pages:,} pages"
        return f"From a sample of {sampled}; the miss ratio is within {', '.join(ends)} (95 %)."

    @property
    def _bands(self) -> Iterator[tuple[int, float, float]]:
        for size in self.sizes.values():
            band = None if size is None else self.curve.band(np.array([size // self.page_size]))
            if size is not None and band is not None:
                yield size, float(band[0][0]), float(band[1][0])

    def as_dict(self) -> Json:
        """Return the answer for JSON; sizes in bytes, None where no size meets the target."""
        return {
            "answer": self.answer,
            "trace": self.name,
            "source": self.source,
            "method": self.curve.method,
            "bytes_for": {f"{target:g}": size for target, size in self.sizes.items()},
            "knee_bytes": self.knee_bytes,
            "first_uses": self.curve.cold,
        }


def miss_ratio(
    trace: Trace,
    curve: MissRatioCurve,
    targets: Sequence[float] = (0.1, 0.01),
    **selection: Unpack[Selection],
) -> MissRatio:
    """Answer how much memory a trace needs for target miss ratios.

    Parameters
    ----------
    trace : Trace
    curve : MissRatioCurve
        Of `pmlkit.missratio.of_trace`, with the same `selection`.
    targets : sequence of float
        Miss ratios, 0 to 1.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import answers
    >>> trace = pmlkit.open("hotcold")
    >>> answers.miss_ratio(trace, pmlkit.mrc(trace), [1.0]).answer
    'hotcold needs 0 B for a miss ratio of 1 (LRU, exact).'
    """
    page = trace.meta.domain["page_size"]
    pages = {target: curve.pages_for(target) for target in targets}
    return MissRatio.on(
        trace,
        selection,
        curve=curve,
        sizes={target: None if n is None else n * page for target, n in pages.items()},
        knee_bytes=curve.knee() * page,
        page_size=page,
    )


# ------------------------------------------------------------------------------
# Of each window


@dataclass(frozen=True)
class MissRatios(_Answer):
    """The memory that keeps the miss ratio of each window at targets, over the full windows.

    Attributes
    ----------
    name, source, verb, round_ns
        What the answer is about.
    window : str
        T in words.
    windows, partial : int
        Full windows with uses, and those that are cut short.
    sizes : dict of float to int or None
        By target, bytes: the most that a window needs; None if no window meets the target.
    met : dict of float to int
        By target, the number of windows that some size is enough for.
    most_ns : dict of float to int
        By target, the end of the window that needs most; -1 if there is none.
    """

    window: str
    windows: int
    partial: int
    sizes: dict[float, int | None]
    met: dict[float, int]
    most_ns: dict[float, int]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def answer(self) -> str:
        """The answer in a sentence or two."""
        if not self.windows:
            return f"{self.name} has no full window of T = {self.window} with uses."
        needs = [
            f"{format_bytes(size)} for a miss ratio of {target:g} ({self._which(target)})"
            for target, size in self.sizes.items()
            if size is not None
        ]
        inside = f"in windows of T = {self.window}"
        text = f"{self.name} needs at most {' and '.join(needs)}, {inside}." * bool(needs)
        never = [f"{target:g}" for target, size in self.sizes.items() if size is None]
        if not never:
            return text
        return (
            f"{text} No window {'' if text else f'of T = {self.window} '}has a miss ratio of "
            f"{' or '.join(never)} with any size: first uses alone are more."
        ).strip()

    def _which(self, target: float) -> str:
        met = self.met[target]
        return "in each" if met == self.windows else f"in {met:,} of {self.windows:,}"

    @property
    def lines(self) -> list[str]:
        """The answer, which window needs most, and what a use is: a line each."""
        lines = [self.answer]
        if most := {target: at for target, at in self.most_ns.items() if at >= 0}:
            ends = " and ".join(f"at {at / 1e9:.3f} s ({target:g})" for target, at in most.items())
            short = f" (without {self.partial:,} cut short)" if self.partial else ""
            lines.append(f"The window that needs most ends {ends}{short}.")
        return [*lines, self.origin]

    def as_dict(self) -> Json:
        """Return the answer for JSON; sizes in bytes, None where no size meets the target."""
        return {
            "answer": self.answer,
            "trace": self.name,
            "source": self.source,
            "windows": self.windows,
            "partial_windows": self.partial,
            "bytes_for": {f"{target:g}": size for target, size in self.sizes.items()},
            "windows_met": {f"{target:g}": met for target, met in self.met.items()},
            "most_t_ns": {f"{target:g}": at for target, at in self.most_ns.items()},
        }


def miss_ratios(
    trace: Trace,
    table: pd.DataFrame,
    targets: Sequence[float] = (0.1, 0.01),
    window: str | int | Window | None = None,
    **selection: Unpack[Selection],
) -> MissRatios:
    """Answer how much memory each window of a trace needs for target miss ratios.

    Parameters
    ----------
    trace : Trace
    table : DataFrame
        Of `pmlkit.missratio.over_time`, with the same `window` and `selection`. Its sizes are
        steps, so a window may need a little less.
    targets : sequence of float
        Miss ratios, 0 to 1.
    window : str, int or Window, optional

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import answers
    >>> trace = pmlkit.open("hotcold")
    >>> table = pmlkit.missratio.over_time(trace, "1s")
    >>> print(answers.miss_ratios(trace, table, [0.5]).answer)  # doctest: +ELLIPSIS
    hotcold needs at most ... for a miss ratio of 0.5 (in each), in windows of T = 1 s.
    """
    ends = table.drop_duplicates("t_ns")
    used = table[table["full"] & (table["uses"] > 0)]
    needed = {
        target: used[used["miss_ratio"] <= target].groupby("t_ns")["bytes"].min()
        for target in targets
    }
    most = {
        target: int(size.index.to_numpy()[size.argmax()]) if len(size) else -1
        for target, size in needed.items()
    }
    return MissRatios.on(
        trace,
        selection,
        window=window_text(window, table["asked_ns"].to_numpy()),
        windows=used["t_ns"].nunique(),
        partial=int((~ends["full"]).sum()),
        sizes={target: int(size.max()) if len(size) else None for target, size in needed.items()},
        met={target: len(size) for target, size in needed.items()},
        most_ns=most,
    )
