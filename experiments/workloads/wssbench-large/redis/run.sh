#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Half of a large guest's memory are values: all of them, some or few are asked for.
. ./bench.sh
bench() { # NUMBER KEYS COMMAND
    redis-benchmark -q -n "$1" -r "$2" -c 10 -P 16 -d 1024 -t "$3" >/dev/null
}
while :; do
    draw 8
    case $drawn in
    0 | 1) phase all; bench 80000 500000 get ;;
    2 | 3) phase some; draw 6; bench 60000 $((drawn * 20000 + 20000)) get ;;
    4 | 5) phase few; bench 40000 500 get ;;
    6) phase write; draw 8; bench 40000 $((drawn * 60000 + 60000)) set ;;
    7) phase scan; redis-cli --scan --pattern 'key:0000001*' >/dev/null ;;
    esac
    rest
done
