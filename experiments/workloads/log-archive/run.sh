#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A log server: lines come in, are searched and counted, and each full file is sorted and packed by
# xz; how fast they come follows a wave.
set -e
cd /tmp
draw() { # LIMIT: a number from 0 to below it, in $drawn; the same ones each time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}
lines() { # NUMBER
    awk -v n="$1" -v s="$seed" 'BEGIN { for (i = 0; i < n; i++) { s = (s * 16807) % 2147483647
        printf "%010d host%03d service%02d request %d took %d ms\n", s, s % 300, s % 23, i, s % 977 } }' >>log
}
: >log
step=0
until [ "$(cut -d. -f1 /proc/uptime)" -ge "$until_s" ]; do
    step=$((step + 1))
    wave=$((step % 24))
    [ $wave -lt 12 ] || wave=$((24 - wave))
    draw 400
    pmlguest phase append
    lines $((wave * rate + drawn))
    draw 4
    if [ $drawn = 0 ]; then
        pmlguest phase search
        grep -c "service$(printf %02d $((step % 23)))" log || true
        awk '{ n[$2]++ } END { for (h in n) print n[h], h }' log | sort -rn | head -n 3
    fi >/dev/null
    if [ "$(wc -c <log)" -gt $((full_kib * 1024)) ]; then
        pmlguest phase sort
        sort log >sorted
        pmlguest phase pack
        /usr/bin/xz -T 1 "-$preset" -f sorted
        draw 3
        if [ $drawn = 0 ]; then
            pmlguest phase check
            /usr/bin/xz -dc sorted.xz | cmp - log || true
        fi >/dev/null
        : >log
    fi
    draw 50; pause=$((drawn * drawn / 100 + 2)) # tenths of a second
    if [ $pause -ge 10 ]; then pmlguest phase pause; fi
    sleep $((pause / 10)).$((pause % 10))
done
pmlguest phase done
echo "log-archive: $step steps"
