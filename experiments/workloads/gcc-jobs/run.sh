#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A build machine: commits come in at irregular times, each has a few of the stb libraries compiled
# at some level of optimisation and linked; between them it waits.
set -e
cd /tmp
draw() { # LIMIT: a number from 0 to below it, in $drawn; the same ones each time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}
unit() { # NUMBER: write that unit's C file
    set -- $(sed -n "$1p" /work/units)
    { [ "$1" = none ] || echo "#define $1"; echo "#include <stdlib.h>"; echo "#include <stb/$2>"; } >"$3.c"
    name=$3
}
units=$(wc -l </work/units)
jobs=0
until [ "$(cut -d. -f1 /proc/uptime)" -ge "$until_s" ]; do
    draw 3; count=$((drawn + 1))
    draw 4; level=$drawn
    [ $level -lt 3 ] || level=1
    objects=
    for i in $(seq $count); do
        draw "$units"; unit $((drawn + 1))
        pmlguest phase "compile"
        gcc-12 "-O$level" -w -c "$name.c" -o "$name.o"
        objects="$objects $name.o"
    done
    pmlguest phase link
    gcc-12 -shared -nostdlib -o job.so $(echo $objects | tr ' ' '\n' | sort -u) || true
    rm -f ./*.o ./*.c job.so
    jobs=$((jobs + 1))
    draw 80; pause=$((drawn * drawn / 90 + 5)) # tenths of a second
    pmlguest phase pause
    sleep $((pause / 10)).$((pause % 10))
done
pmlguest phase done
echo "gcc-jobs: $jobs jobs"
