# SPDX-License-Identifier: Apache-2.0
"""One way to a trace for notebooks, whichever its source, with a figure that grows meanwhile.

A collection from a Xen host is seen as it goes on. A guest that is recorded or run in the lab tells
its pages at its end; that trace, like one that came with pmlkit, is then played back.
"""

from pathlib import Path

import numpy as np

from pmlkit import views
from pmlkit.errors import UsageError
from pmlkit.seen import Seen
from pmlkit.style_mpl import make_folder
from pmlkit.units import parse_duration_ns

__all__ = ["SOURCES", "Replay", "start", "watch"]

SOURCES = ("bundled", "recorder", "lab", "xen")
_PERIODS = {"recorder": "10ms", "lab": "200ms", "xen": "1s"}
_STEPS = 100  # that a trace is played back in
_LATEST = 1 << 28  # frames beyond it are not counted as distinct


def start(source, trace, out, host=None, rounds=60, period=None, memory_mib=None):
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
        Of a recorded guest.

    Returns
    -------
    Replay or pmlkit.collection.Collection

    Raises
    ------
    UsageError
        For another source.
    """
    if source not in SOURCES:
        raise UsageError(f"the source {source!r} is not known: choose out of {', '.join(SOURCES)}")
    period = period or _PERIODS.get(source)
    if source == "xen":
        from pmlkit.collection import Collection, CollectOptions

        path = make_folder(views.output_folder(out)) / f"{trace}.trace"
        options = CollectOptions(rounds=rounds, period_s=parse_duration_ns(period) / 1e9)
        return Collection(trace, path, options, host, overwrite=True)
    if source == "lab":
        return Replay(lambda: _lab(trace, out, rounds, period))
    return Replay(lambda: views.collect(trace, source, out, memory_mib, period))


def _lab(guest, out, rounds, period):
    from pmlkit.sources import lab

    path = make_folder(views.output_folder(out)) / f"{Path(guest).stem}.trace"
    period_s = parse_duration_ns(period) / 1e9
    return lab.run(guest, path, lab.LabOptions(rounds=rounds, period_s=period_s, overwrite=True))


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

    def __init__(self, make):
        self._make, self.trace = make, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing runs."""

    def __iter__(self):
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

    def _frames(self, first, stop, start_ns, end_ns):
        found = [np.zeros(0, np.uint64)]
        for batch in self.trace.iter_entries(["round", "gfn"], start_ns, end_ns):
            rounds = batch["round"].to_numpy()
            mine = (rounds >= first) & (rounds < stop)
            found.append(np.unique(batch["gfn"].to_numpy()[mine]))
        return np.unique(np.concatenate(found))


def _with(known, frames):
    """Mark frames in an array of flags, which grows as far as need be."""
    frames = frames[frames < _LATEST].astype(np.int64)
    if len(frames) and frames[-1] >= len(known):
        known = np.concatenate([known, np.zeros(int(frames[-1]) + 1 - len(known), bool)])
    known[frames] = True
    return known


def watch(run, out=None, name="live"):
    """Run a collection to its end, with a figure that grows; Ctrl-C (or the stop button) ends it.

    Parameters
    ----------
    run : Replay or pmlkit.collection.Collection
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
        with run:
            for _ in live.follow(run):
                pass
    except KeyboardInterrupt:
        if run.trace is None:
            raise
    if out is not None:
        live.save(views.output_folder(out) / name)
    return run.trace
