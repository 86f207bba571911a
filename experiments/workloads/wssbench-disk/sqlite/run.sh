#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A store of documents that is larger than the memory: some are looked up, at times all are read.
. ./bench.sh
sql() { (echo "PRAGMA cache_size = -4000;"; cat) | sqlite3 -bail /tmp/d.db >/dev/null || exit 1; }
look_up() { # NUMBER FIRST SPAN: documents from FIRST on, one in a transaction each
    seq "$1" | awk -v s="$seed" -v first="$2" -v span="$3" '{ printf "SELECT number, " \
        "length(body) FROM document WHERE id = %d;\n", first + ($1 * 7919 + s) % span }' | sql
}

while :; do
    draw 10
    case $drawn in
    0 | 1) phase hot; draw 98; look_up 400 $((drawn * 1000 + 1)) 1500 ;;
    2 | 3) phase lookup; draw 12; look_up $((drawn * 100 + 200)) 1 100000 ;;
    4 | 5)
        phase shelf
        draw 390
        echo "SELECT shelf, count(*), sum(length(body)) FROM document
            WHERE shelf BETWEEN $drawn AND $drawn + 4 GROUP BY shelf;" | sql
        ;;
    6) phase scan; draw 50; echo "SELECT count(*) FROM document WHERE body LIKE '%1$drawn%';" | sql ;;
    7 | 8)
        phase batch
        draw 9
        sql <<SQL
INSERT INTO document SELECT NULL, value * 7919 % 400, value + $seed, hex(zeroblob(500 + value % 900))
    FROM generate_series(1, $((drawn * 300 + 300)));
SQL
        ;;
    9) phase purge; draw 300; echo "DELETE FROM document WHERE shelf = $drawn;" | sql ;;
    esac
    rest
done
