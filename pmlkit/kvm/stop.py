# SPDX-License-Identifier: Apache-2.0
"""The end of a collection: signals, the VM's end, orders of its starter, the time limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pmlkit.kvm import find
from pmlkit.starter import Ending

if TYPE_CHECKING:
    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.host import Host


_LOOK_S = 0.25  # interval of checks whether the VMM exists


class Stop(Ending):
    """The reason why a collection of a VM should end. A context manager.

    Parameters
    ----------
    vm : Vm
        Watched until its end.
    orders, silence_s
        As in `Ending`.
    seconds : float
        End it after this time; 0: no limit.

    Attributes
    ----------
    kind : {None, "asked", "vm", "lost", "time", "failed"}
        By an order or a signal; by the VM's end; because the starter has died; by the time limit;
        because logging could not continue.
    """

    def __init__(
        self,
        host: Host,
        vm: Vm,
        orders: int | None = None,
        silence_s: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(orders, silence_s)
        self.host, self.vm, self._seconds = host, vm, seconds
        self._began = self._looked = time.monotonic()

    def __bool__(self) -> bool:
        """Whether it should end; looks at the VMM at most every `_LOOK_S`."""
        self._listen(0)
        now = time.monotonic()
        if self._seconds and now - self._began >= self._seconds:
            self.end("time", f"{self._seconds:g} s are over")
        if self.why is None and now - self._looked > _LOOK_S:
            self._looked = now
            if not find.alive(self.host, self.vm):
                self.end("vm", "the VM has ended")
        return self.why is not None
