#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the programs of WSS-Bench share: each runs `sh bench.sh SCRIPT` or sources this file.
#
# SCRIPT repeats its phases without end, and is ended after $seconds of the guest's time. Sizes and
# pauses are drawn from $seed, so two runs are the same.

phase() { pmlguest phase "$1"; }

draw() { # LIMIT: a number from 0 to below it, in $drawn; the same ones each time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}

rest() { # an idle phase: mostly short, sometimes some seconds
    draw 70
    drawn=$((drawn * drawn / 110 + 3)) # tenths of a second
    phase idle
    sleep $((drawn / 10)).$((drawn % 10))
}

words() { # NUMBER: lines of made-up English, the same ones for the same $seed
    awk -v n="$1" -v s="$seed" '
        function draw(limit) { s = (s * 16807) % 2147483647; return s % limit }
        BEGIN {
            split("the page of a working set is read and written when some guest runs its work load " \
                "in time while memory grows or falls by frame window host table cache disk log " \
                "system number of users request answer every long short first last", word, " ")
            for (i = 0; i < n; i++) {
                line = i
                for (j = draw(9) + 4; j; j--)
                    line = line " " (draw(5) ? word[draw(48) + 1] : sprintf("%x", draw(65536)))
                print line
            }
        }'
}

pieces() { # FILE LINES PREFIX: split FILE; busybox has no split
    awk -v n="$2" -v p="$3" 'NR % n == 1 { close(f); f = sprintf("%s%04d", p, NR / n) } { print >f }' "$1"
}

if [ $# -gt 0 ]; then
    since=$(cut -d. -f1 /proc/uptime)
    timeout -s KILL "$seconds" sh "$1"
    status=$?
    if [ $(($(cut -d. -f1 /proc/uptime) - since)) -lt "$seconds" ]; then
        echo "$1 ended by itself, status $status"
        exit 1
    fi
    phase done
fi
