# SPDX-License-Identifier: Apache-2.0
"""The answer of `advise`: how big a VM must be, and how to measure it, in words and as a card."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.techniques.recorded import Need
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import exact_ns, format_bytes, format_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.law.predict import Prediction
    from pmlkit.law.size import Size
    from pmlkit.types import Json

__all__ = ["Advice", "Checked", "rough", "shown"]

GROWS = 0.1  # share by which W may grow if the recommended T doubles
LISTED = 8  # rows of the front at most
FEW_ROUNDS = 4  # rounds in a T that is chosen here; changes within a round are invisible
_TAKES = {
    Need.PML: "a hypervisor that logs writes (PML)",
    Need.DIRTY: "write protection (log-dirty)",
    Need.TABLES: "PML that logs page tables, with this project's patches",
    Need.ACCESSED: "accessed flags in the hypervisor's page tables",
    Need.TRAPS: "access faults on chosen frames",
    Need.CONTENT: "reading the guest's memory",
    Need.AGING: "the host's MGLRU, from Linux 6.12 on",
    Need.SOFT_DIRTY: "soft-dirty bits of the VMM's memory",
}


@dataclass(frozen=True)
class Checked:
    """The result of running the technique.

    Attributes
    ----------
    error, low, high : float
        The mean absolute error as a share of mean W; the smallest and the largest over the draws.
    overhead : float
    runs : int
        One for each draw.
    """

    error: float
    low: float
    high: float
    overhead: float
    runs: int


@dataclass(frozen=True, repr=False)
class Advice:
    """How to measure a VM, and how much memory it needs.

    Attributes
    ----------
    name : str
        The recording's.
    part : str
        Which part of it, in words; empty: all.
    source : str
        What the recording is (`pmlkit.trace.summary.source_text`).
    window_ns : int
        T.
    chosen : bool
        Whether T was chosen here: `steady_window`, or longer if the budget requires it.
    round_ns : int
        The recording's resolution.
    growth : float
        Share by which mean W grows if T doubles.
    budget : float
        Share of the VM's time.
    memory_pages : int or None
    machine : str
        The clock of the times.
    reads : bool
        Whether the recording contains reads: a PML log does not.
    size : Size
        All that is used; for a PML log, all that is written.
    choice : Prediction or None
        None if no technique can be recommended; `obstacle` is the reason.
    obstacle : str
        Why there is no choice, in a sentence or two; empty if there is one.
    front : DataFrame
        The predictions that no other one beats in both error and cost, sorted by cost:
        ``technique``, ``looks``, ``watched`` (-1: all), ``error``, ``overhead``.
    less, more : Prediction or None
        The best prediction at half the cost of the choice; the cheapest with an error lower by a
        fifth.
    checked : Checked or None
    left_out : tuple of str
        The techniques that are omitted, and the reasons.
    """

    name: str
    part: str
    source: str
    window_ns: int
    chosen: bool
    round_ns: int
    growth: float
    budget: float
    memory_pages: int | None
    machine: str
    reads: bool
    size: Size
    choice: Prediction | None
    obstacle: str
    front: pd.DataFrame
    less: Prediction | None
    more: Prediction | None
    checked: Checked | None
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([self.answer, *self.about_size, *self.lines])

    @property
    def answer(self) -> str:
        """How big the VM must be, in a sentence."""
        size, does = self.size, "uses" if self.reads else "writes"
        hold = (
            f"{_bytes(size.needed)} to hold what it {does} in T = {exact_ns(self.window_ns)} for "
            f"{format_share(size.cover, digits=4)} of the time{self.part and f' {self.part}'}"
        )
        if size.vm_bytes is None:
            return f"{self.name} needs {hold}."
        rest = format_bytes(size.vm_bytes - int(size.needed * PAGE_SIZE))
        return (
            f"{self.name} needs a VM of {format_bytes(size.vm_bytes)}: {hold}, and {rest} for its "
            "kernel, files in memory, and free pages."
        )

    @property
    def about_size(self) -> list[str]:
        """The certainty, the whole VM, W, the source, what would change the size: lines."""
        size = self.size
        over = (
            f"Over windows that end with each round, the mean of W is {_bytes(size.mean)}, the "
            f"peak {_bytes(size.peak)}."
        )
        whole = [size.whole] if size.whole else []
        lines = [size.sure, *whole, over, f"Source: {self.source}."]
        if not self.reads:
            lines.append(
                "Not known: pages that are only read, so the VM needs more. Use a recording of all "
                "accesses (`pmlkit record`), or see `pmlkit reads`."
            )
        return [*lines, "What would change it:", *(f"- {line}" for line in self.size.changes)]

    @property
    def measure(self) -> str:
        """How to measure it within the budget, in a sentence."""
        if self.choice is None:
            return f"How to measure it is not known: {self.obstacle}"
        return (
            f"To measure it: {self._describe(self.choice)}, with about "
            f"{rough(self.choice.error)} "
            f"error at {rough(self.choice.overhead)} of the VM's time (limit "
            f"{rough(self.budget)})."
        )

    @property
    def lines(self) -> list[str]:
        """How to measure it: the technique, its errors, alternatives; a sentence or two each."""
        if self.choice is None:
            return [self.measure, self._about]
        found = [self._error_line(self.choice), self._check_line, *self._others]
        return [self.measure, *found, self._cover_line(self.choice), self._about]

    def _error_line(self, choice: Prediction) -> str:
        parts = f"staleness {rough(choice.staleness)}, sampling {rough(choice.sampling)}"
        missed = rough(choice.blindness.missed) if self.reads else "not known"
        takes = " and ".join(_TAKES[n] for n in sorted(choice.technique.needs, key=_by_name))
        return (
            f"Predicted: {rough(choice.error)} (for 95 % of the draws and times of looking, "
            f"{rough(choice.low)} to {rough(choice.high)}). Its parts are {parts}, and missed "
            f"pages {missed}. It needs {takes}."
        )

    @property
    def _check_line(self) -> str:
        checked = self.checked
        if checked is None:
            return "Not checked by running it."
        draws = ""
        if checked.runs > 1:
            span = f"{rough(checked.low)} to {rough(checked.high)}"
            draws = f" ({checked.runs} draws: {span})"
        return (
            f"Checked by running it: {rough(checked.error)} error{draws} at "
            f"{rough(checked.overhead)} of the VM's time."
        )

    @property
    def _others(self) -> Iterator[str]:
        named = (("With less", self.less), ("With more", self.more))
        for words, other in named:
            if other is not None:
                yield (
                    f"{words}, {rough(other.overhead)}: {self._describe(other)}, "
                    f"{rough(other.error)} error."
                )

    def _cover_line(self, choice: Prediction) -> str:
        if not np.isfinite(choice.cover) or choice.cover >= 100:
            return "The estimate of this technique does not help to choose the size."
        more = f"times {choice.cover:.2f}" if choice.cover > 1 else "as it is"
        return f"Its estimate {more} covers W for 95 % of the time."

    @property
    def _about(self) -> str:
        why = f" ({'chosen here' if self.chosen else 'as asked'})"
        outside = f" Left out: {'; '.join(self.left_out)}." if self.left_out else ""
        rounds = ""
        if self.window_ns < FEW_ROUNDS * self.round_ns:
            long = exact_ns(self.round_ns)
            rounds = f" Rounds of {long} are long for this T: changes within a round are not seen."
        unsteady = ""
        if self.chosen and self.growth > GROWS:
            unsteady = f", more than the target of {rough(GROWS)}. State T with the size"
        return (
            f"T = {exact_ns(self.window_ns)}{why}: if it doubles, W grows by "
            f"{rough(self.growth)}{unsteady}. Clock of T: {self.machine}.{rounds}{outside}"
        )

    def _describe(self, prediction: Prediction) -> str:
        looks, watched = prediction.looks, prediction.parts.watched
        often = "one look" if looks == 1 else f"{looks} looks"
        frames = ""
        if watched is not None and self.memory_pages:
            frames = f", {watched:,} of {self.memory_pages:,} pages"
        return f"{prediction.technique.title} ({prediction.technique.name}), {often} per T{frames}"

    @property
    def summary(self) -> Json:
        """The size for JSON; sizes in bytes."""
        size = self.size
        sizes = {n: getattr(size, n) * PAGE_SIZE for n in ("needed", "mean", "p95", "p99", "peak")}
        return {
            "answer": self.answer,
            "part": self.part,
            "source": self.source,
            "window_ns": self.window_ns,
            "cover": size.cover,
            **{f"{name}_bytes": value for name, value in sizes.items()},
            "windows": size.windows,
            "independent_windows": size.independent,
            "sure": size.sure,
            "changes": list(size.changes),
            "driving_phase": size.driver,
            "allocated_bytes": size.allocated_bytes,
            "reserve_bytes": size.reserve_bytes,
            "vm_bytes": size.vm_bytes,
            "vm_peak_bytes": size.peak_bytes,
            "vm_swapping": size.swapping and size.swapping.as_dict(),
        }

    def as_dict(self) -> Json:
        """Return the advice for JSON."""
        of = {"less": self.less, "more": self.more, "choice": self.choice}
        return {
            "answer": self.answer,
            "trace": self.name,
            "window_ns": self.window_ns,
            "window_chosen": self.chosen,
            "growth": self.growth,
            "budget": self.budget,
            "memory_pages": self.memory_pages,
            "reads_known": self.reads,
            "size_pages": self.size.as_dict(),
            "summary": self.summary,
            **{name: one and _as_dict(one) for name, one in of.items()},
            "obstacle": self.obstacle,
            "checked": self.checked and vars(self.checked),
            "front": self.front.to_dict("records"),
            "left_out": list(self.left_out),
        }

    def _repr_html_(self) -> str:
        """Return a card, which notebooks show; it takes its colours from the page."""
        size = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in self.size.changes)
        notes = "".join(f"<p>{escape(line)}</p>" for line in self.about_size if line[:2] != "- ")
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.lines[1:])
        table = "" if self.front.empty else shown(self).to_html(index=False, border=0)
        return (
            f'<div style="{_CARD}"><p><b>{escape(self.answer)}</b></p>{notes}<ul>{size}</ul>'
            f"<details><summary>{escape(self.measure)}</summary><ul>{lines}</ul>{table}</details>"
            "</div>"
        )


_CARD = (
    "border:1px solid #8886;border-radius:6px;padding:.4em 1em .8em;max-width:46em;overflow-x:auto"
)


def shown(advice: Advice) -> pd.DataFrame:
    """Return the front for display: at most `LISTED` rows, including the choice."""
    table = advice.front
    some = np.linspace(0, len(table) - 1, min(LISTED, len(table))).astype(int)
    at = int((table["overhead"] <= advice.budget).sum()) - 1
    table = table.iloc[sorted({*some.tolist(), at})]
    rows = {
        "": ["*" if place == at else "" for place in table.index],
        "technique": table["technique"],
        "looks per T": table["looks"],
        "pages watched": ["all" if n < 0 else f"{n:,}" for n in table["watched"]],
        "predicted error": table["error"].map(rough),
        "of the VM's time": table["overhead"].map(rough),
    }
    return pd.DataFrame(rows)


def _as_dict(one: Prediction) -> Json:
    numbers = {"error": one.error, "low": one.low, "high": one.high, "cover": one.cover}
    numbers |= {"staleness": one.staleness, "sampling": one.sampling, "overhead": one.overhead}
    blind = {"missed": one.blindness.missed, "extra": one.blindness.extra}
    knobs = {"looks": one.looks, "watched": one.parts.watched, "period_ns": one.period_ns}
    prediction_dict = {"technique": one.technique.name, **knobs, **numbers, **blind}
    return {name: None if value != value else value for name, value in prediction_dict.items()}


def _by_name(need: Need) -> str:
    return need.value


def _bytes(pages: float) -> str:
    return format_bytes(round(pages) * PAGE_SIZE)


def rough(share: float) -> str:
    """Format a share with two digits: a prediction has no more."""
    return format_share(share, digits=2)
