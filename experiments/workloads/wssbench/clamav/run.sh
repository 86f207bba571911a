#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A mail or file server's scanner: the daemon has its signatures in memory; files come in bursts.
. ./bench.sh
start() {
    phase start
    clamd -F -c clamd.conf >/tmp/clamd.log 2>&1 &
    until clamdscan -c clamd.conf --ping 1 >/dev/null 2>&1; do sleep 0.3; done
}
scan() { clamdscan -c clamd.conf --no-summary "$@" >/dev/null; }
start
files=$(ls /tmp/files | wc -l)
while :; do
    draw 8
    case $drawn in
    0 | 1 | 2)
        phase few
        for i in 1 2 3; do draw "$files"; scan "/tmp/files/$(ls /tmp/files | sed -n $((drawn + 1))p)"; done
        ;;
    3 | 4) phase many; draw 4; scan /tmp/files/lib[$(echo abcd | cut -c$((drawn + 1)))-m]* ;;
    5) phase archive; draw 4; scan /tmp/files/archive$((drawn + 1)).gz ;;
    6) phase once; clamscan -d /tmp/signatures/made.ndb --no-summary /tmp/files/text* >/dev/null ;;
    7) killall -9 clamd; rm -f /tmp/clamd.socket; start; scan /tmp/files/text1 ;;
    esac
    rest
done
