#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-pthread OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
exec python3 run.py
