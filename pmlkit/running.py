# SPDX-License-Identifier: Apache-2.0
"""A command of pmlkit's that makes a trace, followed as it goes on: its words, its rounds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.seen import Follower
from pmlkit.sources.host import with_us
from pmlkit.spool import FRAMES_FILE, folder_of
from pmlkit.spool_reader import make_way

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from pmlkit.seen import Seen
    from pmlkit.trace import Trace
    from pmlkit.types import Json, Tell


__all__ = ["Running"]

_POLL_S = 0.1
_LONGEST_LINE = 1 << 14  # bytes
_SAYS = "pmlkit: "  # what an error begins with


class Running:
    """A guest that a command records or logs now, and that is seen as its spool grows.

    Parameters
    ----------
    words : list of str
        The command of pmlkit's.
    out : Path
        The trace to be; one of the name is replaced.
    watcher : callable
        As `pmlkit.seen.Follower` takes it.
    first : str
        What it does until it says so itself.

    Attributes
    ----------
    trace : Trace or None
    """

    # None until it is made.
    trace: Any

    def __init__(
        self, words: list[str], out: Path, watcher: Callable[[Json], Any], first: str = ""
    ) -> None:
        self.words, self.out, self.trace = words, out, None
        self._watcher, self._doing = watcher, first

    def run(self, show: Callable[[Seen], None], tell: Tell = lambda line: None) -> Trace:
        """Run to the end; Ctrl-C ends it early and keeps what came. Returns the trace.

        Parameters
        ----------
        show : callable
            Called with each `Seen`.
        tell : callable, optional
            Called with a line of text whenever the command begins something else.
        """
        from pmlkit.trace import Trace

        tell(self._doing)
        spool = folder_of(self.out)
        make_way(spool)  # an older one is not ours to watch
        with (
            contextlib.closing(Follower(spool / FRAMES_FILE, self._watcher)) as follower,
            tempfile.TemporaryFile() as said,
        ):
            # A process of its own: a guest stands still while nobody takes what it says, and we
            # draw.
            process = subprocess.Popen(
                [*with_us("TERM"), *self._command()],
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

            def look() -> None:
                for seen in follower.poll():
                    show(seen)
                if (line := _last_line(said)) not in ("", self._doing):
                    self._doing = line
                    tell(line)

            interrupted = self._follow(process, look)
            look()  # at a file that has no name any more
        if process.returncode and not (interrupted and self._kept(spool, tell)):
            raise self._error(process.returncode)
        self.trace = Trace.open(self.out)
        return self.trace

    def _error(self, status: int) -> PmlkitError:
        why = self._doing.removeprefix(_SAYS)
        if why == self._doing:  # its last word was none of an error's
            why = f"`pmlkit {' '.join(self.words)}` ended with status {status} ({why})"
        return PmlkitError(why)

    def _command(self) -> list[str]:
        out = ["-o", str(self.out), "--overwrite"]
        return [sys.executable, "-m", "pmlkit", *self.words, *out]

    @staticmethod
    def _follow(process: subprocess.Popen[Any], look: Callable[[], None]) -> bool:
        """Look at a process until it has ended; returns whether it was interrupted."""
        try:
            while process.poll() is None:
                look()
                time.sleep(_POLL_S)
        except BaseException as error:
            process.send_signal(signal.SIGINT)  # it ends early, and writes what there is
            process.wait()
            if not isinstance(error, KeyboardInterrupt):
                raise
            return True
        return False

    def _kept(self, spool: Path, tell: Tell) -> bool:
        """Make a trace of the spool that a lab leaves behind; returns whether there is one."""
        from pmlkit.ingest import finish

        def torn(why: str) -> None:  # the emulator ended while its disk was being written
            tell(f"{why}: the trace ends before it, and {spool} is kept")

        if not spool.exists():
            return False
        finish(spool, self.out, overwrite=True, heard=torn)
        return True


def _last_line(file: Any) -> str:
    """Return the last line of a file that another process writes, whose place in it is ours."""
    length = os.fstat(file.fileno()).st_size
    end = os.pread(file.fileno(), _LONGEST_LINE, max(length - _LONGEST_LINE, 0))
    return end.decode(errors="replace").rpartition("\n")[0].rpartition("\n")[2].strip()
