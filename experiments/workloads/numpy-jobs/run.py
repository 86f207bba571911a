# SPDX-License-Identifier: Apache-2.0
"""A small analysis service on numpy: jobs of very different sizes come in bursts, with pauses.

Results are kept for a while, so that what is allocated grows and shrinks with the load.
"""

import os
import random
import subprocess
import time

import numpy as np

UNTIL_S = int(os.environ["until_s"])
LARGEST = int(os.environ["largest"])
chance = random.Random(int(os.environ["seed"]))
numbers = np.random.default_rng(1)
kept = []


def phase(name):
    subprocess.run(["pmlguest", "phase", name], check=True)


def uptime():
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def sort(size):
    return np.sort(numbers.random(size))


def smooth(size):
    return np.convolve(numbers.random(size), np.ones(9) / 9, "same")


def transform(size):
    return np.abs(np.fft.rfft(numbers.random(size // 4)))


def product(size):
    side = max(int((size / 40) ** 0.5), 8)
    return numbers.random((side, side)) @ numbers.random((side, side))


jobs = 0
while uptime() < UNTIL_S:
    for _ in range(chance.choice([1, 1, 2, 4])):
        work = chance.choice([sort, smooth, transform, product])
        phase(work.__name__)
        kept.append(work(int(LARGEST * chance.random() ** 3) + 1000))
        del kept[: -chance.choice([1, 2, 4, 8])]
        jobs += 1
    phase("pause")
    time.sleep(min(chance.expovariate(0.7), 6))
phase("done")
print("numpy-jobs:", jobs, "jobs")
