# SPDX-License-Identifier: Apache-2.0
"""The trace store: a folder ``NAME.trace`` of Parquet files, a description and checksums.

`Trace` reads a trace, `TraceWriter` writes one. The reader refuses damaged files and names the file
and the field. It never returns an incomplete trace without a notice.

Modules
-------
reader       `Trace`: entries, rounds, phases, regions of a trace
writer       `TraceWriter`: writes a trace, which gets its name when it is complete
schema       columns of the tables, and `TraceMeta`, the description
description  the schema of ``trace.json``
kinds        `Kind`: read, written, executed, page table
arrow        Arrow's columns as numpy arrays, without pandas
parquet, parquet_pages
             Parquet files, with limits on their size in memory
selecting    columns and filters of rows; the parameters that several methods share
entries      files of entries: buffered and parallel writing, reading by round
snapshots    page tables at the ends of rounds
manifest     reading and writing ``trace.json``, with the checksums of all files
consistency  checks of tables against each other
audit        the full check behind `Trace.check`
summary      facts and phases as text, and the HTML that notebooks show for a trace
annotation   phases that are added to an existing trace; times by the names of phases
known        known answers: a workload's declarations, compared with its trace
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.trace.reader import Kind, Trace, TraceMeta, TraceWriter

__all__ = ["Kind", "Trace", "TraceMeta", "TraceWriter"]

__getattr__ = lazy("pmlkit.trace", dict.fromkeys(__all__, "trace.reader"))
