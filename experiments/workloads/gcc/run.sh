#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gcc compiles the stb libraries, one stage after the other, and runs what came out.
set -e
cd /tmp
pmlguest phase preprocess
gcc-12 -E /work/picture.c -o picture.i
wc -l picture.i
pmlguest phase compile
gcc-12 "-O$level" -S picture.i -o picture.s
pmlguest phase assemble
gcc-12 -c picture.s -o picture.o
pmlguest phase link
gcc-12 picture.o -o picture -lm
pmlguest phase run
./picture
pmlguest phase done
