# SPDX-License-Identifier: GPL-2.0-only
"""Log a hostile guest: `guests/hostile.c`. Prints JSON lines.

    python3 hostile.py     each part with a domain of its own: see PARTS

Each line has the part's name and its rounds: Xen's results, the numbers of missing and extra frames
in the log, and the same for the touched frames. It also has the decrease of Xen's free memory in
bytes, with the log off before and after.
"""

import contextlib
import errno
import json
import os
import subprocess
import sys
import time

from cycles import free_bytes

from pmlkit.errors import GuestError
from pmlkit.xen.agent import unpause
from pmlkit.xen.binding import XenError
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import ROUND_GUIDED, PmlLog

OPTIONS = LogOptions(slots=512, page_tables="mark", harvest="guided")
DATA, PAGES = 4096, 300
PRIVATE_DATA, PRIVATE_TABLES, BALLOON, POINTERS, MANY, REUSED = 4608, 5120, 6144, 7168, 8192, 500
SWEPT, PAGES_SWEPT, APART = 8192, 32 * 256, 1024
TABLES, ROOTS, BALLOONED = 70000, 200, 1000
BASE = frozenset(range(DATA, DATA + PAGES))
MEMORY = 384 * 256  # Xen's own pages of a guest are above its memory
LIMIT_S = 60.0
REPORTED = ("tables", "tables_dropped", "roots_dropped", "roots_stale", "dirty_pages", "memory")


def say(what, **answer):
    print("HOSTILE", json.dumps([what, answer]), flush=True)


def xl(*words):
    done = subprocess.run(["xl", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"LAB agent: xl {words[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def name_of(error):
    """Return the name of an error's number, such as ``"EBUSY"``."""
    return errno.errorcode.get(error.errno, str(error.errno))


class Domain:
    """A domain with the job's guest, set up. A context manager: it is destroyed at the end."""

    def __init__(self, name="h", memory=64, config=(), **settings):
        self.name = name
        words = " ".join(f"{key}={value}" for key, value in (settings | {"mib": memory}).items())
        xl("create", "-p", "/job/guest.cfg", f"name='{name}'", f"memory={memory}",
           f"extra='{words}'", *config)  # fmt: skip
        self.attach()
        unpause(self.domid)
        self.ready()

    def attach(self):
        self.domid, self.n = int(xl("domid", self.name)), 0
        self.box = Mailbox(self.domid)

    def ready(self):
        self.box.wait_ready(LIMIT_S)

    def detach(self):
        """Unmap its memory."""
        if self.box:
            self.box.__exit__()
        self.box = None

    def run(self, limit_s=LIMIT_S):
        """Let it run a round; return whether the round ends."""
        self.n += 1
        try:
            self.box.run(self.n, limit_s)
        except GuestError:
            return False
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()
        with contextlib.suppress(SystemExit):
            xl("destroy", self.name)


def logged(log):
    """Return the new data frames in the log, with any mark."""
    frames = set()
    for record in log.read():
        if record["type"] == 1:
            frames |= {word >> 12 for word in memoryview(record["data"]).cast("Q")}
    return {gfn for gfn in frames if DATA <= gfn < MEMORY}


def close(log, written, touched=frozenset()):
    """Close a round and compare it with the expected frames."""
    closed = log.close_round(ROUND_GUIDED)
    seen = {word >> 12 for word in memoryview(closed["touched"]).cast("Q")}
    seen = {gfn for gfn in seen if DATA <= gfn < MEMORY}
    told = {name: closed[name] for name in REPORTED}
    entries = logged(log)
    told |= {"missing": len(written - entries), "added": len(entries - written)}
    wanted = written | touched
    return told | {"unseen": len(wanted - seen), "more": len(seen - wanted)}


def refusal(log):
    """Close rounds until Xen refuses; return the name of the error, or None after a minute."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        try:
            log.close_round()
        except XenError as error:
            return name_of(error)
        time.sleep(0.1)
    return None


def rounds(domain, expect, options=OPTIONS):
    """Log a domain for a round per pair in `expect`: sets of written and of read frames."""
    told = []
    with PmlLog(domain.domid, options) as log:
        for written, read in expect:
            running = domain.run()
            told.append(close(log, BASE | written, read) | {"running": running})
    return told


def tables():
    """Create 70,000 page tables in one round, and drop them in the next."""
    directories = set(range(POINTERS, POINTERS + 1 + -(-TABLES // 512)))
    made = directories | set(range(MANY, MANY + TABLES))
    dropped = set(range(MANY, MANY + REUSED))
    twice = [(made, set()), (dropped, set())]
    with Domain(memory=384, tables=TABLES) as domain:
        rounds(domain, twice)  # Xen keeps a page permanently the first time
        yield
        yield rounds(domain, twice * 2)
        yield


def roots():
    """Change CR3 100,000 times in a round, among 200 address spaces."""
    private = set(range(PRIVATE_DATA, PRIVATE_DATA + ROOTS))
    used = set(range(PRIVATE_TABLES, PRIVATE_TABLES + 4 * ROOTS))
    with Domain(roots=ROOTS) as domain:
        yield
        yield rounds(domain, [(used, private)] * 3)
        yield


def balloon():
    """Give 1000 pages back, take them again, and write to half of them."""
    back = set(range(BALLOON, BALLOON + BALLOONED // 2))
    with Domain(balloon=BALLOONED) as domain:
        # So that Xen and the domain have all memory that they need for it.
        domain.run(), domain.run()
        yield
        yield rounds(domain, [(set(), set()), (back, set())] * 3)
        yield


def pod():
    """Use more pages than the domain has, by populate-on-demand: most of them are only read."""
    read = set(range(SWEPT, SWEPT + PAGES_SWEPT))
    written = set(range(SWEPT, SWEPT + PAGES_SWEPT, APART))
    with Domain(config=("memory=32", "maxmem=64"), swept=PAGES_SWEPT) as domain:
        rounds(domain, [(written, read)])
        yield
        told = rounds(domain, [(written, read)] * 2)
        yield [row | {"wrong": domain.box.measured(1)[0]} for row in told]
        yield


def again():
    """Log a domain that has not run since a log of it ended without its round being closed."""
    with Domain() as domain:
        yield
        with PmlLog(domain.domid, OPTIONS):
            domain.run()
        yield rounds(domain, [(set(), set())] * 2)
        yield


def restarted(end):
    """Log a domain that reboots in its second round; then its replacement."""
    with Domain(end=end, at=2) as domain:
        yield
        first = domain.domid
        with PmlLog(first, OPTIONS) as log:
            told = [close(log, BASE) | {"running": True} for _ in [domain.run()]]
            told[0]["ended"] = not domain.run(2.0)
            told[0]["after"] = refusal(log)
        domain.detach()
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            time.sleep(0.2)
            with contextlib.suppress(SystemExit, ValueError):
                if int(xl("domid", domain.name)) != first:
                    break
        domain.attach()
        domain.ready()
        time.sleep(1)  # the previous domain is gone
        yield told + rounds(domain, [(set(), set())])
        yield


def crashed():
    """Log a domain that crashes in its second round, and is preserved."""
    with Domain(end=2, at=2) as domain:
        yield
        with PmlLog(domain.domid, OPTIONS) as log:
            told = [close(log, BASE) | {"running": domain.n == 1} for _ in [domain.run()]]
            domain.run(1.0)
            told.append(close(log, BASE) | {"running": False})
        with PmlLog(domain.domid, OPTIONS) as log:
            told.append(close(log, set()) | {"running": False})
        yield told
        yield


PARTS = {
    "tables": tables,
    "roots": roots,
    "balloon": balloon,
    "pod": pod,
    "again": again,
    "reboot": lambda: restarted(1),
    "triple": lambda: restarted(3),
    "crash": crashed,
}


def main(*names):
    with Domain() as domain:  # memory that Xen needs once and keeps
        rounds(domain, [(set(), set())])
    for name in names or PARTS:
        steps = PARTS[name]()
        next(steps)
        before, started = free_bytes(), time.monotonic()
        told = next(steps)
        next(steps)
        time.sleep(0.5)  # Xen frees a domain's memory, and scrubs it, in the background
        say(name, rounds=told, lost_bytes=before - free_bytes(), took_s=time.monotonic() - started)
        for _ in steps:
            pass


if __name__ == "__main__":
    os.chdir("/job")
    main(*sys.argv[1:])
