# SPDX-License-Identifier: Apache-2.0
"""Compiled loops and the classes around them: arrays in, arrays out, no trace and no file.

Modules
-------
loops    numba loops over entries in log order
by_page  W(t, T) and re-use of entries sorted by page
by_time  W(t, T) and re-use of entries in the order of the log, in bounded memory
pages    numbers for sparse page addresses
lru      LRU stack distances
sample   selection of pages by hash (SHARDS)
pml      the log that a PML buffer would hold of a sequence of accesses
"""
