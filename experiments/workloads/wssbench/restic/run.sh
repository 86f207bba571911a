#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A tree of files changes a little or a lot, and is backed up; now and then files are restored.
. ./bench.sh
export RESTIC_REPOSITORY=/tmp/repository RESTIC_PASSWORD=secret XDG_CACHE_HOME=/tmp/cache TMPDIR=/tmp
r() { restic -q "$@" >/dev/null || exit 1; }
cd /tmp
phase init
r init
phase backup
r backup tree
while :; do
    phase change
    draw 30
    for i in $(seq $((drawn + 1))); do
        draw 200
        name=$(ls tree | sed -n $((drawn + 1))p)
        words 100 >"tree/$name"
    done
    draw 7
    case $drawn in
    0 | 1 | 2) phase backup; r backup tree ;;
    3) phase restore; rm -rf back; r restore latest --target back ;;
    4) phase check; r check ;;
    5) phase find; r find 'text-01*'; r ls latest ;;
    6) phase forget; r forget --keep-last 2 --prune ;;
    esac
    rest
done
