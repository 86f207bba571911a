# SPDX-License-Identifier: Apache-2.0
"""The trace store: one folder, ``NAME.trace``, of Parquet files with a description and checksums.

`Trace` reads a trace, `TraceWriter` writes one. A reader refuses what is damaged, names the file
and the field, and never returns a silently short trace.

Modules
-------
reader       `Trace`: entries, rounds, phases, regions of a trace
writer       `TraceWriter`: a trace that gets its name only when it is whole
schema       columns of the tables, and `TraceMeta`, the description
description  which values each field of ``trace.json`` may have
kinds        `Kind`: read, written, executed, page table
parquet, parquet_pages
             Parquet files, with limits on what they may unpack to
entries      the log's entries: encoding, decoding, parts in parallel
snapshots    page tables at the end of a round
manifest     checksums of all files of a trace
consistency  checks of a table against the others
audit        the full check behind `Trace.check`
known        known answers: what a workload declares, beside what its trace shows
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.trace.reader import Kind, Trace, TraceMeta, TraceTables, TraceWriter

__all__ = ["Kind", "Trace", "TraceMeta", "TraceTables", "TraceWriter"]

__getattr__ = lazy("pmlkit.trace", dict.fromkeys(__all__, "trace.reader"))
