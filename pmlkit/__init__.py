# SPDX-License-Identifier: Apache-2.0
"""Working sets of virtual machines out of Page Modification Logging: record, store, measure, show.

Where to begin
--------------
>>> import pmlkit
>>> "hotcold" in pmlkit.bundled()             # a recording that comes with it
True
>>> trace = pmlkit.open(pmlkit.bundled("hotcold"))
>>> trace.meta.domain["name"], trace.meta.lost
('hotcold', 0)
>>> from pmlkit import workingset
>>> table = workingset.estimate(trace, window="1s")    # Denning's W(t, T): a DataFrame
>>> int(table["region:hot"].max())                     # it writes 300 pages all the time
300

A *trace* is a folder ``NAME.trace``: Parquet files that any reader opens, and ``trace.json``, which
describes and seals them. An *access trace* says which guest frames were read, written and executed
in each *round* (a window of time), in order of first use; it is ground truth. A *PML log* is what
the processor's Page Modification Logging says of the same run: frames in the order in which they
were first written since the last re-arm. `Trace.pml` gives the log of an access trace's run.
Times are nanoseconds since the recording's start, sizes are bytes, frames (gfn) are 4 KiB pages.

What there is
-------------
The store
    trace         reading a trace: `Trace`; trace_tables, what of it fits into memory
    writer        writing one: `TraceWriter`; writer_tables, its small tables
    schema        its tables' columns, and its description, `TraceMeta`; description, what each of
                  its fields may be
    kinds         read, written, executed, page table: `Kind`; what a table's entry says
    snapshots     page tables as they were at the end of a round, entry by entry
    spool         what a collector appends to, and what is left if it dies; spool_reader,
                  stream_json (JSON that somebody else wrote)
    audit         the deep check behind `Trace.check`
    foreign_yaml  a stranger's YAML, counted before it is expanded
    files         a stranger's file, opened with care; a file that appears only when it is whole
    parquet, parquet_pages, entries, parts, tally, manifest, partial, consistency
                  the insides of the store
Observing
    sources       the recorder (QEMU), the simulator (a software PML), the lab (a patched Xen on
                  an emulated PML), the guests that they run
    xen           Xen's interfaces, patched and stock, and what runs in dom0: the collector
    collection    collecting from a Xen host: `Collection`, from a notebook or the command line;
                  collect_options, launch (the agent, by SSH too), seen, seen_recorder (rounds as
                  they come), collecting (one way to a trace for notebooks, whichever its source),
                  running (a command of ours, followed as it goes on)
    ingest        from a spool to a trace
    known         what a workload says that it touched, against what its trace shows
    bundle        data/: the recordings that come with pmlkit, and their manifest
    shipped       where these, workloads, experiments and notebooks are: a clone, or a wheel
Measuring
    workingset    W(t, T), the threshold m, plateaus, surfaces, of a trace
    missratio     miss-ratio curves: exact LRU, SHARDS, AET; shards, aet, curve, stack, its parts
    occurrences   the same of arrays, sorted by page
    onepass       the same of arrays and streams in log order; reuse, sizes, plateau, its parts
    selection     which part of a trace
    timeline      when its rounds ended, and which of them a window T holds
    streams       that part as a stream, in bounded memory; pageindex numbers its pages, blocks
                  keep numbers of sparse frames
    kernels, kernels_window, kernels_stack, kernels_sample, kernels_instructions
                  the compiled loops
    period        which T: what a period costs and shows
    calibrate     what collecting costs: the constants behind it
    pagetables    page tables in a PML log: which, and what they lead to; pagetables_tree
    pagetables_infer
                  which, without marks: a guess
    reads         the reads that PML is blind to, estimated from them; its parts: reads_sets,
                  reads_density (by a sample), reads_lessons (learnt), reads_guided (exact),
                  reads_table, reads_sources (why it errs), reads_mechanism, reads_lab (the
                  experiments)
    hotness       hot and cold regions, by when their tables are logged again; hotness_table, how
                  well that does
    units         durations, windows and sizes, from text and to it
Comparing
    forecast      W ahead: quantiles, peaks, pages; back-tests, and what a decision costs
    techniques    those that estimate working sets, ours and the others', by one protocol
    compare       all of them on recorded VMs, in one batch; compare_plan, compare_tables,
                  figures_compare, figures_overview
Exchanging
    interop       to and from libCacheSim, damo, KVM and QEMU, valgrind's lackey, CSV; its formats:
                  interop_oracle, interop_vscsi, interop_csv, interop_kvm, interop_kvm_text,
                  interop_kvm_log, interop_tracedat, interop_rates, interop_damo,
                  interop_damo_json, interop_damo_snapshots, interop_damo_text, interop_lackey, and
                  what they share: interop_requests, interop_columns
    imported      rows of a foreign file into rounds and batches; its loop: kernels_import
Showing
    figures       functions that return a Figure, and the one saver
    figures_time, figures_window, figures_heat, figures_reads, figures_period, figures_mrc,
    figures_walk, axes_mpl, style_mpl
                  its parts
    live, figures_live
                  a collection on the terminal, and as a figure that grows
    tables        LaTeX tables with their rows as CSV
    explorer      widgets over a trace, in a notebook: `explore`; explorer_uses, explorer_figure,
                  kernels_explorer, its parts
    views, views_reads, views_period, views_recordings
                  a trace as the notebooks show it
    batch         experiments: `pmlkit run`
    notebooks     running notebooks
Using
    cli           the command `pmlkit`; its parts: cli_collect, cli_compare, cli_forecast,
                  cli_interop, cli_lab, cli_mrc, cli_options, cli_period, cli_reads, cli_record,
                  cli_run, cli_show,
                  report, report_compare, report_mrc, report_reads
    doctor        what this machine can do, and what to do about the rest; doctor_checks
    errors        all that is raised on purpose: `PmlkitError` and its children
    signals       what ends a program from outside: Ctrl-C, SIGTERM, SIGHUP
    types         what the annotations of many modules share

Modules are imported when they are first used, so that ``import pmlkit`` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


__version__ = "0.1.0"

# Where each public name lives. `open` is a method of the class named here.
_HOMES = {
    "Kind": "kinds",
    "Spool": "spool_reader",
    "SpoolWriter": "spool",
    "Trace": "trace",
    "TraceMeta": "schema",
    "TraceWriter": "writer",
    "explore": "explorer",
    "read_spool": "spool_reader",
    **dict.fromkeys(
        (
            "FileRefused",
            "GuestError",
            "MissingTool",
            "NeedsError",
            "NotATrace",
            "NotUnderstood",
            "OutputError",
            "OutputExists",
            "PmlkitError",
            "ResolutionError",
            "SpoolDamaged",
            "TraceDamaged",
            "TraceNotFound",
            "TraceVersionError",
            "UnknownName",
            "UsageError",
            "WorkloadError",
        ),
        "errors",
    ),
}
_MODULES = ("errors", "figures", "sources", "units", "workingset")

__all__ = sorted(["bundled", "open", *_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name == "open":
        return importlib.import_module("pmlkit.trace").Trace.open
    if name in _HOMES:
        return getattr(importlib.import_module(f"pmlkit.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"pmlkit.{name}")
    raise AttributeError(f"module 'pmlkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def bundled(name: str | None = None) -> Any:
    """Find the recordings that come with pmlkit, or those in ``$PMLKIT_DATA``.

    Parameters
    ----------
    name : str, optional
        Of a recording, with or without ``.trace``.

    Returns
    -------
    Path or list of str
        The path of the recording of that name; without a name, the names that there are.

    Raises
    ------
    TraceNotFound
        If there is none of that name.

    Examples
    --------
    >>> import pmlkit
    >>> "hotcold" in pmlkit.bundled()
    True
    """
    from pmlkit import shipped

    folder = Path(os.environ.get("PMLKIT_DATA") or shipped.ROOT / "data")
    paths = {path.stem: path for path in sorted(folder.glob("*.trace")) if path.is_dir()}
    if name is None:
        return sorted(paths)
    stem = str(name).removesuffix(".trace")
    if stem not in paths:
        from pmlkit.errors import TraceNotFound

        there = ", ".join(paths) or "none; set PMLKIT_DATA to a folder that has some"
        raise TraceNotFound(folder / f"{stem}.trace", f"the recordings there are: {there}")
    return paths[stem]
