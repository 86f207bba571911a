# SPDX-License-Identifier: Apache-2.0
"""The guess at page tables without marks."""

import numpy as np
import pytest
from pagetable_guest import Guest, write_trace

from pmlkit import bundled
from pmlkit import open as open_trace
from pmlkit import pagetables as infer
from pmlkit.errors import NeedsError
from pmlkit.pagetables import GUESS


def guest_trace(folder, seed, marks=True, rounds=8):
    rng = np.random.default_rng(seed)
    guest = Guest()
    root = guest.space()
    for page in range(3000):
        guest.map(root, page, (1 << 16) + page)
    for _ in range(rounds):
        start = rng.integers(0, 2800)
        for page in range(start, start + 200):
            guest.write(root, int(page))
        for page in rng.integers(0, 3000, 60):
            guest.read(root, int(page))
        guest.close_round()
    return write_trace(folder / f"{seed}-{marks}-{rounds}.trace", guest, marks=marks), guest


def test_tables_are_found_in_a_log_whose_marks_are_hidden(tmp_path):
    model = infer.fit([guest_trace(tmp_path, seed)[0] for seed in (1, 2)])
    trace, guest = guest_trace(tmp_path, 3, marks=False)
    found = infer.infer(trace, model, threshold=0.5)
    called = set(found.loc[found["table"], "gfn"])
    tables = set(guest.tables) & set(found["gfn"])
    assert len(called & tables) / len(tables) >= 0.8
    assert found["probability"].between(0, 1).all()
    assert list(infer.features(trace).columns) == list(infer.FEATURES)


def test_error_rates_are_of_guests_that_were_left_out(tmp_path):
    traces = {str(seed): guest_trace(tmp_path, seed)[0] for seed in (1, 2, 3)}
    rates = infer.error_rates(traces, threshold=0.5)
    assert rates["trace"].tolist() == ["1", "2", "3"]
    assert (rates["found"] >= 80).all() and rates["right"].between(0, 100).all()


def test_the_shipped_model_guesses_and_states_its_error(tmp_path):
    trace, _ = guest_trace(tmp_path, 4, marks=False)
    found = infer.infer(trace)
    assert found["probability"].between(0, 1).all() and found["probability"].nunique() > 5
    assert infer.ERRORS and all(0 <= found <= 100 >= right for _, found, right in infer.ERRORS)


@pytest.mark.parametrize("name", ["rrww-lab", "sqlite-lab"])
def test_the_stated_error_rate_is_that_of_the_bundled_traces(name, capsys):
    trace = open_trace(bundled(name))
    rates = infer.judge(trace, infer.infer(trace))
    with capsys.disabled():
        print(f"\n{name}: " + ", ".join(f"{n} {value:.4g}" for n, value in rates.items()))
    assert rates["tables"] - rates["missed"] == round(rates["found"] * rates["tables"] / 100)
    found, right = zip(*(row[1:] for row in infer.ERRORS), strict=True)
    assert min(found) <= rates["found"] <= max(found)
    assert min(right) <= rates["right"] <= max(right)
    assert "8 to 40 %" in GUESS and min(right) >= 7.5 and max(right) <= 40.5


def test_the_kinds_of_errors_add_up(tmp_path):
    trace, guest = guest_trace(tmp_path, 5)
    guess = infer.infer(trace)
    tables = guess["gfn"].isin(list(guest.tables))
    rates = infer.judge(trace, guess.assign(table=True))
    assert (rates["missed"], rates["found"]) == (0, 100)
    assert rates["wrong"] == rates["frames"] - rates["tables"] == (~tables).sum()
    rates = infer.judge(trace, guess.assign(table=False))
    assert (rates["wrong"], rates["missed"], rates["right"]) == (0, tables.sum(), 0)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(NeedsError, match="third round"):
        infer.infer(guest_trace(tmp_path, 1, rounds=2)[0])
    with pytest.raises(NeedsError, match="marks"):
        infer.fit([guest_trace(tmp_path, 1, marks=False)[0]])
