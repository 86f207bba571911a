# SPDX-License-Identifier: Apache-2.0
"""Working sets of virtual machines from Page Modification Logging: record, store, analyse, plot.

First steps
-----------
>>> import pmlkit
>>> "hotcold" in pmlkit.bundled()              # recordings that come with pmlkit
True
>>> trace = pmlkit.open("hotcold")             # by name, or by path
>>> trace.meta.domain["name"], trace.meta.lost
('hotcold', 0)
>>> table = pmlkit.wss(trace, window="1s")     # Denning's W(t, T), a DataFrame
>>> int(table["region:hot"].max())             # the guest writes 300 pages all the time
300

A *trace* is a folder ``NAME.trace``. It contains Parquet files, which any reader opens, and
``trace.json``, which describes them and lists their checksums. An *access trace* lists the guest
frames that were read, written and executed in each *round* (an interval of time), in order of first
use. It is ground truth. A *PML log* lists what Page Modification Logging reports for the same run:
frames in the order in which they were first written since the last re-arm. `Trace.pml` gives the
log of an access trace's run. Times are nanoseconds since the start of the recording. Sizes are
bytes. Frames (gfn) are pages of 4 KiB.

Names for notebooks
-------------------
open, bundled     open a trace by name or path; list the bundled recordings
diff              two recordings, before and after: the difference of W, with an interval
wss               working sets W(t, T), threshold m: `pmlkit.workingset` has curves and surfaces
mrc               a miss-ratio curve: `pmlkit.missratio`
reads             estimates of the reads, which PML does not log
advise            how to measure a VM within a budget, and how much memory it needs
period            which T, and the cost of one period of collection
forecast          quantiles, peaks and pages of W ahead
compare           all techniques on the same recorded VMs
frontier          all techniques at every setting: error at equal cost, cost at equal error
collect           log a domain of a Xen host, or a VM of a KVM host
record            boot a workload and record every access
explore           interactive widgets for a trace
figures, save     functions that return a Figure; a function that writes it with its data
recordings        the bundled recordings, and the search for a trace
Trace, Kind       a trace; read, written, executed, page table
errors            all exceptions that pmlkit raises on purpose

All modules
-----------
Each folder has its own overview, and imports only from the lines above its own:

errors, types, lazy, files, signals, units, foreign, progress
                  foundations: exceptions, atomic files, other tools' files, text to numbers,
                  progress of long work
spool, spool_reader, ftrace, starter, shipping, xen, kvm
                  files of a collector; starting and shipping an agent; code that runs in dom0 and
                  on a KVM host
costs, resampling costs of events, and the clock of a duration; bootstrap samples
trace, recordings the store; the recordings that come with pmlkit
timeline, kernels, pagetables, selection
                  windows by time; compiled loops; selected parts of a trace
several           several recordings at once: their labels, and checks that they are comparable
workingset, missratio, answers, difference, reads
                  measures of a trace; one-sentence answers; two recordings compared
forecast, interop, sources
                  forecasts; other tools' formats; sources of traces
techniques, period, compare, law, frontier
                  all techniques, their comparison, the law of their error, and their errors at
                  equal cost
figures           figures and tables
notebook, batch, corpus, scoreboard, doctor
                  calls for notebooks; experiments; WSS-Bench, and a technique's score on it; checks
                  of this machine
cli               the command ``pmlkit``

Modules are imported when they are first used, so ``import pmlkit`` takes no time.
"""

from __future__ import annotations

import importlib
import sys
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
    "diff": "difference:between",
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


if "IPython" in sys.modules:  # a notebook: Ctrl-C ends a call with one line
    importlib.import_module("pmlkit.notebook.interrupted").install()
