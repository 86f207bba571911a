#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 4000 pages of 64 KiB, and 40 files of 8 MiB.
. ./bench.sh
mount -o remount,size=90% /tmp 2>/dev/null || true
mkdir -p /tmp/site /var/log/nginx /var/lib/nginx
words 4000 >/tmp/text
while [ "$(wc -c </tmp/text)" -lt 8388608 ]; do
    cat /tmp/text /tmp/text >/tmp/more
    mv /tmp/more /tmp/text
done
i=0
while [ $i -lt 4000 ]; do
    dd if=/tmp/text of=/tmp/site/$i.html bs=65536 skip=$((i % 120)) count=1 2>/dev/null
    i=$((i + 1))
done
for i in $(seq 0 39); do head -c 8388608 /tmp/text >/tmp/site/large$i; done
nginx -c /work/nginx.conf
