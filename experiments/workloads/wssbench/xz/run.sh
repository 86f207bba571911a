#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files are packed at one preset or another; what was packed is tested and unpacked.
. ./bench.sh
cd /tmp
part() { # KIB: of the files or of the text, from a draw on
    draw 4
    from=files.tar
    [ $drawn != 0 ] || from=text
    draw 1500000
    tail -c +$drawn $from | head -c $(($1 << 10)) >part
}
pack() { /usr/bin/xz -T 1 -k -f "$@" part; }
part 1500
pack -1
while :; do
    draw 8
    case $drawn in
    0 | 1) phase fast; part 1500; pack -1 ;;
    2) phase normal; part 700; pack -4 ;;
    3) phase strong; part 500; pack -7 ;;
    4) phase lzma; part 500; pack --format=lzma -2 ;;
    5 | 6) phase unpack; for i in 1 2 3; do /usr/bin/xz -dc part.xz >/dev/null; done ;;
    7) phase test; /usr/bin/xz -t part.xz; /usr/bin/xz --list part.xz >/dev/null ;;
    esac
    rest
done
