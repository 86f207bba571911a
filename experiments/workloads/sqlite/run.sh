#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sqlite3 on a shop's database: load, look-ups by index, a report over everything, updates.
# Rows are made by arithmetic, k * 2654435761 scatters k, so they are the same each time.
set -e
customers=$((purchases / 10))

count() { echo "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < $1)"; }
scatter() { echo "(($1) * 2654435761 % 4294967296 / 7)"; }

load() {
    cat <<SQL
BEGIN;
$(count $customers)
INSERT INTO customer SELECT k, 'customer ' || k, 'city ' || ($(scatter k) % 200),
    date('2015-01-01', '+' || ($(scatter k+5) % 3000) || ' days') FROM n;
$(count 2000)
INSERT INTO product SELECT k, 'product ' || k, 'category ' || (k % 25),
    $(scatter k) % 10000 / 100.0 FROM n;
$(count "$purchases")
INSERT INTO purchase SELECT k, 1 + $(scatter k) % $customers,
    date('2023-01-01', '+' || (k * 700 / $purchases) || ' days'),
    CASE $(scatter k+3) % 10 WHEN 0 THEN 'open' WHEN 1 THEN 'back' ELSE 'sent' END FROM n;
$(count $((3 * purchases)))
INSERT INTO item SELECT 1 + (k - 1) / 3, k % 3, 1 + $(scatter k) % 2000, 1 + k % 4 FROM n;
COMMIT;
PRAGMA wal_checkpoint(TRUNCATE);
SQL
}

lookup() { # one statement for each customer
    seq "$lookups" | awk -v customers=$customers '{ printf "SELECT count(*), " \
        "sum(i.number * p.price) FROM purchase b JOIN item i ON i.purchase_id = b.id " \
        "JOIN product p ON p.id = i.product_id WHERE b.customer_id = %d;\n", \
        1 + $1 * 7919 % customers }'
}

report() {
    cat <<SQL
SELECT c.city, p.category, count(*), sum(i.number * p.price) AS turnover
    FROM purchase b JOIN customer c ON c.id = b.customer_id
    JOIN item i ON i.purchase_id = b.id JOIN product p ON p.id = i.product_id
    WHERE b.state = 'sent' GROUP BY 1, 2 ORDER BY turnover DESC LIMIT 5;
SELECT substr(day, 1, 7), count(DISTINCT customer_id) FROM purchase GROUP BY 1;
SQL
}

update() {
    cat <<SQL
UPDATE purchase SET state = 'sent' WHERE state = 'open' AND day < '2024-06-01';
DELETE FROM item WHERE purchase_id IN (SELECT id FROM purchase WHERE state = 'back');
SELECT 'items left', count(*) FROM item;
SQL
}

{
    cat schema.sql
    for phase in load lookup report update; do
        echo ".shell pmlguest phase $phase"
        $phase
    done
    echo ".shell pmlguest phase done"
} >/tmp/all.sql
sqlite3 -bail /tmp/shop.db </tmp/all.sql >/tmp/said
tail -n 5 /tmp/said
ls -l /tmp/shop.db
