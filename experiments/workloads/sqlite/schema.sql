-- SPDX-License-Identifier: Apache-2.0
-- A shop: customers order products.
PRAGMA journal_mode = WAL;
PRAGMA cache_size = -8000;
CREATE TABLE customer (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, joined TEXT NOT NULL
);
CREATE TABLE product (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL, price REAL NOT NULL
);
CREATE TABLE purchase (
    id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer, day TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'sent', 'back'))
);
CREATE TABLE item (
    purchase_id INTEGER NOT NULL REFERENCES purchase, line INTEGER NOT NULL,
    product_id INTEGER NOT NULL REFERENCES product, number INTEGER NOT NULL,
    PRIMARY KEY (purchase_id, line)
) WITHOUT ROWID;
CREATE INDEX customer_city ON customer (city);
CREATE INDEX purchase_customer ON purchase (customer_id, day);
CREATE INDEX purchase_day ON purchase (day);
CREATE INDEX item_product ON item (product_id);
