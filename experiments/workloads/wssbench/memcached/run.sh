#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A cache of 64 MiB in front of something slow: hot keys, all keys, new values, large values.
. ./bench.sh
memcached -u root -l 127.0.0.1 -p 11211 -m 64 -t 2 &
sleep 0.5
client() { draw 30000; ./client "$drawn" "$@" || exit 1; }
phase fill
client set 20000 20000 900
while :; do
    draw 9
    case $drawn in
    0 | 1 | 2) phase hot; client get 40000 400 0 ;;
    3 | 4) phase all; draw 6; client get 30000 $((drawn * 10000 + 10000)) 0 ;;
    5) phase fill; draw 6; client set 15000 $((drawn * 10000 + 10000)) 900 ;;
    6) phase mixed; client mix 25000 30000 900 ;;
    7) phase large; client set 400 600 40000; client get 800 600 0 ;;
    8) phase flush; printf 'flush_all\r\nquit\r\n' | nc 127.0.0.1 11211 >/dev/null; client set 4000 8000 900 ;;
    esac
    rest
done
