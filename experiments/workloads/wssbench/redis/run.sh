#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The number of keys in use walks up and down; writes, reads, hot keys and queues follow each other.
. ./bench.sh
until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done

bench() { # NUMBER KEYS COMMANDS: with values of 1 KiB
    redis-benchmark -q -n "$1" -r "$2" -c 10 -P 16 -d 1024 -t "$3" >/dev/null
}

level=4
while :; do
    draw 7
    level=$((level + drawn - 3))
    [ $level -ge 1 ] || level=1
    [ $level -le 12 ] || level=12
    keys=$((level * 4000))
    draw 10
    case $drawn in
    0 | 1 | 2) phase write; bench $((keys * 2)) $keys set ;;
    3 | 4) phase read; bench $((keys * 2)) $keys get ;;
    5 | 6) phase hot; bench 25000 300 get ;;
    7) phase mixed; bench $keys $keys set,get,incr ;;
    8) phase queue; bench $keys $keys lpush,lpop ;;
    9) phase flush; redis-cli flushall >/dev/null ;;
    esac
    rest
done
