#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A large site in memory: few pages are asked for often, at times a part of all, or large files.
. ./bench.sh
get() { ab -q -k -n "$1" -c "$2" "http://127.0.0.1/$3" >/dev/null 2>&1; }
while :; do
    draw 7
    case $drawn in
    0 | 1) phase hot; for i in 1 2 3 4; do draw 60; get 150 2 $drawn.html; done ;;
    2 | 3)
        phase site
        draw 4000
        for i in $(seq 120); do get 2 1 $(((drawn + i * 29) % 4000)).html; done
        ;;
    4 | 5) phase download; for i in 1 2 3 4 5 6; do draw 40; get 1 1 large$drawn; done ;;
    6) phase sum; draw 40; for i in $(seq 0 9); do crc32 /tmp/site/large$(((drawn + i) % 40)) >/dev/null; done ;;
    esac
    rest
done
