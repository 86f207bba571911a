#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# OpenBLAS takes the emulated processor for one with instructions that it lacks: the plain BLAS.
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack OMP_NUM_THREADS=1
exec python3 run.py
