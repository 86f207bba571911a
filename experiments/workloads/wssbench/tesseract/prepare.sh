#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pages of a few lines, drawn by tesseract's own text2image.
. ./bench.sh
mkdir -p /tmp/pages /tmp/fontconfig
export FONTCONFIG_PATH=/etc/fonts XDG_CACHE_HOME=/tmp/fontconfig
for lines in 1 2 3 4 5 6 8 10; do
    words $lines >/tmp/text.txt
    draw 100
    text2image --text=/tmp/text.txt --outputbase=/tmp/pages/p$lines --font='DejaVu Sans' \
        --fonts_dir=/usr/share/fonts/truetype/dejavu --fontconfig_tmpdir=/tmp/fontconfig \
        --xsize=640 --ysize=480 --resolution=150 --ptsize=10 --degrade_image=false >/tmp/drawn 2>&1 ||
        { tail -n 3 /tmp/drawn; exit 1; }
done
ls -l /tmp/pages/*.tif
