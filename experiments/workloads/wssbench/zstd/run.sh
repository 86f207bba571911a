#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Archives are packed at one level or another, and unpacked; small files go by a dictionary.
. ./bench.sh
cd /tmp
zstd -q --train small/* -o dictionary --maxdict 65536 || exit 1
zstd -q -f -3 files.tar -o packed.zst
pack() { # LEVEL...: of a draw of files.tar or text, from its head
    draw 6
    size=$(((drawn + 1) * 3))
    draw 3
    [ $drawn = 0 ] && from=text || from=files.tar
    head -c $((size << 20)) $from >part
    zstd -q -f "$@" part -o part.zst
}
while :; do
    draw 8
    case $drawn in
    0 | 1) phase fast; pack -1 ;;
    2) phase normal; pack -3; pack -6 ;;
    3) phase strong; head -c 3000000 files.tar >part; zstd -q -f -15 part -o part.zst ;;
    4) phase long; pack -5 --long=24 ;;
    5) phase unpack; zstd -q -dc packed.zst >/dev/null; zstd -q -dc --memory=128MB part.zst >/dev/null ;;
    6) phase small; zstd -q -f -D dictionary small/0* ;;
    7) phase train; zstd -q -f --train small/1* -o dictionary2 --maxdict 32768 ;;
    esac
    rest
done
