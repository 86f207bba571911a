# SPDX-License-Identifier: Apache-2.0
"""Guests of two and four vCPUs, which wait for each other with interrupts disabled, and known sets.

Linux starts its other processors with interrupts off, and spins there: a guest runs on only if
the host's timer preempts it all the same (a mend of Bochs', hypervisor-patches/lab/bochs.patch).
"""

import pytest
from lab_case import data, frames, needs_lab, own, rounds

from pmlkit.trace import known

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
HOTCOLD = {"phase_ms": "1200"}
# Their settings, and their last phase before "done" (which may come with the end, after the log).
PROGRAMS = {
    "redis": ({"keys": "1500", "gets": "3000", "value_bytes": "256", "idle_s": "1"}, "idle"),
    "gcc": ({"level": "0"}, "run"),
}


def vcpus(trace):
    """Return the vCPUs that logged something."""
    return set(trace.to_pandas()["vcpu"])


def said(trace):
    """Return the lines of the guest's console."""
    spool = trace.path.with_name(trace.path.name + ".spool")
    return (spool / "guest.txt").read_text(errors="replace").splitlines()


@pytest.mark.parametrize("n", [2, 4])
def test_linux_meets_its_known_answers_on_several_vcpus(lab, n):
    trace = lab.run("hotcold", vcpus=n, settings=HOTCOLD)
    answers = known.measure(trace)
    assert len(answers) == 3
    assert all(answer.met for answer in answers), answers
    assert vcpus(trace) == set(range(n))
    trace.check()


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_come_to_their_end_on_two_vcpus(lab, name):
    settings, last = PROGRAMS[name]
    trace = lab.run(name, vcpus=2, period_s=0.5, settings=settings)
    assert trace.meta.complete and not trace.meta.lost
    assert last in {phase["name"] for phase in trace.meta.phases}
    assert "exit 0" in said(trace)
    assert vcpus(trace) == {0, 1}
    trace.check()


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_guest_that_never_enables_interrupts_is_preempted(lab, lockstep):
    settings = {"if": "0"}
    trace = lab.run("known", rounds=4, lockstep=lockstep, settings=settings)
    assert trace.n_rounds == 4
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert own(entries)
