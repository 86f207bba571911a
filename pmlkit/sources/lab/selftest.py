# SPDX-License-Identifier: Apache-2.0
"""The self-test of a real host: a guest with known writes, as files for `xl`, and its check.

This module is separate because it needs neither the emulator nor a Xen that was built here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UnknownName, UsageError, output_error
from pmlkit.sources.lab import guests

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


__all__ = ["Check", "check", "write"]

_DATA_GFN = 4096  # lower frames are the kit's own
_CONFIG = """\
name = "{name}"
type = "pvh"
kernel = "{kernel}"
# free=1: the guest runs round after round, without waiting.
extra = "free=1"
memory = {memory_mib}
vcpus = {vcpus}
on_crash = "preserve"
"""


@dataclass(frozen=True)
class Check:
    """The frames in a trace, compared with the frames that a guest is known to write.

    Attributes
    ----------
    expected : int
        Frames that the guest writes in each round.
    rounds : int
        Number of complete rounds that were checked.
    exact : int
        Rounds whose log has exactly these frames of the data area.
    missing, foreign : int
        The largest number of frames that a round lacks, and has in excess.
    """

    expected: int
    rounds: int
    exact: int
    missing: int
    foreign: int

    @property
    def met(self) -> bool:
        """Whether each round is exact."""
        return self.exact == self.rounds > 0

    def __str__(self) -> str:
        result = (
            f"{self.expected:,} of {self.expected:,} pages in {self.exact} of {self.rounds} rounds"
        )
        if self.met:
            return f"met: {result}"
        return f"NOT met: {result}; up to {self.missing:,} missing, {self.foreign:,} too many"


def write(name: str, folder: PathLike) -> Path:
    """Write a guest of the kit and its configuration for `xl create`.

    Returns
    -------
    Path
        The configuration.

    Raises
    ------
    WorkloadError, UsageError, MissingTool, OutputError
    """
    guest = guests.load(name)
    if not guest.mailbox:
        raise UsageError(
            f"{name} is not made with the kit", "`pmlkit lab run --list` lists the suitable ones"
        )
    folder = Path(folder)
    kernel, config = (folder / f"{guest.name}{end}" for end in (".elf", ".cfg"))
    text = _CONFIG.format(
        name=guest.name, kernel=kernel.absolute(), memory_mib=guest.memory_mib, vcpus=guest.vcpus
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(guest.kernel, kernel)
        config.write_text(text)
    except OSError as error:
        raise output_error(folder, error) from error
    return config


def check(trace: Trace, name: str) -> Check:
    """Compare each round of a trace with the frames that a guest of the kit writes.

    The first round is omitted: the guest may have been in the middle of one of its own.

    Raises
    ------
    NeedsError
        If the trace has no PML log, or fewer than two rounds.
    UnknownName
        If there is no such guest.
    """
    log = trace.pml
    if log.n_rounds < 2:
        raise NeedsError(trace, "2 rounds or more", "collect for longer")
    known = guests.shipped()
    if name not in known:
        raise UnknownName("guest", name, known)
    written = [  # how a region is used may change from phase to phase: then it has no kind
        np.arange(r["gfn"], r["gfn"] + r["pages"])
        for r in known[name]["regions"]
        if r.get("kind") == "written" and r["gfn"] >= _DATA_GFN
    ]
    if not written:
        raise UsageError(f"{name} has no known written frames", "use `known`")
    expected = np.concatenate(written)
    entries = log.to_pandas()
    data = entries[(entries.gfn >= _DATA_GFN) & (entries["round"] > 0)]
    logged = {number: np.unique(part.gfn) for number, part in data.groupby("round")}
    matches = [logged.get(number, np.array([], int)) for number in range(1, log.n_rounds)]
    missing = [len(np.setdiff1d(expected, gfns)) for gfns in matches]
    foreign = [len(np.setdiff1d(gfns, expected)) for gfns in matches]
    exact = sum(not (less or more) for less, more in zip(missing, foreign, strict=True))
    return Check(len(expected), len(matches), exact, max(missing), max(foreign))
