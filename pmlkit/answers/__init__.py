# SPDX-License-Identifier: Apache-2.0
"""Answers: what a measure of a trace says, in a few numbers and a sentence.

The commands print an answer first, then their table. An answer says which T, which unit and what
kind of source its numbers are of: a log of writes is not the working set of all accesses.

Modules
-------
wss        the working set at one T
mrc        the memory for a miss ratio, of a whole recording and of each window
estimates  the working set with its reads
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.answers.estimates import Reads, closest_method, reads
    from pmlkit.answers.mrc import MissRatio, MissRatios, miss_ratio, miss_ratios
    from pmlkit.answers.wss import WorkingSet, working_set

_HOMES = {
    "MissRatio": "answers.mrc",
    "MissRatios": "answers.mrc",
    "Reads": "answers.estimates",
    "WorkingSet": "answers.wss",
    "closest_method": "answers.estimates",
    "miss_ratio": "answers.mrc",
    "miss_ratios": "answers.mrc",
    "reads": "answers.estimates",
    "working_set": "answers.wss",
}

__all__ = [
    "MissRatio",
    "MissRatios",
    "Reads",
    "WorkingSet",
    "closest_method",
    "miss_ratio",
    "miss_ratios",
    "reads",
    "working_set",
]

__getattr__ = lazy("pmlkit.answers", _HOMES)
