# SPDX-License-Identifier: Apache-2.0
"""The end of a collection: signals, the domain's end, orders of its starter."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from pmlkit.starter import Ending
from pmlkit.xen import domains
from pmlkit.xen.binding import MissingLibrary, XenError
from pmlkit.xen.xenctrl import Control, save_helper_of

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.xen.domains import Domain


_LOOK_S = 0.25  # interval of checks of the domain's state


class Stop(Ending):
    """The reason why a collection of a domain should end. A context manager.

    Parameters
    ----------
    domain : Domain
        Watched until its end.
    orders, silence_s
        As in `Ending`.

    Attributes
    ----------
    kind : {None, "asked", "domain", "lost"}
        By an order or a signal; by the domain's end; because the starter has died.
    alive : bool
        Whether the domain can still be asked to close a round.
    shared : bool
        Set it to look for a migration that could take over log-dirty mode.
    migrating : bool
        Whether a migration has begun.
    """

    def __init__(self, domain: Domain, orders: int | None = None, silence_s: float = 0.0) -> None:
        super().__init__(orders, silence_s)
        self.domain = domain
        self.alive = True
        self.shared = self.migrating = False
        self._looked = time.monotonic()
        self._control: Control | None = None
        self._store: domains.Xenstore | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        # Without these, the domain's end is noticed when a call fails.
        with contextlib.suppress(MissingLibrary, XenError):
            self._control = self._exits.enter_context(Control())
        with contextlib.suppress(MissingLibrary, XenError):
            self._store = self._exits.enter_context(domains.Xenstore())
        return self

    def __bool__(self) -> bool:
        """Whether it should end; asks Xen at most every `_LOOK_S`."""
        self._listen(0)
        if self.why is None and time.monotonic() - self._looked > _LOOK_S:
            self.look()
        return self.why is not None

    def look(self) -> None:
        """Ask Xen and Xenstore for the domain's state."""
        self._looked = time.monotonic()
        if self._control is None:
            return
        domid = self.domain.domid
        state = self._control.state(domid)
        name = self._store.read(f"/local/domain/{domid}/name") if self._store else None
        why = domains.ended(self.domain, state, name)
        if why is None:
            self.look_for_migration()
        else:
            self.end("domain", why)
            self.alive = state is not None and not state.dying

    def look_for_migration(self) -> None:
        """Look for a migration that takes over log-dirty mode."""
        if self.shared and save_helper_of(self.domain.domid) is not None:
            self.migrated()

    def migrated(self) -> None:
        """Record that the domain is being migrated."""
        self.migrating = True
        self.end("domain", "the domain is being saved or migrated")

    def gone(self, error: XenError) -> None:
        """Record the domain's end if that explains the error; otherwise raise the error."""
        # Ignore an earlier order: `look` must report on the domain alone.
        before, self.why = self.why, None
        self.look()
        ended = self.why is not None
        self.why = before or self.why
        if not ended and error.errno != errno.ESRCH:
            raise error
        self.end("domain", "the domain is gone")
        self.alive = False
