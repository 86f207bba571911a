# SPDX-License-Identifier: Apache-2.0
"""The part of `kvm_soak` that runs on the KVM lab's host: rounds, and a collector that stalls.

Writes ``taken.txt``: the number of KVM's entries in each round.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from steps import Agent, Monitor

if TYPE_CHECKING:
    from typing import TextIO

PERIOD_S = 0.4
RING = 65536
BUFFER_KIB = 512  # smaller than the log while the agent stops
EVERY_S, STALL_S = 60.0, 4.0  # time for which the agent stops


def main(seconds: float) -> None:
    """Run rounds for `seconds` of this host's clock."""
    job = json.loads(Path("/job/job.json").read_text())
    Path("/job/soak.json").write_text(json.dumps({**job, "buffer_kib": BUFFER_KIB}))
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(open("taken.txt", "w"))
        monitor = stack.enter_context(Monitor(RING))
        words = "/job/soak.json", job["ready"], monitor.pid, "soak"
        agent = stack.enter_context(Agent(*words, to_disk=True))
        agent.await_ready()
        monitor.do("log", 1)
        monitor.do("take")
        begun = time.monotonic()
        stalls = _rounds(monitor, agent, seconds, taken)
        monitor.do("log", 0)
        agent.process.send_signal(signal.SIGTERM)
    print(f"{stalls} stalls, {time.monotonic() - begun:.1f} s")


def _rounds(monitor: Monitor, agent: Agent, seconds: float, taken: TextIO) -> int:
    """Run rounds for `seconds`; return how often the agent was stopped."""
    begun = due = time.monotonic()
    stalls = 0
    while (now := time.monotonic() - begun) < seconds:
        at = now % EVERY_S - EVERY_S / 2
        if at >= 0 and stalls <= now // EVERY_S:
            agent.process.send_signal(signal.SIGSTOP)
            stalls += 1
        elif not 0 <= at < STALL_S:
            agent.process.send_signal(signal.SIGCONT)
        monitor.round()
        print(monitor.do("take"), file=taken, flush=True)
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
    agent.process.send_signal(signal.SIGCONT)
    return stalls


if __name__ == "__main__":
    main(float(sys.argv[1]))
