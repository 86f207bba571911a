# SPDX-License-Identifier: Apache-2.0
"""The base class of techniques: a description, parameters, and one method that observes a VM.

A technique is a frozen dataclass whose fields are its parameters:

    @dataclass(frozen=True)
    class Mine(Technique):
        "What it does, its citation, and where this differs from it."
        name = "mine"
        title = "My technique"
        source = "Author, Venue'26"
        needs = frozenset({Need.ACCESSED})
        looks: int = 1  # as published

        def observe(self, view):
            period, looks = view.parts(self.looks)
            recent = Recent(looks)
            for _ in view.every(period):
                pages = recent.add(view.accessed.scan())
                if recent.full:
                    view.report(pages)

The view has only the channels that the technique `needs`. It moves forward in time only, and counts
the cost of each look.

Two fields have the same names in all techniques. They are the knobs that `pmlkit.frontier` varies:

looks
    Looks per window T, an int. With it, nothing is scaled: the interval is T / looks.
watched
    Number of watched frames or regions, an int; at most all of the memory. A technique that watches
    all memory has no such field.

A technique without parameters is the published one. If the source gives a time for its interval, or
another rule for the number of frames, the default is None: *as published*. A time that was
published goes through `view.published`, which may scale it. A technique without both fields, such
as a control loop, is one point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

from pmlkit.techniques.recorded import Need
from pmlkit.units import check_count

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.techniques.view import View
    from pmlkit.types import Json


__all__ = ["KNOBS", "Need", "Technique"]

KNOBS = ("looks", "watched")


@dataclass(frozen=True)
class Technique(ABC):
    """Base of all techniques.

    Attributes
    ----------
    name, title, source : str
        For the command line; for tables; the publication.
    needs : frozenset of Need
    intrusive : bool
        Whether the guest must be changed.
    active : bool
        Whether it changes the guest's memory to measure.
    random : bool
        Whether it draws random numbers: it then runs with several seeds.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    intrusive: ClassVar[bool] = False
    active: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for knob in self.knobs():
            if getattr(self, knob) is not None:
                check_count(knob, getattr(self, knob), "looks" if knob == "looks" else "frames")

    @abstractmethod
    def observe(self, view: View) -> None:
        """Watch the VM until the recording ends; give each estimate to `view.report`."""

    @classmethod
    def parameters(cls) -> Json:
        """Return the names of the parameters and their defaults."""
        return {field.name: field.default for field in fields(cls)}

    @classmethod
    def knobs(cls) -> tuple[str, ...]:
        """Return those of `KNOBS` that this technique has; none if it cannot be swept."""
        return tuple(knob for knob in KNOBS if knob in cls.parameters())

    def turned(self, looks: int, watched: int) -> Self:
        """Return the same technique with other values of its knobs."""
        values = {"looks": looks, "watched": watched}
        return replace(self, **{knob: values[knob] for knob in self.knobs()})
