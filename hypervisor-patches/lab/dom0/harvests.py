# SPDX-License-Identifier: GPL-2.0-only
"""Harvests of accessed flags, each followed by a scan of all memory while the domain stays paused.

    python3 harvests.py DOMID JOB.json

The scan finds the frames that the harvest missed. A sample has no such scan, because Xen refuses
it. The job states the harvests and the rounds. Writes a JSON line per round to /out/harvests.jsonl:
found frames, frames left, and Xen's costs.
"""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from pmlkit.xen.agent import unpause
from pmlkit.xen.binding import check, ffi, library
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Console, Mailbox
from pmlkit.xen.pml import (
    ROUND_ACCESSED,
    ROUND_GUIDED,
    ROUND_PRUNED,
    ROUND_REDRAW,
    ROUND_SAMPLE_SHIFT,
    PmlLog,
)

SAMPLE = ROUND_ACCESSED | ROUND_PRUNED | 4 << ROUND_SAMPLE_SHIFT  # one frame in 16
FLAGS = {
    "pruned": ROUND_ACCESSED | ROUND_PRUNED,
    "guided": ROUND_GUIDED,
    "scan": ROUND_ACCESSED,
    "sampled, fixed": SAMPLE,
    "sampled": SAMPLE | ROUND_REDRAW,
}
SESSIONS = (
    ("guided", "mark"),
    ("pruned", "mark"),
    ("pruned", "off"),
    ("scan", "off"),
    ("sampled, fixed", "off"),
    ("sampled", "off"),
)
COSTS = ("walk_tsc", "rearm_tsc", "guided_tsc", "scan_tsc", "guided_frames", "scan_frames",
         "guided_tables", "entries", "roots_dropped", "roots_stale", "tables_dropped")  # fmt: skip
CONSOLE = "/var/log/xen/console/guest-g.log"
SHOWN = 16  # frames left by the harvest


class Work:
    """The rounds of a guest: in lock step with a kit's guest, or by the clock."""

    def __init__(self, domid, job, stack):
        self.period_s, self.console = job["period_s"], Console(CONSOLE)
        self.box = stack.enter_context(Mailbox(domid)) if job["mailbox"] else None
        self.done, self.phase, self.ended = 0, "", False

    def begin(self):
        if self.box:
            self.box.wait_ready(120)
        while not self.box and not self.phase:
            time.sleep(0.01)
            self._listen()

    def round(self):
        self.done += 1
        if self.box:
            self.box.run(self.done, 120)
            return
        end = time.monotonic() + self.period_s
        while (left := end - time.monotonic()) > 0 and not self.ended:
            time.sleep(min(left, 0.02))
            self._listen()

    def _listen(self):
        for line in self.console.lines():
            if line.startswith("phase "):
                self.phase = line[6:].strip()
            self.ended |= line.startswith("exit ")


class Pause:
    """Keeps a domain paused. A context manager."""

    def __init__(self, domid):
        self._lib, self.domid = library("xenctrl"), domid
        null = ffi().NULL
        self._xch = check(self._lib.xc_interface_open(null, null, 0), "xc_interface_open")

    def __enter__(self):
        check(self._lib.xc_domain_pause(self._xch, self.domid), "xc_domain_pause", self.domid)

    def __exit__(self, *_):
        check(self._lib.xc_domain_unpause(self._xch, self.domid), "xc_domain_unpause", self.domid)


def first_frames(bits):
    """Return the first frames of a bitmap."""
    found = []
    for at, byte in enumerate(bytes(bits)):
        if byte:
            found += [8 * at + i for i in range(8) if byte >> i & 1]
        if len(found) >= SHOWN:
            break
    return found[:SHOWN]


def close(log, harvest, pause):
    """Close a round, and scan for the frames left."""
    with pause:
        closed = log.close_round(FLAGS[harvest], dirty=False)
        row = {name: closed[name] for name in COSTS}
        row["found"] = closed["touched_count"] if harvest == "guided" else closed["accessed_pages"]
        row["left"], row["left_gfns"] = -1, []
        if not harvest.startswith("sampled"):
            again = log.close_round(ROUND_ACCESSED, dirty=False)
            row["left"], row["left_gfns"] = again["accessed_pages"], first_frames(again["accessed"])
            row["rest_tsc"] = again["scan_tsc"]
    return row


def main(domid, path):
    domid, job = int(domid), json.loads(Path(path).read_text())
    pause = Pause(domid)
    unpause(domid)
    with ExitStack() as stack:
        out = stack.enter_context(open("/out/harvests.jsonl", "w"))
        work = Work(domid, job, stack)
        work.begin()
        for harvest, tables in job.get("sessions", SESSIONS):
            if work.ended:
                break
            # A round without a log: the last written pages are re-armed by their next use only
            # (tests/hardware, test_lab_again).
            work.round()
            options = LogOptions(harvest="accessed", page_tables=tables)
            with PmlLog(domid, options) as log:
                for number in range(job["rounds"]):
                    if work.ended:
                        break
                    work.round()
                    row = {"harvest": harvest, "tables": tables, "round": number}
                    row |= {"phase": work.phase, **close(log, harvest, pause)}
                    out.write(json.dumps(row) + "\n")
                    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
