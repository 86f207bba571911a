# SPDX-License-Identifier: Apache-2.0
"""One way to a trace for notebooks, whichever its source, with a figure that grows meanwhile.

A collection from a Xen host is seen as it goes on, and so is a guest that is recorded or that runs
in the lab. A trace that came with pmlkit is played back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import views
from pmlkit.errors import UsageError
from pmlkit.running import Running
from pmlkit.seen import Seen, Watcher
from pmlkit.seen_recorder import RecordingWatcher
from pmlkit.style_mpl import make_folder
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from pmlkit.collection import Collection
    from pmlkit.trace import Trace
    from pmlkit.types import Bools, Gfns


__all__ = ["SOURCES", "Replay", "Running", "start", "watch"]

SOURCES = ("bundled", "recorder", "lab", "xen")
_PERIODS = {"recorder": "10ms", "lab": "200ms", "xen": "1s"}
_STEPS = 100  # that a trace is played back in
_LATEST = 1 << 28  # frames beyond it are not counted as distinct


def start(
    source: str,
    trace: Any,
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
    source : {"bundled", "recorder", "lab", "xen"}
        A trace that there is; a Linux guest under QEMU, now; a guest under the patched Xen on an
        emulated processor, now; a domain of a Xen host, now.
    trace : str
        A name or path; a workload; a guest of the lab; a domain's name or id.
    out : str
        Folder for a new trace, as in `pmlkit.views.output_folder`; one of the name is replaced.
    host : str, optional
        With "xen": ``root@dom0``; None: this machine.
    rounds : int
        With "lab" and "xen".
    period : str, optional
        Length of a round; default: 10 ms of a recorded guest, 200 ms in the lab, 1 s of a host.
    memory_mib : int, optional
        With "recorder" and "lab": the guest's.
    clock : {"guest", "host"}
        With "recorder": as in `pmlkit.sources.recorder.RecordOptions`.

    Returns
    -------
    Replay, Running or pmlkit.collection.Collection

    Raises
    ------
    UsageError
        For another source.
    """
    if source not in SOURCES:
        raise UsageError(f"the source {source!r} is not known: choose out of {', '.join(SOURCES)}")
    period = period or _PERIODS.get(source)
    if source == "bundled":
        return Replay(lambda: views.load(trace))
    folder = make_folder(views.output_folder(out))
    if source == "xen":
        return _on_host(trace, folder, host, rounds, period)  # type: ignore[arg-type]
    path = folder / f"{Path(trace).stem}.trace"
    if source == "lab":
        memory = ["--guest-memory", f"{memory_mib}M"] if memory_mib else []
        words = ["--rounds", f"{rounds}", "--period", period, *memory]
        return Running(["lab", "run", trace, *words], path, Watcher, "making the lab ready")  # type: ignore[list-item]
    memory = ["--memory", f"{memory_mib}"] if memory_mib else []
    words = ["record", trace, "--window", period, "--clock", clock, *memory]
    first = "making the guest and booting it"
    return Running(words, path, RecordingWatcher, first)  # type: ignore[arg-type]


def _on_host(domain: str, folder: Path, host: str | None, rounds: int, period: str) -> Collection:
    from pmlkit.collection import Collection, CollectOptions

    options = CollectOptions(rounds=rounds, period_s=parse_duration_ns(period) / 1e9)
    return Collection(domain, folder / f"{domain}.trace", options, host, overwrite=True)


class Replay:
    """A trace, played back round by round as a collection is seen.

    Parameters
    ----------
    make : callable
        Returns the trace; called when it is first iterated over.

    Attributes
    ----------
    trace : Trace or None
    """

    # None until it is made.
    trace: Any

    def __init__(self, make: Callable[..., Trace]) -> None:
        self._make, self.trace = make, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs."""

    def __iter__(self) -> Iterator[Seen]:
        """Yield up to a hundred `Seen`, each of as many rounds."""
        self.trace = self.trace or self._make()
        rounds, known = self.trace.rounds, np.zeros(0, bool)
        step = -(-max(len(rounds), 1) // _STEPS)
        for first in range(0, len(rounds), step):
            part = rounds.iloc[first : first + step]
            start, end = int(part.t_start_ns.iloc[0]), int(part.t_end_ns.iloc[-1])
            frames = self._frames(first, first + len(part), start, end)
            known = _with(known, frames)
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
        """Play it to its end; returns the trace.

        Parameters
        ----------
        show : callable
            Called with each `Seen`.
        """
        for seen in self:
            show(seen)
        return self.trace

    def _frames(self, first: int, stop: int, start_ns: int, end_ns: int) -> Gfns:
        found = [np.zeros(0, np.uint64)]
        for batch in self.trace.iter_entries(["round", "gfn"], start_ns, end_ns):
            rounds = batch["round"].to_numpy()
            mine = (rounds >= first) & (rounds < stop)
            found.append(np.unique(batch["gfn"].to_numpy()[mine]))
        return np.unique(np.concatenate(found))


def _with(known: Bools, frames: Gfns) -> Bools:
    """Mark frames in an array of flags, which grows as far as need be."""
    frames = frames[frames < _LATEST].astype(np.int64)
    if len(frames) and frames[-1] >= len(known):
        known = np.concatenate([known, np.zeros(int(frames[-1]) + 1 - len(known), bool)])
    known[frames] = True
    return known


def watch(run: Replay | Running | Collection, out: str | None = None, name: str = "live") -> Trace:
    """Run a collection to its end, with a figure that grows; Ctrl-C (or the stop button) ends it.

    Parameters
    ----------
    run : Replay, Running or pmlkit.collection.Collection
    out : str, optional
        Folder for the figure and its data, as in `pmlkit.views.output_folder`.
    name : str
        Of the figure.

    Returns
    -------
    Trace
    """
    from pmlkit.figures_live import LiveFigure

    live = LiveFigure()
    try:
        if isinstance(run, Running):
            run.run(live.add, live.say)
        else:
            run.run(live.add)
    except KeyboardInterrupt:
        if run.trace is None:
            raise
    finally:
        live.draw()
    if out is not None:
        live.save(views.output_folder(out) / name)
    return run.trace
