# SPDX-License-Identifier: Apache-2.0
"""Stack distances by a tree over the uses (Bennett and Kruskal 1975): an oracle, O(uses) memory."""

import numpy as np

from pmlkit.kernels.jit import compiled
from pmlkit.kernels.pages import PageIndex


def distances(gfns):
    """Return the stack distance of every use; -1 for a page's first."""
    index = PageIndex()
    ids = index.ids(np.asarray(gfns, np.uint64))
    last, tree = np.full(len(index), -1, np.int64), np.zeros(len(ids) + 1, np.int64)
    out = np.empty(len(ids), np.int64)
    _walk(ids, last, tree, out)
    return out


@compiled
def _walk(ids, last, tree, out):
    for i in range(len(ids)):
        before = last[ids[i]]
        out[i] = -1
        if before >= 0:
            inside = 0
            j = i
            while j > 0:
                inside += tree[j]
                j &= j - 1
            j = before + 1
            while j > 0:
                inside -= tree[j]
                j &= j - 1
            out[i] = inside
            j = before + 1
            while j < len(tree):
                tree[j] -= 1
                j += j & -j
        j = i + 1
        while j < len(tree):
            tree[j] += 1
            j += j & -j
        last[ids[i]] = i
