# SPDX-License-Identifier: GPL-2.0-only
"""Interference of other callers between two continuations of an operation on a domain's log.

    python3 between.py [WHAT ...]    "switching off", "deserted", "destroyed", or what others do

An operation is interrupted at a random moment (`raw`), another caller acts, and the operation is
continued. Afterwards the guest must run its rounds, a log of it must be right, and logging must be
off. Prints JSON lines.
"""

import ctypes
import errno
import json
import os
import random
import sys
import time
from collections import Counter

from cycles import free_bytes
from hostile import DATA, PAGES, Domain
from raw import PAGING_CONTINUATION, Control, Domctl, interruptible

# A second vCPU, which does not run: Xen checks for preemption after each vCPU.
CONFIG = ["altp2m='external'", "vcpus=2"]
OPERATIONS = ("enable", "close", "disable")
SEED, WANTED, TRIES = 17, 3, 40  # wanted interruptions between continuations, and most attempts
LIMIT_S = 5.0
STEP_S = 5e-6  # 500 instructions
SPARE = list(range(7000, 7064))  # pages that are not in use
RWX, RX2RW = 7, 8
SHADOW_OFF, SHADOW_LOG_DIRTY = 0, 2
PATIENCE_S = 10.5  # Xen waits 10 s for a continuation
MEMORY_PAGES = 16384
_EXPECTED = ((1 << PAGES) - 1) << DATA


def say(what, **answer):
    print("BETWEEN", json.dumps([what, answer]), flush=True)


def named(number):
    return errno.errorcode.get(number, str(number)) if number else "0"


class Subject:
    """The guest, and the calls of Xen for it."""

    def __init__(self, guest, control, caller, other, rng):
        self.guest, self.control, self.caller, self.other = guest, control, caller, other
        self.domid, self.random = guest.domid, rng
        self.lasts = {}

    def prepare(self, operation):
        """Prepare the state of the log in which an operation can begin."""
        if operation == "enable":
            return
        if self.caller.enable(self.domid):
            raise SystemExit(f"LAB agent: cannot enable the log before {operation}")
        self.guest.run(LIMIT_S)

    def measure(self):
        """Measure the duration of each operation."""
        for operation in OPERATIONS * 2:
            self.prepare(operation)
            start = time.monotonic()
            getattr(self.caller, operation)(self.domid)
            self.lasts[operation] = time.monotonic() - start
            self.off()

    def delay_s(self, operation):
        return self.random.uniform(0, self.lasts[operation])

    def off(self):
        """Switch the log off if it is on; return its previous state."""
        state = self.caller.state(self.domid)
        if state:
            self.caller.disable(self.domid)
        return state

    def logged(self):
        """Let the guest run a logged round; return its faults."""
        running = self.guest.run(LIMIT_S)
        closed = self.caller.close(self.domid)
        found = int.from_bytes(self.caller.dirty[: MEMORY_PAGES // 8], "little")
        found = found >> DATA << DATA
        return {
            "stopped": int(not running),
            "failed": int(closed != 0),
            "missing": (_EXPECTED & ~found).bit_count(),
            "added": (found & ~_EXPECTED).bit_count(),
        }

    def afterwards(self, operation):
        """Log a round, with the existing log or a new one, and switch logging off."""
        if operation == "disable" or self.caller.state(self.domid) != 2:
            self.off()
            refused = self.caller.enable(self.domid)
            wrong = self.logged() | {"refused": int(refused != 0)}
        else:
            wrong = self.logged() | {"refused": 0}
        self.caller.disable(self.domid)
        return wrong | {"on": int(self.caller.state(self.domid) != 0)}


class Meanwhile:
    """An action of another caller, `do`; and `undo`, before or after a logged round."""

    def __init__(self, name, do, undo=lambda answer: None, early=True):
        self.name, self.do, self.undo, self.early = name, do, undo, early


def meanwhiles(s):
    """Return the actions of other callers on the domain."""
    domid, control, other = s.domid, s.control, s.other

    def undo_shadow(answer):
        if not answer:
            control.shadow(domid, SHADOW_OFF)

    return [
        Meanwhile("pause", lambda: control.pause(domid), lambda _: control.unpause(domid)),
        Meanwhile("access", lambda: control.access(domid, RX2RW, DATA, PAGES),
                  lambda _: control.access(domid, RWX, DATA, PAGES), early=False),
        Meanwhile("altp2m", lambda: control.altp2m(domid, True),
                  lambda answer: answer or control.altp2m(domid, False)),
        Meanwhile("migrate", lambda: control.shadow(domid, SHADOW_LOG_DIRTY), undo_shadow),
        Meanwhile("shadow off", lambda: control.shadow(domid, SHADOW_OFF)),
        Meanwhile("balloon", lambda: control.take(domid, SPARE),
                  lambda _: control.give(domid, SPARE), early=False),
        Meanwhile("enable", lambda: other.enable(domid)),
        Meanwhile("close", lambda: other.close(domid)),
        Meanwhile("disable", lambda: other.disable(domid)),
    ]  # fmt: skip


def attempt(s, operation, meanwhile):
    """Interrupt an operation, act, continue; return the outcome, and faults."""
    s.prepare(operation)
    first = getattr(s.caller, operation)(s.domid, s.delay_s(operation))
    came = s.caller.came(first)
    answer = meanwhile.do()
    last = first if came == "after" else s.caller.go_on()
    if meanwhile.early:
        meanwhile.undo(answer)
    wrong = s.afterwards(operation)
    if not meanwhile.early:
        meanwhile.undo(answer)
    return f"{came} {named(answer)} {named(last)}", wrong


def missed(outcomes):
    """Whether there have been too few interruptions between continuations so far."""
    between = sum(n for came, n in outcomes.items() if came.startswith("between"))
    return between < WANTED and sum(outcomes.values()) < TRIES


def pairs(s, names):
    for meanwhile in meanwhiles(s):
        if names and meanwhile.name not in names:
            continue
        for operation in OPERATIONS:
            before, told, wrong = free_bytes(), Counter(), Counter()
            while missed(told):
                came, was = attempt(s, operation, meanwhile)
                told[came] += 1
                wrong.update(was)
            lost = before - free_bytes()
            say("pair", operation=operation, other=meanwhile.name, told=told, wrong=wrong,
                lost_bytes=lost)  # fmt: skip


def hold(s, operation):
    """Interrupt an operation while it has the guest paused; return whether that was possible.

    Switching off has it paused for a moment only, at the beginning: see `STEP_S`.
    """
    for i in range(400):
        s.prepare(operation)
        delay_s = STEP_S * i if operation == "disable" else s.delay_s(operation)
        first = getattr(s.caller, operation)(s.domid, delay_s)
        if s.caller.came(first) == "between" and not s.guest.run(0.3):
            return True
        s.off()
    return False


def deserted(s):
    """Never continue operations: the guest resumes after 10 s, and logging can be disabled."""
    for operation in OPERATIONS:
        held = hold(s, operation)
        started = time.monotonic()
        runs = wait_for_round(s.guest)
        took_s = time.monotonic() - started
        state, closed = s.other.state(s.domid), s.other.close(s.domid)
        continued, off = s.caller.go_on(), s.other.disable(s.domid)
        wrong = s.afterwards("disable")
        names = {"closed": named(closed), "continued": named(continued), "off": named(off)}
        say("deserted", operation=operation, held=held, runs=runs, took_s=took_s, state=state,
            wrong=wrong, **names)  # fmt: skip


def wait_for_round(guest):
    """Return whether the guest finishes its round within Xen's time limit."""
    end = time.monotonic() + PATIENCE_S + 2
    while guest.box._word(3) != guest.n and time.monotonic() < end:
        time.sleep(0.05)
    return guest.box._word(3) == guest.n


def switching_off(s):
    """Enable the log while stock log-dirty mode is being switched off (XSA-397)."""
    told, wrong = Counter(), Counter()
    before = free_bytes()
    for i in range(400):
        if s.control.shadow(s.domid, SHADOW_LOG_DIRTY):
            raise SystemExit("LAB agent: stock log-dirty mode cannot be switched on")
        s.guest.run(LIMIT_S)
        s.caller.peek(s.domid)
        first = s.caller.shadow_off(s.domid, STEP_S * i)
        came = s.caller.came(first)
        if came == "before":
            first = s.caller.go_on()
        if came != "between":
            if first:
                told[f"failed {named(first)}"] += 1
            continue
        answer, why = s.other.enable(s.domid), s.other.refusal
        last = s.caller.go_on(PAGING_CONTINUATION)
        running = s.guest.run(1.0)
        told[f"{named(answer)} {why} {named(last)} {'runs' if running else 'stopped'}"] += 1
        if not running:
            break
        wrong.update(s.afterwards("disable"))
        if sum(told.values()) == 5:
            break
    say("switching off", told=told, wrong=wrong, lost_bytes=before - free_bytes())


def destroyed(control, caller, rng, lasts):
    """Destroy domains between two continuations.

    They have 4 MiB and do not run: to close a round of theirs takes one piece.
    """
    for operation in ("enable", "disable"):
        told, free = Counter(), []
        while missed(told):
            domid = control.create(3, 0x3FF)
            control.populate(domid)
            if operation != "enable":
                caller.enable(domid)
            first = getattr(caller, operation)(domid, rng.uniform(0, lasts[operation]))
            came = caller.came(first)
            answer = control.destroy(domid)
            last = first if came == "after" else caller.go_on()
            told[f"{came} {named(answer)} {named(last)}"] += 1
            time.sleep(0.02)
            free.append(free_bytes())
        time.sleep(0.5)
        say("destroyed", operation=operation, told=told, lost_bytes=free[0] - free_bytes())


def duration_of(control, caller):
    """Measure the duration of the operations on such a domain."""
    domid, lasts = control.create(3, 0x3FF), {}
    control.populate(domid)
    for operation in OPERATIONS:
        start = time.monotonic()
        getattr(caller, operation)(domid)
        lasts[operation] = time.monotonic() - start
    control.destroy(domid)
    return lasts


def main(*names):
    interruptible()
    control, rng = Control(), random.Random(SEED)
    with Domctl() as caller, Domctl() as other, Domain(config=CONFIG) as guest:
        port = ctypes.c_uint32(0)
        ring = control.monitor(guest.domid, port)
        say("monitor", ring=bool(ring))
        s = Subject(guest, control, caller, other, rng)
        guest.run()
        s.measure()
        say("lasts", **s.lasts)
        if not names or "switching off" in names:
            switching_off(s)
        pairs(s, names)
        if not names or "destroyed" in names:
            destroyed(control, caller, rng, duration_of(control, caller))
        if not names or "deserted" in names:
            deserted(s)
        control.ask("monitor_disable", guest.domid)
    say("end", ended=True)


if __name__ == "__main__":
    os.chdir("/job")
    main(*sys.argv[1:])
