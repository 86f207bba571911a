# SPDX-License-Identifier: Apache-2.0
"""How many entries each round has, or each batch: counted as they pass, in order."""

from __future__ import annotations

import numpy as np


class Tally:
    """Counts of values that never fall: 12 bytes for each run of them, and no Python objects.

    Attributes
    ----------
    last : int
        The highest value so far; -1 before the first.
    """

    def __init__(self) -> None:
        self.last = -1
        self._values: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Count values: integers, shape (n,), that do not fall and are none below `last`."""
        if not len(values):
            return
        opens = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
        self._values.append(values[opens])
        self._lengths.append(np.diff(opens, append=len(values)))
        self.last = int(values[-1])

    def extend(self, other: Tally) -> None:
        """Count what another one has counted."""
        self._values += other._values
        self._lengths += other._lengths
        self.last = max(self.last, other.last)

    def counts(self, length: int) -> np.ndarray:
        """Return how often each of 0 to `length` - 1 occurred: int64, shape (length,)."""
        found = np.zeros(length, np.int64)
        for values, lengths in zip(self._values, self._lengths, strict=True):
            known = values < length
            found[values[known]] += lengths[known]  # each value once in a piece: they never fall
        return found
