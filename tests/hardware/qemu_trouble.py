# SPDX-License-Identifier: Apache-2.0
"""Runs on the KVM lab's host beside QEMU: what goes wrong with a VM while it is logged.

Prints a line for each case: its name, and the message. Its monitor is QEMU's second, ``/job/qmp2``.
"""

import re
import sys
import threading
import time
from pathlib import Path

from pmlkit.errors import PmlkitError
from pmlkit.kvm import agent, find, switch
from pmlkit.kvm.host import Host
from pmlkit.kvm.job import Job, KvmOptions
from pmlkit.kvm.qmp import Socket

QMP = "/job/qmp"
CLOSED = re.compile(rb'\{"round": \d+, "start_ns"')


def case(name, spool="", **job):
    try:
        end = agent.collect(Job(vm=QMP, spool=spool or f"/tmp/{name}.spool", **job))
    except PmlkitError as error:
        print(name, error, sep=": ", flush=True)
    else:
        print(name, end["why"], sep=": ", flush=True)


def refused(name, monitor):
    """Ask QEMU for a measurement while it measures for another client.

    Without tracing before, which takes longer than one. If it was over all the same: again.
    """
    way = switch.of(find.find(Host(), QMP), KvmOptions())
    try:
        while True:
            measured(monitor)
            monitor.ask("calc-dirty-rate", mode="dirty-bitmap", **{"calc-time": 1})
            way.start()
    except PmlkitError as error:
        print(name, error, sep=": ", flush=True)
    finally:
        way.close()


def measured(monitor):
    """Wait until QEMU measures nothing."""
    while monitor.ask("query-dirty-rate")["status"] == "measuring":
        time.sleep(0.02)


def closed(spool):
    """Return how many rounds are in a spool."""
    return len(CLOSED.findall(spool.read_bytes())) if spool.exists() else 0


def life(monitor, spool, over):
    """Pause, continue, reset and end the VM, each after three more rounds.

    When a command is done, a round that has ended may not yet be written, and the next one may have
    begun: the third is wholly after it.
    """
    for command in ("stop", "cont", "system_reset", "quit"):
        enough = closed(spool) + 3
        while closed(spool) < enough and not over.wait(0.05):
            pass
        monitor.ask(command)


def troubles():
    """With QEMU that logs by bitmaps."""
    monitor = Socket("/job/qmp2", limit_s=60)
    measured(monitor)
    with Socket(QMP):
        case("busy", rounds=1)
    case("short", rounds=1, period_s=0.5)
    refused("measuring", monitor)
    measured(monitor)
    monitor.ask("stop")
    case("paused", "/out/paused.spool", rounds=1)
    monitor.ask("cont")
    spool, over = Path("/out/life.spool"), threading.Event()
    threading.Thread(target=life, args=(monitor, spool, over)).start()
    case("life", str(spool))
    over.set()


if sys.argv[1] == "ring":
    case("ring", "/out/ring.spool", rounds=3)
else:
    troubles()
