# SPDX-License-Identifier: Apache-2.0
"""A store of values by key in a memory-mapped file, read by hot keys, by any, and by scans."""

import os
import random
import shutil
import subprocess
import time

import lmdb

chance = random.Random(int(os.environ["seed"]))
KEYS = 60000
os.makedirs("/tmp/store", exist_ok=True)
store = lmdb.open("/tmp/store", map_size=96 << 20, sync=False, writemap=True)


def phase(name):
    subprocess.run(["pmlguest", "phase", name], check=True)


def key(limit=KEYS):
    return b"key %08d" % int(limit * chance.random())


def put(count, limit=KEYS):
    with store.begin(write=True) as change:
        for _ in range(count):
            change.put(key(limit), bytes(chance.randrange(200, 900)))


def get(count, limit):
    with store.begin() as view:
        for _ in range(count):
            view.get(key(limit))


def scan(length):
    with store.begin() as view:
        cursor = view.cursor()
        cursor.set_range(key())
        for number, _ in enumerate(cursor):
            if number > length:
                break


def delete(count):
    with store.begin(write=True) as change:
        for _ in range(count):
            change.delete(key())


def copy():
    shutil.rmtree("/tmp/copy", ignore_errors=True)
    os.makedirs("/tmp/copy")
    store.copy("/tmp/copy", compact=chance.random() < 0.5)


WORKS = {
    "fill": lambda: put(chance.randrange(2000, 12000)),
    "hot": lambda: get(25000, 500),
    "any": lambda: get(20000, KEYS),
    "scan": lambda: scan(chance.randrange(5000, 40000)),
    "update": lambda: put(6000, 3000),
    "delete": lambda: delete(8000),
    "copy": copy,
}
phase("fill")
put(20000)
while True:
    name = chance.choice(["fill", "hot", "hot", "any", "any", "scan", "update", "delete", "copy"])
    phase(name)
    WORKS[name]()
    if chance.random() < 0.8:
        phase("idle")
        time.sleep(0.3 + 5 * chance.random() ** 2)
