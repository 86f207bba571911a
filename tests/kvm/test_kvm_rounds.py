# SPDX-License-Identifier: Apache-2.0
"""Rounds out of the VMM's calls: what re-arms, and what does not."""

import pytest
from fake_kvm import CLEAR, GET, REGION, RESET

from pmlkit.kvm.rounds import Call, Round, Rounds

GAP = 60_000_000
ON, OFF = (0, 1, 0, 1 << 20, 0), (0, 0, 0, 1 << 20, 0)


def rounds_of(*calls):
    """Return the rounds of calls (number, values), at 1000, 2000, ... and 100 ns long.

    A number instead of a call is a pause, ns.
    """
    rounds, at, made = Rounds(), 0, []
    for one in calls:
        if isinstance(one, int):
            at += one
            continue
        at += 1000
        number, *values = one
        made.append(Call(at, at + 100, number, (*values, 0, 0, 0, 0, 0)[:5]))
    found = [*rounds.add(made, at + 100), *rounds.finish()]
    return [(r.start_ns, r.end_ns) for r in found], rounds


@pytest.mark.parametrize(
    ("calls", "wanted"),
    [
        ([], []),
        ([(RESET,)], []),
        ([(RESET,), (RESET,), (RESET,)], [(1000, 2000), (2000, 3000)]),
        # One slot: each is a re-arm, however soon it follows.
        ([(GET, 0), (GET, 0), (GET, 0)], [(1100, 2100), (2100, 3100)]),
        # Two slots: two calls are one.
        ([(GET, 0), (GET, 1), (GET, 0), (GET, 1)], [(2100, 4100)]),
        # In pieces, and with a slot of each address space.
        ([(GET, 0), (CLEAR, 0, 0, 0), (CLEAR, 0, 0, 64), (CLEAR, 65536, 0, 0), GAP,
          (GET, 0), (CLEAR, 0, 0, 0)], [(2000, 6000 + GAP)]),
        # The guest runs between the pieces of a re-arm, however long that takes.
        ([(GET, 0), (GET, 1), (CLEAR, 0), GAP, (CLEAR, 1), GAP, (GET, 0), (GET, 1), (CLEAR, 0), GAP,
          (CLEAR, 1)], [(3000, 7000 + 2 * GAP)]),
        # The same piece again: another re-arm.
        ([(GET, 0), (CLEAR, 0), (CLEAR, 0)], [(2000, 3000)]),
        # The first bitmap is long before it is cleared: it re-armed nothing.
        ([(GET, 0), GAP, (GET, 0), GAP, (CLEAR, 0), (GET, 0), (CLEAR, 0)],
         [(3000 + 2 * GAP, 5000 + 2 * GAP)]),
        # A bitmap that is taken re-arms nothing if it is cleared by hand.
        ([(GET, 0), (CLEAR, 0), GAP, (GET, 0), GAP, (GET, 0), (CLEAR, 0)],
         [(2000, 5000 + 2 * GAP)]),
        # Switched off: the round ends where the last bitmap was taken.
        ([(REGION, *ON), (GET, 0), (CLEAR, 0), GAP, (GET, 0), (REGION, *OFF)],
         [(3000, 4100 + GAP)]),
        # What was logged after the last re-arm was never taken: no round.
        ([(REGION, *ON), (RESET,), (RESET,), (REGION, *OFF)], [(2000, 3000)]),
        # Switched on again: the first re-arm only begins.
        ([(REGION, *ON), (RESET,), (RESET,), (REGION, *OFF), (REGION, *ON), (RESET,), (RESET,)],
         [(2000, 3000), (6000, 7000)]),
        ([(RESET,), (REGION, *ON), (RESET,), (RESET,)], [(3000, 4000)]),
    ],
)  # fmt: skip
def test_rounds(calls, wanted):
    assert rounds_of(*calls)[0] == wanted


def test_a_round_is_told_as_soon_as_nothing_can_follow_its_rearm():
    rounds = Rounds()
    calls = [Call(at, at + 100, GET, (0, 0, 0, 0, 0)) for at in (1000, GAP)]
    assert list(rounds.add(calls, GAP + 200)) == []
    assert list(rounds.add([], 3 * GAP)) == [Round(1100, GAP + 100)]
    assert list(rounds.finish()) == []


def test_slots_are_known_from_their_calls():
    _, rounds = rounds_of((REGION, 3, 1, 1 << 32, 8192, 77), (REGION, 4, 1, 0, 4096, 78),
                          (REGION, 4, 0, 0, 0, 0))  # fmt: skip
    assert {n: slot.as_dict() for n, slot in rounds.slots.items()} == {
        3: {"gfn": 1 << 20, "pages": 2, "address": 77, "flags": 1}
    }
