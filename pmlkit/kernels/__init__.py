# SPDX-License-Identifier: Apache-2.0
"""Compiled loops and the classes around them: arrays in, arrays out, without traces or files.

Importing numba takes long. Modules of compiled loops are therefore imported inside the functions
that need them.

Modules
-------
by_page  W(t, T) and re-use of entries sorted by page
by_time  W(t, T) and re-use of entries in the order of the log, in bounded memory
pages    numbers for sparse page addresses
drains   compiled loops over KVM's events in order of time: drains and rounds
pml      the log that a PML buffer would contain for a sequence of accesses
ringpages  the compiled loop over pages of an ftrace ring buffer
frames   compiled loops over frames: numbers in order of first use, distinct frames of windows
loops    compiled loops over numbered pages, in log order or sorted by page
lru      compiled loops of miss-ratio curves: LRU stack, samples, times between uses
jit      the compiler, and instructions that numba does not offer
"""
