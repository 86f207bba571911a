# SPDX-License-Identifier: Apache-2.0
"""Marks of running collections: the next collection cleans up after a killed one.

A mark is a file that its collection keeps locked. The kernel releases the lock at each end of the
process, so an unlocked mark belongs to a process that could not clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError, output_error
from pmlkit.xen import domains
from pmlkit.xen.binding import XenError
from pmlkit.xen.pml import STATE_BROKEN, STATE_LOGGING, Handle
from pmlkit.xen.stock import switch_off
from pmlkit.xen.xenctrl import Control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self, TextIO

    from pmlkit.types import Json, PathLike
    from pmlkit.xen.domains import Domain


class Busy(PmlkitError):
    """Another process is collecting the domain. Attributes: `domain`, `pid`."""

    def __init__(self, domain: str | int, pid: int | None) -> None:
        self.domain, self.pid = domain, pid
        super().__init__(f"domain {domain} is being collected by process {pid}", "wait for its end")


class Mark:
    """The mark of this process's collection. A context manager.

    Parameters
    ----------
    folder : path-like
        Folder of the marks; created if missing.
    """

    def __init__(self, folder: PathLike, domain: Domain) -> None:
        self.path = Path(folder) / f"{domain.domid}.json"
        self._facts = {"domid": domain.domid, "name": domain.name, "uuid": domain.uuid}
        self._facts["pid"] = os.getpid()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not "w", which would empty the mark of a collection that runs.
            self._file = open(self.path, "a+")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise output_error(self.path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _facts(self._file).get("pid")
            self._file.close()
            raise Busy(domain.name or domain.domid, pid) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, **facts: object) -> None:
        """Record the logging that is switched on: before the switch, and again with more facts."""
        self._facts.update(facts)
        # A line more: a process that is killed here leaves the lines before.
        self._file.write(json.dumps(self._facts) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Remove the mark; idempotent."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def clean(folder: PathLike) -> Iterator[str]:
    """Switch off the logging that dead collections left on; yield a message for each of them."""
    for path in sorted(Path(folder).glob("*.json")):
        with contextlib.suppress(FileNotFoundError), open(path, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is alive
                continue
            message = _undo(_facts(file))
            path.unlink(missing_ok=True)
            if message:
                yield message


def _facts(file: TextIO) -> Json:
    file.seek(0)
    for line in reversed(file.read().splitlines()):
        with contextlib.suppress(ValueError):  # killed while it wrote this line
            facts = json.loads(line)
            return facts if isinstance(facts, dict) else {}
    return {}


def _undo(facts: Json) -> str | None:
    domid, mode = facts.get("domid"), facts.get("mode")
    if not isinstance(domid, int) or mode not in ("pml", "stock"):
        return None
    try:
        if domains.find(domid).uuid != facts.get("uuid", ""):
            return None  # another domain has this id now
        message = _undo_pml(domid, facts) if mode == "pml" else _undo_stock(domid)
    except domains.NoSuchDomain:
        return None
    except XenError as error:
        return f"a collection that died may have left log-dirty mode on: {error}"
    name = facts.get("name") or domid
    words = f"a collection of domain {name} died and left log-dirty mode on: it is off now"
    return words if message else None


def _undo_pml(domid: int, facts: Json) -> bool:
    with Handle(domid) as handle:
        status = handle.status()
        ours = facts.get("generation") in (None, status["generation"])
        if status["state"] not in (STATE_LOGGING, STATE_BROKEN) or not ours:
            return False
        handle.disable()
    return True


def _undo_stock(domid: int) -> bool:
    with Control() as control:
        return switch_off(control, domid)
