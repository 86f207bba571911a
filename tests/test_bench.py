# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run on small logs, with the package as it is; their speed is not tested."""

import importlib

import numpy as np
import pytest

from tests.bench.timing import Scale

SMALL = Scale(entries=100_000, largest=1_000_000, repeats=1, clock="cpu")


@pytest.mark.parametrize("name", ["distinct", "missratio", "scaling", "kvm"])
def test_a_benchmark_runs(name):
    ratios, rows = importlib.import_module(f"tests.bench.{name}").measure(SMALL)
    assert rows and np.isfinite(list(ratios.values())).all()
