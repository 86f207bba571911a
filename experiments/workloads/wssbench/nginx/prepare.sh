#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A site of 1600 pages of 2 to 40 KiB and 12 large files of 2 MiB.
. ./bench.sh
mkdir -p /tmp/site /var/log/nginx /var/lib/nginx
words 10000 >/tmp/text
i=0
while [ $i -lt 1600 ]; do
    draw 39
    size=$(((drawn + 2) * 1024))
    draw 2000
    tail -c +$((drawn * 150 + 1)) /tmp/text | head -c $size >/tmp/site/$i.html
    i=$((i + 1))
done
cat /tmp/text /tmp/text /tmp/text /tmp/text /tmp/text >/tmp/large
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do head -c 2097152 /tmp/large >/tmp/site/large$i; done
rm /tmp/large
nginx -c /work/nginx.conf
