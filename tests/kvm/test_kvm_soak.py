# SPDX-License-Identifier: Apache-2.0
"""What a soak is judged by: entries, and losses that are reported."""

from types import SimpleNamespace

import pandas as pd
import pytest

from experiments import kvm_soak


@pytest.mark.parametrize(
    ("entries", "lost", "wrong", "unreported"),
    [
        ([3, 2, 3], [0, 1, 0], 0, 0),
        ([3, 2, 3], [0, 0, 0], 1, 1),  # nobody says that one was lost
        ([3, 0, 3], [0, 0, 3], 1, 0),  # it is said of another round
        ([3, 3, 3], [0, 1, 0], 0, -1),  # what is said to be lost is there
    ],
)
def test_a_soak_finds_what_is_not_said(entries, lost, wrong, unreported):
    logged = pd.DataFrame({"round": [n for n, count in enumerate(entries) for _ in range(count)]})
    rounds = pd.DataFrame({"round": range(3), "lost": lost})
    trace = SimpleNamespace(rounds=rounds, to_pandas=lambda columns: logged)
    counts = kvm_soak.judge(trace, [3, 3, 3])
    assert (counts["wrong"], counts["unreported"]) == (wrong, unreported)
    assert counts["entries"] == sum(entries) and counts["lost"] == sum(lost)
