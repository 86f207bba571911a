# SPDX-License-Identifier: Apache-2.0
"""Damaged spools: what is true is recovered, or it is refused by name; never a wrong entry."""

import random

import numpy as np
import pytest
from rewriting import rewrite
from spool_fuzz import SPOOL_HEADER, change, fuzz_one, good_frames, nonsense, run, sealed

from pmlkit.errors import PmlkitError
from pmlkit.sources.host.spool import XenSpool
from pmlkit.sources.ingest import ingest
from pmlkit.spool import FRAME, SUM_BYTES
from pmlkit.xen.frames import Frame


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "x.trace.spool"
    made.mkdir()
    return made


def entries(path):
    """The entries of a spool, vcpu and word, in its order; None if it is refused."""
    try:
        spool = XenSpool(path)
    except PmlkitError as error:
        assert str(error).isprintable()
        return None
    vcpus = np.repeat(spool.logs["vcpu"], spool.logs["count"])
    words = spool.words(spool.logs)
    return list(zip(vcpus.tolist(), words.tolist(), strict=True)), spool.missing


def test_a_truncation_at_every_byte(folder):
    made, truth = good_frames(2)
    data, path = sealed(SPOOL_HEADER, made), folder / "frames.spool"
    seen = set()
    for size in range(len(data)):
        rewrite(path, data[:size])
        read = entries(path)
        if read is not None:
            assert read[0] == truth[: len(read[0])], size
            assert read[1], size
            seen.add(len(read[0]))
    assert seen == {0, 3, 6, 10, 14}  # as many as whole records
    path.write_bytes(data)
    assert entries(path) == (truth, None)


def test_ten_thousand_random_corruptions(folder):
    made, truth = good_frames(1)
    data, path, rng = sealed(SPOOL_HEADER, made), folder / "frames.spool", random.Random(7)
    refused = 0
    for _ in range(10_000):
        broken = change(data, rng)
        rewrite(path, broken)
        read = entries(path)
        refused += read is None
        if read is not None:
            assert read[0] == truth[: len(read[0])]
            assert read[1] or broken == data
    assert 0 < refused < 10_000


def test_truncated_spools_become_traces_that_say_so(folder):
    made, truth = good_frames()
    data = sealed(SPOOL_HEADER, made)
    for size in range(700, len(data), 97):
        trace = fuzz_one(data[:size], folder)
        if trace is not None:
            assert (
                trace.to_pandas().gfn.tolist() == [w >> 12 for _, w in truth][: trace.meta.entries]
            )
            assert not trace.meta.complete
            trace.check()


def test_whole_frames_of_nonsense_are_refused_in_one_line(folder):
    made, _ = good_frames()
    rng = random.Random(3)
    for _ in range(60):
        fuzz_one(nonsense(SPOOL_HEADER, made, rng), folder)


def test_the_fuzz_loop_works(folder):
    tried, kept = run(0.5, 1, folder)
    assert tried >= 1 and kept >= 1


def test_a_record_of_a_round_that_cannot_be(folder):
    made, _ = good_frames()
    again = [frame for frame in made if frame[0] is Frame.RECORDS]
    cut = sealed(SPOOL_HEADER, again)[: -FRAME.size - SUM_BYTES]
    (folder / "frames.spool").write_bytes(cut)
    faults = []
    trace = ingest(folder, folder / "x.trace", heard=faults.append)
    assert trace.n_rounds == 2 and not trace.meta.complete
    assert "a record of round 2, and 0 were closed" in faults[0]
    assert faults[0] in trace.meta.notes[-2]
