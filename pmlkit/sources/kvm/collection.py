# SPDX-License-Identifier: Apache-2.0
"""Options of `pmlkit.sources.host.collection.Collection` for a VM on a KVM host.

>>> from pmlkit.sources.host.collection import Collection
>>> with Collection("web1", "web1.trace", KvmCollectOptions(rounds=60)) as run:  # doctest: +SKIP
...     for seen in run:
...         print(seen.round, seen.pages, seen.lost)

This module is separate because both collections share everything else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from pmlkit.kvm.job import Job, KvmOptions
from pmlkit.sources.kvm.watch import KvmWatcher

if TYPE_CHECKING:
    from pmlkit.types import Json


__all__ = ["KvmCollectOptions"]


@dataclass(frozen=True)
class KvmCollectOptions(KvmOptions):
    """Options of a collection: `pmlkit.kvm.job.KvmOptions`."""

    source: ClassVar[str] = "kvm"

    def job(self, vm: str) -> Json:
        """Return the agent's job as JSON values."""
        return asdict(Job(**asdict(self), vm=vm))

    def watcher(self, header: Json) -> KvmWatcher:
        """Return the object that converts the agent's frames to rounds."""
        return KvmWatcher(header)
