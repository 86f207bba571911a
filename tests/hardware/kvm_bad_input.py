# SPDX-License-Identifier: Apache-2.0
"""Runs on the KVM lab's host: collections that are disturbed, one after the other, of one guest.

Each writes NAME.spool. Lines of JSON in ``facts.jsonl`` say how many entries KVM handed out in each
round, and what was in tracefs afterwards. `test_lab_kvm_bad_input` judges.
"""

import json
import os
import signal
import time
from pathlib import Path

from steps import Agent, Monitor

TRACING = Path("/sys/kernel/tracing")
OTHERS = "p:other/mine mark_page_dirty_in_slot"
SMALL_KIB = 64  # holds fewer entries than the rounds have in which the agent is stopped
WAIT_S = 30.0


def save(case, **facts):
    with open("facts.jsonl", "a") as file:
        file.write(json.dumps({"case": case, **facts}) + "\n")


def tracefs():
    """Return what tracefs has beside its own: instances and kprobe events."""
    return {
        "instances": sorted(path.name for path in (TRACING / "instances").iterdir()),
        "probes": (TRACING / "kprobe_events").read_text().splitlines(),
        "on": (TRACING / "tracing_on").read_text().strip(),
        "enabled": (TRACING / "events/kvm/kvm_exit/enable").read_text().strip(),
    }


def probe(line):
    """Add a kprobe event, or remove one."""
    file = os.open(TRACING / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def agent(name, monitor, **options):
    """Start a collection, and wait until it listens."""
    job = json.loads(Path("/job/job.json").read_text())
    job.update(ready=f"/job/{name}.ready", **options)
    Path(f"/job/{name}.json").write_text(json.dumps(job))
    started = Agent(f"/job/{name}.json", job["ready"], monitor.pid, name)
    started.await_ready()
    return started


def begin(monitor):
    monitor.do("log", 1)
    monitor.do("take")


def rounds(monitor, count):
    """Run rounds; return how many entries KVM handed out in each."""
    taken = []
    for _ in range(count):
        monitor.round()
        taken.append(monitor.do("take"))
    return taken


def end(monitor, *agents):
    """End collections by SIGTERM; return their statuses."""
    monitor.do("log", 0)
    for one in agents:
        one.process.send_signal(signal.SIGTERM)
    return [one.process.wait(WAIT_S) for one in agents]


def beside_another(monitor):
    """Somebody else traces, too; the VM is paused for a while; memory is added."""
    probe(OTHERS)
    (TRACING / "instances/other").mkdir()
    (TRACING / "events/kvm/kvm_exit/enable").write_text("1")
    (TRACING / "events/other/mine/enable").write_text("1")
    before = tracefs()
    one = agent("beside", monitor)
    begin(monitor)
    taken = rounds(monitor, 1)
    monitor.free()
    monitor.do("pause")
    paused = [time.clock_gettime_ns(time.CLOCK_MONOTONIC)]
    time.sleep(0.5)
    paused.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    taken.append(monitor.do("take"))
    taken += rounds(monitor, 1)
    monitor.do("plug", 16)
    taken += rounds(monitor, 1)
    status = end(monitor, one)
    save("beside", taken=taken, status=status, paused=paused, before=before, after=tracefs())
    (TRACING / "events/other/mine/enable").write_text("0")
    (TRACING / "events/kvm/kvm_exit/enable").write_text("0")
    (TRACING / "instances/other").rmdir()
    probe("-:other/mine")


def two_at_once(monitor):
    agents = [agent(name, monitor) for name in ("first", "second")]
    begin(monitor)
    taken = rounds(monitor, 3)
    save("two", taken=taken, status=end(monitor, *agents), after=tracefs())


def stopped(monitor):
    """The agent gets no time while more is logged than its buffers hold."""
    one = agent("stopped", monitor, buffer_kib=SMALL_KIB)
    begin(monitor)
    taken = rounds(monitor, 1)
    one.await_read()
    one.process.send_signal(signal.SIGSTOP)
    taken += rounds(monitor, 4)
    one.process.send_signal(signal.SIGCONT)
    one.await_read()
    taken += rounds(monitor, 1)
    save("stopped", taken=taken, status=end(monitor, one), after=tracefs())


def killed(monitor):
    """The agent is killed in the middle of a round."""
    one = agent("killed", monitor)
    begin(monitor)
    taken = rounds(monitor, 1)
    one.await_read()
    during = tracefs()
    monitor.do("free")
    one.process.kill()
    one.process.wait()
    limit = time.monotonic() + WAIT_S
    while (after := tracefs())["instances"] + after["probes"] and time.monotonic() < limit:
        time.sleep(0.1)
    monitor.do("pause")
    monitor.do("log", 0)
    save("killed", taken=taken, during=during, after=after)


def ends(monitor):
    """The VM ends in the middle of a round; its monitor is killed."""
    one = agent("ends", monitor)
    begin(monitor)
    taken = rounds(monitor, 1)
    monitor.free()
    monitor.process.kill()
    save("ends", taken=taken, status=[one.process.wait(WAIT_S)], after=tracefs())


with Monitor(ring=65536) as monitor:
    for case in (beside_another, two_at_once, stopped, killed, ends):
        case(monitor)
