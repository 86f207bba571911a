# SPDX-License-Identifier: Apache-2.0
"""Traces to and from other tools: libCacheSim, damo, KVM and QEMU, lackey, Pin, vscsiStats, CSV.

Each format has its own module, even if it is small.

Modules
-------
formats          the table of formats; `load` and `export`
reading          foreign files: lines, records, errors with positions
requests         requests of any size split into pages
rounds           rows of a foreign file grouped into rounds and batches
columns, csv     text and Parquet with named columns
oracle, lcs      files of libCacheSim
vscsi            files of VMware's vscsiStats
kvm, kvm_log, tracedat
                 KVM's dirty-ring events, as text or as trace.dat
rates            dirty rates that QEMU and libvirt report
damo, damo_json, damo_snapshots, damo_text
                 DAMON's snapshots
lackey           valgrind's memory trace
pinatrace        the memory trace of Intel's Pin
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.interop.formats import FORMATS, Format, export, load
    from pmlkit.interop.reading import ForeignFileError, foreign
    from pmlkit.interop.rounds import Imported

__all__ = ["FORMATS", "ForeignFileError", "Format", "Imported", "export", "foreign", "load"]

_HOMES = {"ForeignFileError": "reading", "Imported": "rounds", "foreign": "reading"}

__getattr__ = lazy(
    "pmlkit.interop", {name: f"interop.{_HOMES.get(name, 'formats')}" for name in __all__}
)
