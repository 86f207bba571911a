#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sqlite3 as a store of measurements: quiet look-ups most of the time, then a batch of new rows, a
# roll-up of what came in, and a purge of what is old; sizes and pauses vary.
set -e
draw() { # LIMIT: a number from 0 to below it, in $drawn; the same ones each time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}
sql() { sqlite3 -bail /tmp/m.db >>/tmp/said; }
scatter() { echo "(($1) * 2654435761 % 4294967296 / 7)"; }

batch() { # ROWS
    sql <<SQL
PRAGMA cache_size = -$cache_kib;
INSERT INTO reading SELECT NULL, $(scatter value+$seed) % 500, $now, $(scatter value) % 10000 / 100.0
    FROM generate_series(1, $1);
SQL
}
lookups() { # NUMBER
    seq "$1" | awk -v s="$seed" '{ printf "SELECT count(*), avg(value) FROM reading " \
        "WHERE sensor = %d;\n", ($1 * 7919 + s) % 500 }' | sql
}
rollup() {
    sql <<SQL
PRAGMA cache_size = -$cache_kib;
INSERT OR REPLACE INTO summary SELECT sensor, t, count(*), avg(value), max(value) FROM reading
    WHERE t > $now - 3 GROUP BY sensor, t;
SELECT sensor, max(mean) FROM summary GROUP BY sensor ORDER BY 2 DESC LIMIT 3;
SQL
}
purge() {
    sql <<SQL
PRAGMA cache_size = -$cache_kib;
DELETE FROM reading WHERE t < $now - $1;
SQL
}

sql <<SQL
PRAGMA journal_mode = WAL;
CREATE TABLE reading (id INTEGER PRIMARY KEY, sensor INTEGER, t INTEGER, value REAL);
CREATE INDEX reading_sensor ON reading (sensor);
CREATE TABLE summary (sensor INTEGER, t INTEGER, n INTEGER, mean REAL, top REAL,
    PRIMARY KEY (sensor, t));
SQL
now=0
until [ "$(cut -d. -f1 /proc/uptime)" -ge "$until_s" ]; do
    now=$((now + 1))
    draw 8
    case $drawn in
    0 | 1 | 2 | 3) pmlguest phase lookup; draw 12; lookups $((10 + drawn * drawn)) ;;
    4 | 5) pmlguest phase batch; draw 10; batch $((rows / 10 * (drawn + 1))) ;;
    6) pmlguest phase rollup; rollup ;;
    7) pmlguest phase purge; draw 6; purge $((drawn + 6)) ;;
    esac
    draw 60; pause=$((drawn * drawn / 100 + 2)) # tenths of a second
    if [ $pause -ge 10 ]; then
        pmlguest phase pause
        sleep $((pause / 10)).$((pause % 10))
    fi
done
pmlguest phase done
ls -l /tmp/m.db
echo "sqlite-batches: $now episodes"
