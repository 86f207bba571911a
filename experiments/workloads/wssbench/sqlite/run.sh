#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A store of measurements: look-ups most of the time, then batches of rows, reports, joins, purges.
. ./bench.sh
sql() { (echo "PRAGMA cache_size = -12000;"; cat) | sqlite3 -bail /tmp/m.db >/dev/null || exit 1; }
scatter() { echo "(($1) * 2654435761 % 4294967296 / 7)"; }
batch() { # ROWS
    sql <<SQL
INSERT INTO reading SELECT NULL, $(scatter value+$seed) % 500, $now, $(scatter value) % 10000 / 100.0
    FROM generate_series(1, $1);
SQL
}

phase load
now=0
sql <<SQL
PRAGMA journal_mode = WAL;
CREATE TABLE sensor (id INTEGER PRIMARY KEY, room INTEGER, title TEXT);
CREATE TABLE reading (id INTEGER PRIMARY KEY, sensor INTEGER, t INTEGER, value REAL);
CREATE INDEX reading_sensor ON reading (sensor);
INSERT INTO sensor SELECT value, value % 40, 'sensor of room ' || value % 40
    FROM generate_series(0, 499);
SQL
batch 60000
while :; do
    now=$((now + 1))
    draw 9
    case $drawn in
    0 | 1 | 2 | 3)
        phase lookup
        draw 20
        seq $((20 + drawn * drawn)) | awk -v s="$seed" '{ printf "SELECT count(*), avg(value) " \
            "FROM reading WHERE sensor = %d;\n", ($1 * 7919 + s) % 500 }' | sql
        ;;
    4 | 5) phase batch; draw 10; batch $((drawn * 6000 + 4000)) ;;
    6)
        phase report
        echo "SELECT t, sensor, avg(value), max(value) FROM reading GROUP BY t, sensor
            ORDER BY 3 DESC LIMIT 50;" | sql
        ;;
    7)
        phase join
        echo "SELECT room, title, count(*) FROM reading JOIN sensor ON sensor.id = sensor
            WHERE value > 60 GROUP BY room ORDER BY 3;" | sql
        ;;
    8) phase purge; draw 5; echo "DELETE FROM reading WHERE t < $now - $drawn - 6;" | sql ;;
    esac
    rest
done
