# SPDX-License-Identifier: Apache-2.0
"""The compiled loop of an import: rows in order of time become rounds (see `pmlkit.imported`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels import compiled

if TYPE_CHECKING:
    from pmlkit.types import Array

KEEP, SPLIT, SPLIT_ANY, MERGE = range(4)
# What `state` holds.
ROUND, START, END, CUTS, MERGED, EMITTED = range(6)


@compiled
def cut_rounds(
    starts: Array,
    ends: Array,
    ids: Array,
    kinds: Array,
    how: int,
    last_round: Array,
    last_kinds: Array,
    state: Array,
    numbers: Array,
    spans: Array,
) -> int:
    """Number the rounds of rows; return the first row that is out of order, or how many they are.

    `numbers` gets each row's round, or -1 for a row that is merged into an earlier one; `spans`
    the start and end of each new round, ``state[EMITTED]`` of them: at most two a row.
    `last_round` and `last_kinds` say of each page in which round it was seen last, and how.
    """
    emitted = 0
    for i in range(len(ids)):
        page, kind = ids[i], kinds[i]
        if state[ROUND] < 0 or starts[i] != state[START] or ends[i] != state[END]:
            if ends[i] < starts[i] or (state[ROUND] >= 0 and starts[i] < state[END]):
                state[EMITTED] = emitted
                return i
            if state[ROUND] >= 0 and starts[i] > state[END]:  # nothing was used in between
                spans[emitted, 0], spans[emitted, 1] = state[END], starts[i]
                emitted += 1
                state[ROUND] += 1
            spans[emitted, 0], spans[emitted, 1] = starts[i], ends[i]
            emitted += 1
            state[ROUND] += 1
            state[START], state[END] = starts[i], ends[i]
        elif (
            how != KEEP
            and last_round[page] == state[ROUND]
            and (how == SPLIT_ANY or last_kinds[page] & kind)
        ):
            if how == MERGE:
                state[MERGED] += 1
                numbers[i] = -1
                continue
            spans[emitted, 0], spans[emitted, 1] = ends[i], ends[i]
            emitted += 1
            state[ROUND] += 1
            state[CUTS] += 1
        if last_round[page] != state[ROUND]:
            last_round[page], last_kinds[page] = state[ROUND], 0
        last_kinds[page] |= kind
        numbers[i] = state[ROUND]
    state[EMITTED] = emitted
    return len(ids)


@compiled
def next_accesses(ids: Array, first: int, coming: Array, found: Array) -> None:
    """Say of each use which use of its page comes next, -1 for none; uses are taken from the end.

    `first` is the number of the first of `ids`; `coming` holds each page's next use.
    """
    for i in range(len(ids) - 1, -1, -1):
        found[i] = coming[ids[i]]
        coming[ids[i]] = first + i
