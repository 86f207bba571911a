#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# xz on real data: the guest's own programs and libraries, as a tar.
set -e
pmlguest phase collect
tar -cf - /usr 2>/dev/null | dd of=/tmp/data.tar bs=1024 count="$kib" iflag=fullblock 2>/dev/null
pmlguest phase compress
/usr/bin/xz -T 1 -k "-$preset" /tmp/data.tar
ls -l /tmp/data.tar /tmp/data.tar.xz
pmlguest phase decompress
i=0
while [ $i -lt "$times" ]; do
    /usr/bin/xz -dc /tmp/data.tar.xz | cmp - /tmp/data.tar
    i=$((i + 1))
done
pmlguest phase done
