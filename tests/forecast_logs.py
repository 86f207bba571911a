# SPDX-License-Identifier: Apache-2.0
"""Small logs for the tests of forecasts: programs that rest and work in turns."""

from dataclasses import replace

import numpy as np

from pmlkit.forecast import features
from pmlkit.forecast.compose import sample
from pmlkit.forecast.forecaster import Sample
from pmlkit.forecast.log import Log
from pmlkit.kernels import by_page
from pmlkit.reads.sampled import sampled

ROUND_NS = 100_000_000


def make_log(name="one", rounds=400, seed=0, size=60, program=None, day_ns=None):
    """Make a log whose program writes a few pages, and in bursts many."""
    random = np.random.default_rng(seed)
    gfn, of, phase, busy = [], [], [], False
    for r in range(rounds):
        busy = random.random() < (0.85 if busy else 0.08)
        pages = random.choice(8 * size, random.poisson(4 * size if busy else size) + 1)
        gfn.append(np.unique(pages).astype(np.uint64))
        of.append(np.full(len(gfn[-1]), r))
        phase.append("work" if busy else "rest")
    gfn = np.concatenate(gfn)
    return Log(
        name=name,
        program=program or name.split("-")[0],
        gfn=gfn,
        round=np.concatenate(of),
        table=random.random(len(gfn)) < 0.02,
        exits=random.integers(0, 3, rounds),
        pause_ns=random.integers(0, 1000, rounds),
        phase=np.array(phase, object),
        round_ns=ROUND_NS,
        memory_pages=8 * size,
        day_ns=day_ns,
    )


def make_sample(name="one", **how):
    """Make the table of features of such a log, windows of 500 ms."""
    log = make_log(name, **how)
    return Sample(log.name, log.program, features.table(log, "500ms"), 0.5, log.composed)


def make_used(name="one", inputs="pml+sample", one_in=16, **how):
    """Make a log of a program that also reads: what it writes, and as many pages beside it."""
    log = make_log(name, **how)
    gfns = np.concatenate([log.gfn, log.gfn + np.uint64(log.memory_pages)])
    rounds = np.concatenate([log.round, log.round])
    order = np.argsort(rounds, kind="stable")
    used = by_page.references(rounds[order], gfns[order], log.n_rounds, distinct=True)
    touched = used.select(sampled(used.gfn, one_in)) if inputs != "pml" else None
    memory = 2 * log.memory_pages
    return replace(
        log, inputs=inputs, touched=touched, one_in=one_in, used=used, memory_pages=memory
    )


def make_used_sample(name="one", inputs="pml+sample", **how):
    """Make the table of features of such a log, windows of 500 ms."""
    return sample(make_used(name, inputs, **how), "500ms")
