#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A web server's day: few pages are asked for often, at times all of the site, or large files.
. ./bench.sh
get() { ab -q -k -n "$1" -c "$2" "http://127.0.0.1/$3" >/dev/null 2>&1; }
each() { # COUNT REQUESTS PREFIX: pages that follow each other, from a draw on
    draw 1600
    i=0
    while [ $i -lt "$1" ]; do
        get "$2" 2 "$3$(((drawn + i * 7) % 1600)).html"
        i=$((i + 1))
    done
}
while :; do
    draw 9
    case $drawn in
    0 | 1 | 2) phase hot; each 6 300 '' ;;
    3 | 4) phase site; each 120 4 '' ;;
    5) phase large; for i in 1 2 3 4 5 6; do draw 12; get 3 2 large$((drawn + 1)); done ;;
    6) phase burst; draw 1600; get 1500 60 $drawn.html ;;
    7) phase packed; each 12 10 packed/ ;;
    8) phase rotate; grep -c html /tmp/access.log >/dev/null; : >/tmp/access.log; kill -USR1 "$(cat /tmp/nginx.pid)" ;;
    esac
    rest
done
