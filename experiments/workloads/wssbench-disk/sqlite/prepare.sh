#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 100,000 documents of 1 to 3 KiB on 400 shelves.
sqlite3 -bail /tmp/d.db >/dev/null <<'SQL'
PRAGMA journal_mode = OFF;
CREATE TABLE document (id INTEGER PRIMARY KEY, shelf INTEGER, number INTEGER, body TEXT);
INSERT INTO document SELECT value, value * 7919 % 400, value * 104729 % 1000003,
    hex(zeroblob(500 + value * 271 % 1000)) FROM generate_series(1, 100000);
CREATE INDEX document_shelf ON document (shelf);
PRAGMA journal_mode = WAL;
SQL
