# SPDX-License-Identifier: Apache-2.0
"""How a domain of a Xen host is collected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pmlkit.xen.job import Job, LogOptions

if TYPE_CHECKING:
    from pmlkit.types import Json

__all__ = ["CollectOptions"]


@dataclass(frozen=True)
class CollectOptions(LogOptions):
    """How to collect: `pmlkit.xen.job.LogOptions`, and where dom0 keeps its marks.

    Attributes
    ----------
    state : str
        Folder in dom0 for the marks of running collections.
    """

    state: str = "/run/pmlkit"

    def job(self, domain: str) -> Json:
        """Return the agent's job, as JSON can hold it."""
        return asdict(Job(**asdict(self), domain=str(domain)))
