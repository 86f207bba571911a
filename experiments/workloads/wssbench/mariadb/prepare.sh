#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An empty server without privileges, and two tables of made-up rows.
mkdir -p /tmp/db/mysql /tmp/run
mariadbd --no-defaults --user=root --datadir=/tmp/db --socket=/tmp/run/s --pid-file=/tmp/run/pid \
    --skip-grant-tables --skip-networking --innodb-buffer-pool-size=32M --innodb-log-file-size=16M \
    --innodb-flush-log-at-trx-commit=2 --aria-log-file-size=8M --log-error=/tmp/run/log --tmpdir=/tmp &
i=0
until mariadb --no-defaults --socket=/tmp/run/s -e 'SELECT 1' >/dev/null 2>&1; do
    i=$((i + 1))
    [ $i -lt 200 ] || { tail -n 20 /tmp/run/log; exit 1; }
    sleep 0.3
done
mariadb --no-defaults --socket=/tmp/run/s <<SQL
CREATE DATABASE shop;
USE shop;
CREATE TABLE customer (id INT PRIMARY KEY, city INT, name VARCHAR(60), KEY (city)) ENGINE = InnoDB;
CREATE TABLE sale (id INT AUTO_INCREMENT PRIMARY KEY, customer INT, day INT, amount DOUBLE, note VARCHAR(100),
    KEY (customer), KEY (day)) ENGINE = InnoDB;
INSERT INTO customer SELECT seq, seq * 7919 % 300, CONCAT('customer of number ', seq) FROM seq_1_to_8000;
INSERT INTO sale (customer, day, amount, note) SELECT seq * 48271 % 8000, seq % 400, seq * 16807 % 9973 / 7,
    CONCAT('sale ', seq, ' of goods that were asked for') FROM seq_1_to_60000;
SQL
