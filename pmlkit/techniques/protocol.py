# SPDX-License-Identifier: Apache-2.0
"""The base class of techniques: a description, parameters, and one method that observes a VM.

A technique is a frozen dataclass, its parameters are its fields:

    @dataclass(frozen=True)
    class Mine(Technique):
        "What it does, its citation, and where this differs from it."
        name = "mine"
        title = "My technique"
        source = "Author, Venue'26"
        needs = frozenset({Need.ACCESSED})
        every: str = "1s"  # as published

        def observe(self, view):
            for _ in view.every(view.published(self.every)):
                accessed = view.accessed.harvest()
                view.report(np.count_nonzero(accessed))

The view has the channels that the technique `needs` and no other, moves forward in time only, and
counts what each look costs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Json


__all__ = ["Need", "Technique"]


@dataclass(frozen=True)
class Technique:
    """Base of all techniques.

    Attributes
    ----------
    name, title, source : str
        For the command line; for tables; where it was published.
    needs : frozenset of Need
    intrusive : bool
        Whether the guest has to be changed.
    active : bool
        Whether it changes the guest's memory to find out.
    random : bool
        Whether it draws random numbers: then it is run with several seeds.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    intrusive: ClassVar[bool] = False
    active: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def observe(self, view: View) -> None:
        """Watch the VM until the recording ends; give each estimate to `view.report`."""
        raise NotImplementedError

    @classmethod
    def parameters(cls) -> Json:
        """Return the names of the parameters and their defaults."""
        return {field.name: field.default for field in fields(cls)}
