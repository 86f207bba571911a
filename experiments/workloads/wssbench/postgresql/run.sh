#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A database of accounts: transactions and reads by one client or several, reports, bulk changes.
. ./bench.sh
as() { ./as "$@" >/dev/null 2>&1 || exit 1; }
bench() { draw 10000; as pgbench -n --random-seed=$drawn "$@"; }
sql() { as psql -q -c "$1"; }
while :; do
    draw 10
    case $drawn in
    0 | 1 | 2) phase write; bench -N -t 150 ;;
    3 | 4) phase read; bench -S -t 600 ;;
    5) phase clients; bench -c 6 -t 40 ;;
    6)
        phase report
        sql 'SELECT bid, count(*), avg(abalance), max(aid) FROM pgbench_accounts GROUP BY bid, aid % 50'
        ;;
    7) phase bulk; draw 8; sql "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 40 = $drawn" ;;
    8) phase vacuum; sql 'VACUUM pgbench_accounts' ;;
    9) phase checkpoint; sql 'CHECKPOINT'; sql 'SELECT count(*) FROM pgbench_accounts a JOIN pgbench_tellers t USING (bid)' ;;
    esac
    rest
done
