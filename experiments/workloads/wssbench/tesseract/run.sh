#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A scanner's inbox: single pages, batches, and a look at the layout only.
. ./bench.sh
export OMP_THREAD_LIMIT=1 TESSDATA_PREFIX=/usr/share/tesseract-ocr/5/tessdata
page() { # LINES ARGUMENTS...
    lines=$1
    shift
    tesseract "/tmp/pages/p$lines.tif" /tmp/out "$@" >/dev/null 2>&1 || exit 1
}
some() { # COUNT: the number of lines of one of the first pages, in $lines
    draw "$1"
    lines=$(echo 1 2 3 4 5 6 8 10 | cut -d' ' -f$((drawn + 1)))
}
while :; do
    draw 6
    case $drawn in
    0 | 1 | 2) phase page; some 4; page $lines ;;
    3) phase column; some 6; page $lines --psm 4 hocr ;;
    4) phase batch; for i in 1 2; do some 3; page $lines --psm 6; done ;;
    5) phase layout; some 8; page $lines --psm 2 ;;
    esac
    rest
done
