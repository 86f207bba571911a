# SPDX-License-Identifier: Apache-2.0
"""Replace a recording by its PML log, without the accesses: a fraction of the bytes.

``python -m experiments.extract_log X.trace`` replaces the access trace X.trace by the log in it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import NeedsError
from pmlkit.trace.reader import Trace
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from pmlkit.types import PathLike

NOTE = "the PML log of a recording; its accesses, the ground truth, were left out"


def extract(trace: Trace, out: PathLike, overwrite: bool = False) -> Trace:
    """Write the PML log that is nested in an access trace as a separate trace.

    The trace keeps the guest's own view; its command is the recording's with this step added.
    """
    if not trace.pml_is_nested:
        raise NeedsError(trace, "nested PML log", "give an access trace, as `pmlkit record` writes")
    log = trace.pml
    recorded = trace.meta.provenance.get("command", "")
    command = f"{recorded} && python -m experiments.extract_log data/{Path(out).name}"
    provenance = {**log.meta.provenance, "command": command}
    meta = replace(log.meta, provenance=provenance, notes=[*log.meta.notes, NOTE])
    with TraceWriter(out, meta, overwrite=overwrite) as writer:
        for batch in log.iter_entries():
            columns = [batch[name].to_numpy() for name in ("round", "batch", "vcpu", "gfn", "kind")]
            writer.add_entries(*columns)
        writer.set_rounds(log.rounds)
        writer.set_batches(log.batches)
        writer.set_regions(log.regions)
        if trace.guest is not None:
            writer.set_guest(trace.guest)
    return Trace.open(out)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(extract(Trace.open(path), path, overwrite=True))
