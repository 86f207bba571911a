# SPDX-License-Identifier: Apache-2.0
"""What to compare: the window, the techniques, the clock of their sources, the part scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit import techniques
from pmlkit.errors import UsageError
from pmlkit.streams import time_ns
from pmlkit.units import format_ns, parse_duration_ns

if TYPE_CHECKING:
    from typing import Any


__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes
    ----------
    window : str
        T of the yardstick, which the techniques are asked for.
    techniques : tuple of str
        Names; empty: all.
    scale : "auto" or float
        `pmlkit.techniques.runs.time_scale`.
    seeds : int
        Runs of a technique that draws random numbers.
    start, end : str, int or None
        Score the part between these times only, ``"2s"`` or nanoseconds. Techniques watch from the
        recording's start all the same, as they would have.
    """

    window: str = "1s"
    techniques: tuple[Any, ...] = ()
    scale: str | float = "auto"
    seeds: int = 5
    start: str | int | None = None
    end: str | int | None = None

    def __post_init__(self) -> None:
        parse_duration_ns(self.window)
        time_ns(self.start), time_ns(self.end)
        for name in self.techniques:
            techniques.make(name)
        if not isinstance(self.seeds, int) or self.seeds < 1:
            raise UsageError(f"seeds is {self.seeds!r}: give a whole number, 1 or more")

    @property
    def names(self) -> tuple[str, ...]:
        return self.techniques or tuple(techniques.TECHNIQUES)

    @property
    def span(self) -> tuple[int | None, int | None]:
        """`start` and `end` in nanoseconds."""
        return time_ns(self.start), time_ns(self.end)

    @property
    def is_part(self) -> bool:
        """Whether less than the whole may be scored."""
        return self.span != (None, None)

    @property
    def part_said(self) -> str:
        """What a caption says of the part, if it is one."""
        if not self.is_part:
            return ""
        start, end = self.span
        until = "the end" if end is None else format_ns(end)
        since = f"windows from {format_ns(start or 0)} to {until}"
        return f"; {since}, watched from the recording's start"


def plan(
    window: str = "1s",
    techniques: Any = "all",
    scale: str | float = "auto",
    seeds: int = 5,
    start: str | int | None = None,
    end: str | int | None = None,
) -> Plan:
    """Make a plan of what people write.

    Parameters
    ----------
    window : str
    techniques : str or sequence of str
        ``"all"``, or names; a text has commas between them.
    scale : "auto" or float
    seeds : int
    start, end : str, int or None

    Returns
    -------
    Plan
    """
    if isinstance(techniques, str):
        techniques = [] if techniques == "all" else [n.strip() for n in techniques.split(",")]
    try:
        scale = scale if scale == "auto" else float(scale)
    except ValueError:
        raise UsageError(f"the time scale {scale!r} is neither auto nor a number") from None
    if scale != "auto" and not 0 < scale < float("inf"):  # type: ignore[operator]
        raise UsageError(f"the time scale is {scale:g}: give a number above 0")
    return Plan(window, tuple(techniques), scale, seeds, start, end)
