# SPDX-License-Identifier: Apache-2.0
"""Reads, which PML does not log, estimated from page tables, samples and harvested flags.

Modules
-------
methods      `estimate`: one working set per method
page_sets    the sets of pages that the methods combine
sampled      estimates from the density of use in a sample of frames
draws        the frames of a sample that are examined in each round
redrawn      windows from a sample with a new draw in each round
aging        the host's count of touched pages, combined with a log that names them
calibration  parameters for the kernel's part and for intervals, fitted to other guests
guided       a harvest guided by the log
judge        errors of the methods against a full harvest
mechanism    why the log does not identify reads
hotness      regions ranked by how often their page tables are logged
"""

from typing import TYPE_CHECKING

from pmlkit.errors import names_its_function
from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.reads.methods import METHODS, Sets, estimate, sets
    from pmlkit.reads.page_sets import truth

__all__ = ["METHODS", "Sets", "estimate", "sets", "truth"]

__getattr__ = lazy("pmlkit.reads", dict.fromkeys(__all__, "reads.methods"))
names_its_function("pmlkit.reads", "pmlkit.reads.estimate")
