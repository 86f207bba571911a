# SPDX-License-Identifier: Apache-2.0
"""Working sets of virtual machines from Page Modification Logging: record, store, measure, show.

Where to begin
--------------
>>> import pmlkit
>>> "hotcold" in pmlkit.bundled()              # recordings that come with pmlkit
True
>>> trace = pmlkit.open("hotcold")             # by name, or by path
>>> trace.meta.domain["name"], trace.meta.lost
('hotcold', 0)
>>> table = pmlkit.wss(trace, window="1s")     # Denning's W(t, T), a DataFrame
>>> int(table["region:hot"].max())             # the guest writes 300 pages all the time
300

A *trace* is a folder ``NAME.trace``: Parquet files that any reader opens, and ``trace.json``, which
describes them and holds their checksums. An *access trace* says which guest frames were read,
written and executed in each *round* (a stretch of time), in order of first use. It is ground truth.
A *PML log* is what Page Modification Logging says of the same run: frames in the order in which
they were first written since the last re-arm. `Trace.pml` gives the log of an access trace's run.
Times are nanoseconds since the start of the recording, sizes are bytes, frames (gfn) are pages of
4 KiB.

What a notebook uses
--------------------
open, bundled     a trace by name or path; the names of the bundled recordings
wss               working sets W(t, T), threshold m: `pmlkit.workingset` has curves and surfaces
mrc               a miss-ratio curve: `pmlkit.missratio`
reads             estimates of the reads, which PML does not log
advise            how to look at a VM within a budget, and how big it must be
period            which T, and what a period of collection costs
forecast          quantiles, peaks and pages of W ahead
compare           every technique on the same recorded VMs
frontier          the same at every setting: error at equal cost, cost at equal error
collect           log a domain of a Xen host, or a VM of a KVM host
record            boot a workload and record every access
explore           widgets over a trace
figures, save     functions that return a Figure; write it with its data
recordings        what comes with pmlkit, and how a trace is found
Trace, Kind       a trace; read, written, executed, page table
errors            every exception that is raised on purpose

Where the rest is
-----------------
Each folder explains itself, and imports only from the lines above its own:

errors, types, lazy, files, signals, units, foreign
                  ground: exceptions, files written whole, other people's files, text to numbers
spool, spool_reader, ftrace, starter, shipping, xen, kvm
                  what a collector appends to; how an agent is started and sent; what runs in
                  dom0, and on a KVM host
costs             what events cost, and which clock a duration is of
trace, recordings the store; the recordings that come with pmlkit
timeline, kernels, pagetables, selection
                  windows by time; compiled loops; which part of a trace
several           several recordings at once: labels, and what keeps them from being compared
workingset, missratio, answers, reads
                  measures of a trace; what they say in a sentence
forecast, interop, sources
                  measures ahead; other tools' formats; where traces come from
techniques, period, compare, law, frontier
                  all ways to estimate a working set, their comparison, their error's law, and their
                  errors at equal cost
figures           figures and tables
notebook, batch, corpus, scoreboard, doctor
                  what notebooks call; experiments; WSS-Bench, and a technique's score over it; what
                  this machine can do
cli               the command ``pmlkit``

Modules are imported when they are first used, so ``import pmlkit`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import Any

from pmlkit.lazy import lazy

__version__ = "0.1.0"

# The home of each public name; a folder or module is its own.
_HOMES = {
    "Kind": "trace.kinds:Kind",
    "Trace": "trace.reader:Trace",
    "advise": "law.advise:advise",
    "bundled": "recordings:bundled",
    "collect": "sources.host.collection:collect",
    "explore": "notebook.explorer:explore",
    "mrc": "missratio.curves:of_trace",
    "open": "recordings:open_trace",
    "record": "sources.recorder.record:record",
    "save": "figures.style:save",
    "wss": "workingset:estimate",
}
_MODULES = (
    "compare",
    "errors",
    "figures",
    "forecast",
    "frontier",
    "period",
    "reads",
    "recordings",
)

__all__ = sorted([*_HOMES, *_MODULES])


_find = lazy("pmlkit", _HOMES)


def __getattr__(name: str) -> Any:
    return importlib.import_module(f"pmlkit.{name}") if name in _MODULES else _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
