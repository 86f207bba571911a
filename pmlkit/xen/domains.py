# SPDX-License-Identifier: Apache-2.0
"""Find domains by name or id in Xenstore, and determine how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.xen.binding import MissingLibrary, check, ffi, library

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.xen.xenctrl import DomainState


__all__ = ["Domain", "NoSuchDomain", "Xenstore", "ended", "find"]

_AWAY = "--migratedaway"  # libxl's name for a migrated domain


class NoSuchDomain(PmlkitError):
    """The domain does not exist. Attribute: `name`."""

    def __init__(self, name: str) -> None:
        self.name = str(name)
        super().__init__(f"there is no domain {self.name}", "`xl list` lists the domains")


@dataclass(frozen=True)
class Domain:
    """A domain as described by Xenstore.

    Attributes
    ----------
    domid : int
    name, uuid : str
        Empty if Xenstore does not contain it.
    memory_bytes : int
        Its configured memory; 0 if Xenstore does not contain it.
    """

    domid: int
    name: str = ""
    uuid: str = ""
    memory_bytes: int = 0


class Xenstore:
    """An open Xenstore. A context manager."""

    def __init__(self) -> None:
        self._lib, self._ffi = library("xenstore"), ffi()
        self._h = check(self._lib.xs_open(0), "xs_open")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle; idempotent."""
        handle, self._h = self._h, None
        if handle is not None:
            self._lib.xs_close(handle)

    def read(self, path: str) -> str | None:
        """Return the text of a node; None if it does not exist."""
        length = self._ffi.new("unsigned int *")
        value = self._lib.xs_read(self._h, 0, path.encode(), length)
        if value == self._ffi.NULL:
            return None
        try:
            return bytes(self._ffi.buffer(value, length[0])).decode(errors="replace")
        finally:
            self._lib.free(value)

    def names(self, path: str) -> list[str]:
        """Return the names of the nodes below one."""
        count = self._ffi.new("unsigned int *")
        entries = self._lib.xs_directory(self._h, 0, path.encode(), count)
        if entries == self._ffi.NULL:
            return []
        try:
            texts = [self._ffi.string(entries[i]) for i in range(count[0])]
        finally:
            self._lib.free(entries)
        return [text.decode(errors="replace") for text in texts]

    def domain(self, domid: int) -> Domain:
        """Return the `Domain` of an id; unknown fields are empty."""
        base = f"/local/domain/{domid}"
        vm = self.read(f"{base}/vm") or ""
        kib = self.read(f"{base}/memory/static-max") or self.read(f"{base}/memory/target") or "0"
        memory = int(kib) << 10 if kib.strip().isdigit() else 0
        return Domain(domid, self.read(f"{base}/name") or "", vm.rpartition("/")[2], memory)

    def domids(self) -> list[int]:
        """Return the ids of the domains that Xenstore knows."""
        return sorted(int(n) for n in self.names("/local/domain") if n.isdigit())


def find(asked: str | int) -> Domain:
    """Find a domain.

    Parameters
    ----------
    asked : str or int
        Its name or id; a number is tried as a name first, as in `xl`.

    Raises
    ------
    NoSuchDomain
    MissingLibrary, XenError
        If Xenstore is unavailable, and it is not an id.
    """
    asked = str(asked)
    try:
        with Xenstore() as store:
            for domid in store.domids():
                if store.read(f"/local/domain/{domid}/name") == asked:
                    return store.domain(domid)
            if asked.isdigit() and (int(asked) in store.domids() or int(asked) == 0):
                return store.domain(int(asked))
    except MissingLibrary:
        if not asked.isdigit():
            raise
        return Domain(int(asked))
    raise NoSuchDomain(asked)


def ended(domain: Domain, state: DomainState | None, name: str | None = None) -> str | None:
    """Return the reason to end the logging of a domain; None if it can continue.

    Parameters
    ----------
    domain : Domain
        Its state when logging began.
    state : pmlkit.xen.xenctrl.DomainState or None
        Its present state according to Xen.
    name : str, optional
        Its present name in Xenstore; None if unknown.
    """
    if name is not None and name.endswith(_AWAY):
        return "the domain was migrated"
    if state is None:
        return "the domain is gone"
    if state.shutdown == "suspend":
        return "the domain was suspended (saved or migrated)"
    if state.shutdown in ("crash", "watchdog"):
        return f"the domain crashed ({state.shutdown})"
    if state.shutdown:
        return f"the domain shut down ({state.shutdown})"
    if state.dying:
        return "the domain was destroyed"
    if name is not None and domain.name and name != domain.name:
        return f"the domain was renamed from {domain.name} to {name or 'nothing'}"
    return None
