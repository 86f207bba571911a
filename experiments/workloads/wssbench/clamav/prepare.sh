#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Signatures: MD5 sums with sizes, and patterns of bytes. Files: the guest's own, some as archives.
. ./bench.sh
mkdir -p /tmp/signatures /tmp/files
awk -v n="$signatures" -v s="$seed" '
    function hex() { s = (s * 16807) % 2147483647; return sprintf("%08x", s * 2) }
    BEGIN {
        for (i = 0; i < n; i++)
            print hex() hex() hex() hex() ":" s % 90000 + 100 ":Made.Hash-" i >"/tmp/signatures/made.hdb"
        for (i = 0; i < n / 5; i++)
            print "Made.Bytes-" i ":0:*:" hex() hex() hex() hex() >"/tmp/signatures/made.ndb"
    }'
cp -r /usr/bin/busybox /usr/lib/x86_64-linux-gnu/lib[a-m]*.so* /tmp/files
rm -f /tmp/files/libicu*
rm -f /tmp/files/libclamav* /tmp/files/libfreshclam*
for i in 1 2 3 4; do
    draw 100
    words 3000 >/tmp/files/text$i
    tar -cf - /tmp/files/lib[a-c]* /tmp/files/text$i 2>/dev/null | head -c 4000000 | gzip -1 >/tmp/files/archive$i.gz
done
