#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A mirror is kept of a tree in which little or much has changed.
. ./bench.sh
cd /tmp
sync() { rsync -a --delete "$@" tree/ mirror/ || exit 1; }
phase first
sync
while :; do
    phase change
    draw 60
    for i in $(seq $((drawn + 1))); do
        draw 1000
        words 20 >tree/texts/t$(printf %04d $drawn)
    done
    draw 8
    case $drawn in
    0 | 1 | 2) phase quick; sync ;;
    3) phase checksum; sync --checksum ;;
    4 | 5)
        phase delta
        draw 1000000
        { head -c $drawn /usr/bin/busybox; words 5; tail -c +$drawn /usr/bin/busybox; } >tree/usr/bin/busybox
        sync --no-whole-file
        ;;
    6) phase packed; draw 50; rsync -a --no-whole-file --compress tree/texts/ packed/; touch tree/texts/t0$drawn* ;;
    7) phase first; rm -rf mirror; sync ;;
    esac
    rest
done
