# SPDX-License-Identifier: Apache-2.0
"""Runs on the KVM lab's host beside QEMU: what goes wrong with a VM while it is logged.

Prints a line for each case: its name, and the message. Its monitor is QEMU's second, ``/job/qmp2``.
"""

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


def case(name, spool="", **job):
    try:
        end = agent.collect(Job(vm=QMP, spool=spool or f"/tmp/{name}.spool", **job))
    except PmlkitError as error:
        print(name, error, sep=": ", flush=True)
    else:
        print(name, end["why"], sep=": ", flush=True)


def refused(name):
    """Ask QEMU for a measurement, without tracing before: that takes longer than one."""
    way = switch.of(find.find(Host(), QMP), KvmOptions())
    try:
        way.start()
    except PmlkitError as error:
        print(name, error, sep=": ", flush=True)
    finally:
        way.close()


def measured(monitor):
    """Wait until QEMU measures nothing."""
    while monitor.ask("query-dirty-rate")["status"] == "measuring":
        time.sleep(0.02)


def life(monitor, logged):
    """Pause, continue, reset and end the VM, more than a round apart, once it is logged."""
    while not logged.exists():
        time.sleep(0.02)
    for command, after_s in (("stop", 1.6), ("cont", 3), ("system_reset", 2.5), ("quit", 3.5)):
        time.sleep(after_s)
        monitor.ask(command)


def troubles():
    """With QEMU that logs by bitmaps."""
    monitor = Socket("/job/qmp2")
    measured(monitor)
    with Socket(QMP):
        case("busy", rounds=1)
    case("short", rounds=1, period_s=0.5)
    monitor.ask("calc-dirty-rate", mode="dirty-bitmap", **{"calc-time": 1})
    refused("measuring")
    measured(monitor)
    monitor.ask("stop")
    case("paused", "/out/paused.spool", rounds=1)
    monitor.ask("cont")
    logged = Path("/tmp/logged")
    threading.Thread(target=life, args=(monitor, logged)).start()
    case("life", "/out/life.spool", ready=str(logged), seconds=60)


if sys.argv[1] == "ring":
    case("ring", "/out/ring.spool", rounds=3)
else:
    troubles()
