# SPDX-License-Identifier: Apache-2.0
"""When a collection ends, and why: signals, the domain's end, orders of its starter."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from pmlkit.xen import domains
from pmlkit.xen.binding import MissingLibrary, XenError
from pmlkit.xen.xenctrl import Control, save_helper_of

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.xen.domains import Domain


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.25  # how often Xen is asked about the domain
_ENDED = -1
_GONE = "whoever started the collection has gone"


class Stop:
    """Why a collection should end. A context manager: signals are caught while it lasts.

    Parameters
    ----------
    domain : Domain
        Watched until its end.
    orders : int, optional
        File descriptor: a line "stop" or the end of the file ends the collection.
    silence_s : float
        End the collection if no line comes for so long; 0: never.

    Attributes
    ----------
    why : str or None
        In words, once it should end.
    kind : {None, "asked", "domain", "lost"}
        By order or signal; by the domain's end; the starter is gone.
    alive : bool
        Whether the domain can still be asked to close a round.
    shared : bool
        Set it where a migration could take over log-dirty mode, to look for one.
    migrating : bool
        Whether a migration has begun.
    """

    def __init__(self, domain: Domain, orders: int | None = None, silence_s: float = 0.0) -> None:
        self.domain = domain
        self.why: str | None = None
        self.kind: str | None = None
        self.alive = True
        self.shared = self.migrating = False
        self._orders, self._silence_s = orders, silence_s
        self._heard = self._looked = time.monotonic()
        self._exits = contextlib.ExitStack()
        self._control: Control | None = None
        self._store: domains.Xenstore | None = None

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._exits.callback(signal.signal, number, signal.signal(number, self._signalled))
        # Without these, the domain's end is noticed when a call fails.
        with contextlib.suppress(MissingLibrary, XenError):
            self._control = self._exits.enter_context(Control())
        with contextlib.suppress(MissingLibrary, XenError):
            self._store = self._exits.enter_context(domains.Xenstore())
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _signalled(self, number: int, _: object) -> None:
        self.ask(f"interrupted ({signal.Signals(number).name})")

    def ask(self, why: str) -> None:
        """Request the end of the collection."""
        self._end("asked", why)

    def _end(self, kind: str, why: str) -> None:
        if self.why is None:
            self.kind, self.why = kind, why

    def __bool__(self) -> bool:
        """Whether it should end; asks Xen at most every `_LOOK_S`."""
        self._listen(0)
        if self.why is None and time.monotonic() - self._looked > _LOOK_S:
            self.look()
        return self.why is not None

    @property
    def deserted(self) -> bool:
        """Whether nobody reads the output any more."""
        self._listen(0)
        return self.kind == "lost" or self._orders == _ENDED

    def wait(self, seconds: float) -> None:
        """Sleep until an order comes, at most so long."""
        if seconds > 0 and self._orders in (None, _ENDED):
            time.sleep(seconds)
        elif seconds > 0:
            self._listen(seconds)

    def _listen(self, seconds: float) -> None:
        if self._orders in (None, _ENDED):
            return
        ready, _, _ = select.select([self._orders], [], [], seconds)
        now = time.monotonic()
        if ready:
            orders, self._heard = os.read(self._orders, 4096), now
            if not orders:
                self._orders = _ENDED
                self._end("lost", _GONE)
            elif b"stop" in orders:
                self.ask("stopped by whoever started it")
        elif self._silence_s and now - self._heard > self._silence_s:
            self._orders = _ENDED
            self._end("lost", f"{_GONE}: not heard of for {self._silence_s:g} s")

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
            self._end("domain", why)
            self.alive = state is not None and not state.dying

    def look_for_migration(self) -> None:
        """Look for a migration that takes over log-dirty mode."""
        if self.shared and save_helper_of(self.domain.domid) is not None:
            self.migrated()

    def migrated(self) -> None:
        """Record that the domain is being migrated."""
        self.migrating = True
        self._end("domain", "the domain is being saved or migrated")

    def gone(self, error: XenError) -> None:
        """Record the domain's end if that explains the error; else raise it."""
        # An order may have come before: `look` has to find out about the domain alone.
        before, self.why = self.why, None
        self.look()
        ended = self.why is not None
        self.why = before or self.why
        if not ended and error.errno != errno.ESRCH:
            raise error
        self._end("domain", "the domain is gone")
        self.alive = False
