# SPDX-License-Identifier: Apache-2.0
"""A data scientist's session: tables are made, models fitted, some kept, some let go."""

import os
import random
import subprocess
import time


def phase(name):
    subprocess.run(["pmlguest", "phase", name], check=True)


phase("start")
import numpy as np  # noqa: E402
from sklearn.cluster import MiniBatchKMeans  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.ensemble import RandomForestRegressor  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402

seed = int(os.environ["seed"])
chance = random.Random(seed)
numbers = np.random.default_rng(seed)


def data():
    rows = int(4000 + 60000 * chance.random() ** 3)
    x = numbers.random((rows, 12))
    return x, x @ numbers.random(12) + numbers.normal(size=rows)


def trees(x, y):
    return RandomForestRegressor(3, max_depth=6, random_state=1).fit(x[:2000], y[:2000])


def lines(x, y):
    return Ridge().fit(np.hstack([x, x**2]), y)


def cluster(x, y):
    return MiniBatchKMeans(6, n_init=1, max_iter=3, random_state=1).fit(x)


def reduce(x, y):
    return PCA(3, random_state=1).fit(x)


tables, models = [data()], []
while True:
    work = chance.choice(["data", "trees", "lines", "cluster", "reduce", "predict", "predict"])
    phase(work)
    x, y = chance.choice(tables)
    if work == "data":
        tables.append(data())
        del tables[: -chance.choice([1, 3, 5])]
    elif work != "predict":
        models.append(globals()[work](x, y))
        del models[:-6]
    elif models and hasattr(models[-1], "predict") and models[-1].n_features_in_ == 12:
        models[-1].predict(x)
    else:
        np.sort(x, axis=0)
    if chance.random() < 0.7:
        phase("idle")
        time.sleep(0.3 + 5 * chance.random() ** 2)
