# SPDX-License-Identifier: Apache-2.0
"""The synthetic experiment of Bitchebe et al. (arXiv 2001.09991, VEE'21): published and reproduced.

A buffer of 400 MB is read and written in phases (rrww, rwrw, wwrr). PML and PRL count the distinct
pages logged since the start, and VMware's sampling runs at the same time. The published numbers
come from the authors' raw results; if only a range was published, it stays a range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError
from pmlkit.recordings import open_trace
from pmlkit.techniques.recorded import Recorded, Uses
from pmlkit.techniques.runs import run
from pmlkit.techniques.vmware import Vmware
from pmlkit.trace.schema import MIB_PAGES
from pmlkit.units import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.techniques.protocol import Technique
    from pmlkit.types import Bools, Floats, Ints, PathLike


__all__ = ["CAPTION", "DEVIATIONS", "PUBLISHED", "deviations", "reproduce"]

BUFFER_MB = 400
SAMPLES = 4  # per phase
SEEDS = 20
CAPTION = (
    "Bitchebe et al. (VEE'21), published and here, in MB. The rows of a fitted VM reproduce "
    "nothing: its size was chosen to give the published error"
)
BIG_VM_PAGES = 3 << 18
PUBLISHED = {
    ("rrww", "PML", "read phases"): "8.2",
    ("rrww", "PML", "first write phase"): "308, then 408-410",
    ("rrww", "PML", "second write phase"): "408-410",
    ("rrww", "PRL", "all phases"): "401-410",
    ("rrww", "VMware", "all phases"): "184-492",
    ("rrww", "VMware", "MAPE %"): "20-22",
    ("rrww", "VMware", "all phases, single periods, VM fitted: 3 GiB"): "184-492",
    ("rrww", "VMware", "MAPE %, single periods, VM fitted: 3 GiB"): "20-22",
    ("rwrw", "PML", "from the first write on"): "403-411",
    ("wwrr", "PML", "from the first write on"): "403-411",
}
DEVIATIONS = (
    "In the read phases, PML sees only the guest's own kernel. The recorded guest is idle except "
    "for the benchmark, and has no network and no disk. So it writes less than the published VM in "
    "the read phases, and less beyond the 400 MB in the others.",
    "The published 308 is a sample in the middle of the first pass of writes. Here a pass takes "
    "less than the time between samples (four per phase), so no sample falls into one.",
    "Counts are distinct pages since the first phase began, as published; the buffer's set-up, "
    "which writes all of it, is left out.",
    "VMware's error depends on the share p of the VM's memory that is touched. The standard error "
    "of one period is sqrt((1 - p) / (p n)), with n = 100. In the recorded VM of 1 GiB, p is 39 %, "
    "so the mean error of one period is 10 %. An average has less. The size of the "
    "published VM is not known. Single periods, without averages, have an error of 20-22 % at "
    "p = 13 %, which is a VM of about 3 GiB. The rows for 3 GiB sample a memory of that size, each "
    "period by itself. Their size is fitted to the published error, so they do not reproduce it.",
    "The weights of VMware's averages are not published; ours are those of "
    "pmlkit.techniques.vmware.Vmware.",
)


def reproduce(
    paths: Sequence[PathLike], seeds: int = SEEDS, others: str = "refuse"
) -> pd.DataFrame:
    """Run PML, PRL and VMware on recordings of rrww, rwrw and wwrr as published.

    Parameters
    ----------
    seeds : int
        Number of runs of VMware's sampling.
    others : {"refuse", "skip"}
        Treatment of a recording of another workload.

    Returns
    -------
    DataFrame
        ``workload``, ``technique``, ``where``, ``published`` and ``ours`` (text, MB of 2**20
        bytes), in the order of `PUBLISHED`.

    Raises
    ------
    UsageError
        If a recording is of another workload.
    """
    measured: dict[tuple[str, str, str], str] = {}
    for path in paths:
        trace = open_trace(path)
        name = trace.meta.domain["name"]
        known = name in {workload for workload, _, _ in PUBLISHED}
        if not known and others == "skip":
            continue
        if not known:
            raise UsageError(f"{path} is of {name}: the published experiment has rrww, rwrw, wwrr")
        measured |= _measure(name, Recorded.of(trace), seeds)
    rows = [
        (*key, published, measured[key]) for key, published in PUBLISHED.items() if key in measured
    ]
    table = pd.DataFrame(rows, columns=["workload", "technique", "where", "published", "ours"])
    return described(table, {"published": "MB or %", "ours": "MB or %"})


@dataclass(frozen=True)
class _Samples:
    """Values in MB at the samples, and the index of the phase of each."""

    phase: Ints
    mb: Floats

    def text(self, mask: Bools) -> str:
        values = self.mb[mask]
        low, high = values.min(), values.max()
        return f"{low:.3g}" if high - low < 0.5 else f"{low:.3g}-{high:.3g}"


def _measure(name: str, recorded: Recorded, seeds: int) -> dict[tuple[str, str, str], str]:
    """Return the values of the column ``ours``, by the keys of `PUBLISHED`."""
    busy, ends, period_ns = _four_phases(recorded)
    phase = np.repeat(np.arange(len(ends) // SAMPLES), SAMPLES)
    pml = _Samples(phase, _distinct(busy.log, ends))
    prl = _Samples(phase, _distinct(busy.accesses, ends))
    ours = {(name, "PRL", "all phases"): prl.text(np.arange(len(ends)) >= SAMPLES - 1)}
    writes = np.array([letter == "w" for letter in name])
    first = int(np.argmax(writes))
    if name == "rrww":
        late = pml.mb[phase == 2]
        ours[name, "PML", "read phases"] = pml.text(phase < 2)
        ours[name, "PML", "first write phase"] = ", ".join(f"{mb:.3g}" for mb in late)
        ours[name, "PML", "second write phase"] = pml.text(phase == 3)
    after = np.arange(len(ends)) >= first * SAMPLES + SAMPLES - 1
    ours[name, "PML", "from the first write on"] = pml.text(after)
    single = Vmware(looks=1, slow=1, fast=1)
    big = replace(busy, memory_pages=BIG_VM_PAGES)
    for label, vm, technique in (
        ("", busy, Vmware(looks=1)),
        (", single periods, VM fitted: 3 GiB", big, single),
    ):
        size, error = _vmware(technique, vm, period_ns, seeds)
        ours[name, "VMware", f"all phases{label}"] = size
        ours[name, "VMware", f"MAPE %{label}"] = error
    return ours


def _vmware(technique: Technique, vm: Recorded, period_ns: int, seeds: int) -> tuple[str, str]:
    """Return the range of the estimates and their error, as text."""
    runs = [run(technique, vm, window=period_ns, scale=1, seed=seed) for seed in range(seeds)]
    mb = np.array(
        [one.estimates["pages"].to_numpy()[: 4 * SAMPLES - 1] / MIB_PAGES for one in runs]
    )
    error = np.abs(mb - BUFFER_MB).mean(axis=1) / BUFFER_MB * 100
    low, high = mb.min(axis=1).mean(), mb.max(axis=1).mean()
    return f"{low:.3g}-{high:.3g}", f"{error.mean():.3g} +- {error.std(ddof=1):.2g}"


def deviations() -> pd.DataFrame:
    """Return the reasons for different numbers than published: a table of sentences."""
    return pd.DataFrame({"why": DEVIATIONS})


def _four_phases(recorded: Recorded) -> tuple[Recorded, Ints, int]:
    """Cut out the four phases; return them, the rounds at which samples end, and the period, ns."""
    starts = [first for name, first in recorded.phases if name != "start"]
    if len(starts) != 5:
        raise UsageError(f"{recorded.name} lacks the four phases of the published experiment")
    edges = [
        np.linspace(low, high, SAMPLES + 1)[1:].round().astype(int)
        for low, high in zip(starts, starts[1:], strict=False)
    ]
    ends = np.concatenate(edges) - starts[0]
    first, stop = starts[0], starts[-1]
    busy = replace(recorded.cut(first, stop), phases=())
    return busy, ends, busy.duration_ns // len(ends)


def _distinct(uses: Uses, ends: Ints) -> Floats:
    return np.array([len(np.unique(uses.between(0, end))) for end in ends]) / MIB_PAGES
