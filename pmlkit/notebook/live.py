# SPDX-License-Identifier: Apache-2.0
"""Collection of a trace in a notebook from any source, with a figure that grows meanwhile.

A collection from a Xen or KVM host, a recording and a run of the lab are shown while they run. A
trace that came with pmlkit is played back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.files import make_folder
from pmlkit.notebook import views
from pmlkit.recordings import open_trace
from pmlkit.sources.spooling import with_us
from pmlkit.sources.watch import Follower, RecordingWatcher, Seen, Watcher
from pmlkit.spool import FRAMES_FILE, folder_of
from pmlkit.spool_reader import make_way
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Self

    from pmlkit.sources.host.collection import Collection
    from pmlkit.sources.watch import Taker
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Gfns, Json, Tell

__all__ = ["Replay", "Running", "SOURCES", "start", "watch"]


SOURCES = ("bundled", "recorder", "lab", "xen", "kvm")
_PERIODS = {"recorder": "10ms", "lab": "200ms", "xen": "1s", "kvm": "1s"}
_STEPS = 100  # updates of a played-back trace
_LATEST = 1 << 28  # higher frames are not counted as distinct


def start(
    source: str,
    trace: str,
    out: str,
    host: str | None = None,
    rounds: int = 60,
    period: str | None = None,
    memory_mib: int | None = None,
    clock: str = "guest",
) -> Replay | Running | Collection:
    """Prepare a collection; `watch` runs it.

    Parameters
    ----------
    source : {"bundled", "recorder", "lab", "xen", "kvm"}
        An existing trace; or, recorded now: a Linux guest under QEMU, a guest under the patched
        Xen on an emulated processor, a domain of a Xen host, a VM of a KVM host.
    trace : str
        A name or path; a workload; a guest of the lab; a domain's name or id; a VM's name, QMP
        socket or process.
    out : str
        Folder for a new trace, as in `views.output_folder`; a trace of the same name is replaced.
    host : str, optional
        With "xen" and "kvm": ``root@dom0``; None: this machine.
    rounds : int
        With "lab", "xen" and "kvm".
    period : str, optional
        Length of a round; default: 10 ms of a recorded guest, 200 ms in the lab, 1 s of a host.
    memory_mib : int, optional
        With "recorder" and "lab": the guest's.
    clock : {"guest", "host"}
        With "recorder": as in `pmlkit.sources.recorder.recording.RecordOptions`.

    Raises
    ------
    UsageError
        For another source.
    """
    if source not in SOURCES:
        raise UsageError(f"the source {source!r} is not known: choose from {', '.join(SOURCES)}")
    if source == "bundled":
        return Replay(lambda: open_trace(trace))
    period = period or _PERIODS[source]
    folder = make_folder(views.output_folder(out))
    if source in ("xen", "kvm"):
        return _on_host(source, trace, folder, host, rounds, period)
    path = folder / f"{Path(trace).stem}.trace"
    if source == "lab":
        memory = ["--guest-memory", f"{memory_mib}M"] if memory_mib else []
        words = ["--rounds", f"{rounds}", "--period", period, *memory]
        return Running(["lab", "run", trace, *words], path, Watcher, "preparing the lab")
    memory = ["--memory", f"{memory_mib}"] if memory_mib else []
    words = ["record", trace, "--window", period, "--clock", clock, *memory]
    first = "building and booting the guest"
    return Running(words, path, RecordingWatcher, first)


def _on_host(
    source: str, domain: str, folder: Path, host: str | None, rounds: int, period: str
) -> Collection:
    from pmlkit.sources.host.collection import Collection, CollectOptions
    from pmlkit.sources.kvm.collection import KvmCollectOptions

    how = KvmCollectOptions if source == "kvm" else CollectOptions
    options = how(rounds=rounds, period_s=parse_duration_ns(period) / 1e9)
    out = folder / f"{Path(domain).name}.trace"  # a VM may be named by its socket
    return Collection(domain, out, options, host, overwrite=True)


class Replay:
    """A trace, played back round by round like a running collection.

    Parameters
    ----------
    make : callable
        Returns the trace; called at the first iteration.

    Attributes
    ----------
    trace : Trace or None
    """

    def __init__(self, make: Callable[[], Trace]) -> None:
        self._make = make
        self.trace: Trace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: no process runs."""

    def __iter__(self) -> Iterator[Seen]:
        """Yield up to a hundred `Seen`, each of as many rounds."""
        trace = self._opened()
        rounds, known = trace.rounds, np.zeros(0, bool)
        step = -(-max(len(rounds), 1) // _STEPS)
        for first in range(0, len(rounds), step):
            part = rounds.iloc[first : first + step]
            start, end = int(part.t_start_ns.iloc[0]), int(part.t_end_ns.iloc[-1])
            frames = _frames(trace, first, first + len(part), start, end)
            known = _marked(known, frames)
            yield Seen(
                round=first,
                t_ns=end,
                length_ns=end - start,
                pages=len(frames),
                distinct=int(known.sum()),
                entries=int(part.entries.sum()),
                lost=int(part.lost.sum()),
                exits=int(part.exits.sum()),
                pause_ns=int(part.pause_ns.sum()),
            )

    def run(self, show: Callable[[Seen], None]) -> Trace:
        """Play the trace to its end, and return it; call `show` with each `Seen`."""
        for seen in self:
            show(seen)
        return self._opened()

    def _opened(self) -> Trace:
        self.trace = self.trace or self._make()
        return self.trace


def _frames(trace: Trace, first: int, stop: int, start_ns: int, end_ns: int) -> Gfns:
    """Return the frames of the rounds from `first` to before `stop`, between these times."""
    parts = [np.zeros(0, np.uint64)]
    for batch in trace.iter_entries(["round", "gfn"], start_ns, end_ns):
        rounds = batch["round"].to_numpy()
        mine = (rounds >= first) & (rounds < stop)
        parts.append(np.unique(batch["gfn"].to_numpy()[mine]))
    return np.unique(np.concatenate(parts))


def _marked(known: Bools, frames: Gfns) -> Bools:
    """Mark frames in an array of flags, which grows as needed."""
    frames = frames[frames < _LATEST].astype(np.int64)
    if len(frames) and frames[-1] >= len(known):
        known = np.concatenate([known, np.zeros(int(frames[-1]) + 1 - len(known), bool)])
    known[frames] = True
    return known


def watch(run: Replay | Running | Collection, out: str | None = None, name: str = "live") -> Trace:
    """Run a collection to its end, with a figure that grows; Ctrl-C (or the stop button) ends it.

    Parameters
    ----------
    out : str, optional
        Folder for the figure and its data, as in `pmlkit.notebook.views.output_folder`.
    name : str
        Of the figure.
    """
    from pmlkit.figures.live import LiveFigure

    live = LiveFigure()
    trace: Trace | None
    try:
        trace = run.run(live.add, live.say) if isinstance(run, Running) else run.run(live.add)
    except KeyboardInterrupt:
        trace = run.trace
        if trace is None:
            raise
    finally:
        if len(live.table()):  # an empty figure above an error would be no help
            live.draw()
    if out is not None:
        live.save(views.output_folder(out) / name)
    return trace


# ------------------------------------------------------------------------------
# A command of pmlkit that makes a trace, followed while it runs.


_POLL_S = 0.1
_LONGEST_LINE = 1 << 14  # bytes
_ERROR_PREFIX = "pmlkit: "  # the start of an error's line


class Running:
    """A running command that records or logs a guest; rounds are read from the growing spool.

    Parameters
    ----------
    words : list of str
        The command and its arguments, without ``pmlkit``.
    out : Path
        The trace to write; an existing one is replaced.
    watcher : callable
        As `pmlkit.sources.watch.Follower` takes it.
    first : str
        Shown until the command prints its first line of progress.

    Attributes
    ----------
    trace : Trace or None
    """

    def __init__(
        self, words: list[str], out: Path, watcher: Callable[[Json], Taker], first: str = ""
    ) -> None:
        self.words, self.out = words, out
        self.trace: Trace | None = None
        self._watcher, self._doing = watcher, first

    def run(self, show: Callable[[Seen], None], tell: Tell = lambda line: None) -> Trace:
        """Run to the end, and return the trace; Ctrl-C ends it early with a shorter trace.

        `show` gets each `Seen`, `tell` each new line of the command's progress.
        """
        from pmlkit.trace.reader import Trace

        tell(self._doing)
        spool = folder_of(self.out)
        make_way(spool)  # an older spool belongs to another run
        with (
            contextlib.closing(Follower(spool / FRAMES_FILE, self._watcher)) as follower,
            tempfile.TemporaryFile() as stderr,
        ):
            # In a separate process: this one does not read while it draws, which would stall a
            # guest.
            process = subprocess.Popen(
                [*with_us("TERM"), *self._command()],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

            def poll() -> None:
                for seen in follower.poll():
                    show(seen)
                if (line := _last_line(stderr)) not in ("", self._doing):
                    self._doing = line
                    tell(line)

            interrupted = self._follow(process, poll)
            poll()  # the file is still open, even if its name is gone
        if process.returncode and not (interrupted and self._kept(spool, tell)):
            raise self._error(process.returncode)
        self.trace = Trace.open(self.out)
        return self.trace

    def _error(self, status: int) -> PmlkitError:
        why = self._doing.removeprefix(_ERROR_PREFIX)
        if why == self._doing:  # its last line was not an error message
            why = f"`pmlkit {' '.join(self.words)}` ended with status {status} ({why})"
        return PmlkitError(why)

    def _command(self) -> list[str]:
        out = ["-o", str(self.out), "--overwrite"]
        return [sys.executable, "-m", "pmlkit", *self.words, *out]

    @staticmethod
    def _follow(process: subprocess.Popen[bytes], poll: Callable[[], None]) -> bool:
        """Poll a process until it has ended; return whether it was interrupted."""
        try:
            while process.poll() is None:
                poll()
                time.sleep(_POLL_S)
        except BaseException as error:
            process.send_signal(signal.SIGINT)  # it ends early, and still writes the trace
            process.wait()
            if not isinstance(error, KeyboardInterrupt):
                raise
            return True
        return False

    def _kept(self, spool: Path, tell: Tell) -> bool:
        """Convert the spool that a lab leaves behind; return whether there is one."""
        from pmlkit.sources.ingest import finish

        def torn(why: str) -> None:  # the emulator ended during a write to its disk
            tell(f"{why}: the trace ends before that, and {spool} is kept")

        if not spool.exists():
            return False
        finish(spool, self.out, overwrite=True, heard=torn)
        return True


def _last_line(file: IO[bytes]) -> str:
    """Return the last complete line of a file that another process writes."""
    length = os.fstat(file.fileno()).st_size
    end = os.pread(file.fileno(), _LONGEST_LINE, max(length - _LONGEST_LINE, 0))
    return end.decode(errors="replace").rpartition("\n")[0].rpartition("\n")[2].strip()
