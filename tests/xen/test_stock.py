# SPDX-License-Identifier: Apache-2.0
"""Stock log-dirty beside a live migration: whatever the moment, no page is sent with old contents.

A model of what libxl-save-helper of Xen 4.17 does (log-dirty off, on, all pages, those that the
bitmap has, again and again, the last ones with the domain suspended), one step of it between any
two things that the collector does.
"""

import os
import signal
import subprocess

import pytest
from waiting import until

from pmlkit.xen import stock, xenctrl
from pmlkit.xen.binding import XenError, ffi
from pmlkit.xen.stock import LogDirty

PAGES = 48
DOMID = 70_000 + os.getpid()  # other runs of these tests have helpers at the same time


class Host:
    """A domain that writes a page with every step, its log-dirty mode, and a migration.

    Parameters
    ----------
    start : int
        The step with which the migration begins.
    speed : int
        Steps of its own between two of the collector.
    """

    def __init__(self, start, speed):
        self.start, self.speed, self.steps = start, speed, 0
        self.on, self.running, self.helper = False, True, False
        self.dirty = set()
        self.here, self.there = [0] * PAGES, [None] * PAGES
        self.migration = self.migrate()

    def step(self):
        self.steps += 1
        if self.running:
            page = 7 * self.steps % PAGES
            self.here[page] = self.steps
            self.mark([page])
        for _ in range(self.speed if self.steps >= self.start else 0):
            next(self.migration, None)

    def mark(self, pages):
        if self.on:
            self.dirty.update(pages)

    def take(self):
        taken, self.dirty = self.dirty, set()
        return taken

    def migrate(self):
        self.helper = True
        yield
        self.on = False
        yield
        self.on = True
        self.dirty.clear()
        yield
        todo = set(range(PAGES))
        for turn in range(4):
            for page in sorted(todo):
                self.there[page] = self.here[page]
                yield
            self.running = turn < 2
            todo = self.take()
            yield
        self.on = self.helper = False

    # What stands for libxenctrl and libxendevicemodel

    def maximum_gpfn(self, domid):
        return PAGES - 1

    def buffer(self, pages):
        self.bits = ffi().new("char[]", 4096 * pages)
        return None, self.bits

    def free(self, buffer, pages):
        pass

    def close(self):
        pass

    def log_dirty(self, domid, on):
        self.step()
        if on and self.on:
            raise XenError("log-dirty on", 22, domain=domid)
        self.on = on
        self.dirty.clear()

    def clean(self, domid, buffer, pages):
        self.step()
        taken = self.take()
        bits = bytearray(PAGES // 8)
        for page in taken:
            bits[page // 8] |= 1 << page % 8
        ffi().memmove(self.bits, bytes(bits), len(bits))
        return 0, len(taken)

    def save_helper_of(self, domid):
        self.step()
        return 4711 if self.helper else None

    def mark_dirty(self, domid, spans):
        for first, count in spans:
            assert 0 < count <= PAGES - first
            self.step()
            self.mark(range(first, first + count))


def collected_beside(monkeypatch, start, speed, rounds=3):
    host = Host(start, speed)
    monkeypatch.setattr(stock, "Control", lambda: host)
    monkeypatch.setattr(stock, "save_helper_of", host.save_helper_of)
    monkeypatch.setattr(stock, "mark_dirty", host.mark_dirty)
    try:
        with LogDirty(5) as log:
            for _ in range(rounds):
                if host.save_helper_of(5):
                    break
                log.close_round()
                if log.taken_over:
                    break
                for _ in range(5):
                    host.step()
    except XenError:
        assert host.steps == 1  # it was there first
    if not host.helper and host.steps < start:
        assert not host.on  # switched off, as nobody else has it
    while host.steps < start or host.helper:
        host.step()
    return host


@pytest.mark.parametrize("speed", [1, 2, 3, 5, 8])
def test_a_migration_that_begins_at_any_moment_sends_every_page_as_it_is(monkeypatch, speed):
    met = 0
    for start in range(1, 40):
        host = collected_beside(monkeypatch, start, speed)
        assert host.here == host.there, f"migration from step {start} on"
        assert not host.on
        met += start < 24
    assert met == 23


def test_the_model_tells_when_pages_are_not_put_back(monkeypatch):
    """The test above could fail: it does without `mark_dirty`."""
    monkeypatch.setattr(Host, "mark_dirty", lambda *_: None)
    wrong = [
        start
        for start in range(1, 40)
        for host in [collected_beside(monkeypatch, start, 8)]
        if host.here != host.there
    ]
    assert wrong


@pytest.fixture
def forked(monkeypatch):
    """A copy of this process that becomes the helper of `DOMID` when told to: (pid, tell)."""
    monkeypatch.setattr(xenctrl, "_others", set())
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(ready, 1)
        words = ["libxl-save-helper", "-c", "kill -STOP $$", "--save-domain", "1", "2", str(DOMID)]
        os.execv("/bin/sh", words)
    yield pid, lambda: os.write(go, b"x")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)


def test_a_helper_is_found_however_long_its_exec_takes(forked):
    pid, tell = forked
    for _ in range(3):
        assert xenctrl.save_helper_of(DOMID) is None
    tell()
    until(lambda: xenctrl.save_helper_of(DOMID - 1) or xenctrl.save_helper_of(DOMID) == pid)
    assert xenctrl.save_helper_of(DOMID - 1) is None
    assert xenctrl.save_helper_of(DOMID) == pid  # though another domain was asked for before


def test_what_cannot_become_a_helper_is_looked_at_once(monkeypatch):
    monkeypatch.setattr(xenctrl, "_others", set())
    assert xenctrl.save_helper_of(DOMID) is None
    seen = []
    monkeypatch.setattr(xenctrl, "_read", lambda pid, name: seen.append(pid) or b"")
    with subprocess.Popen(["sleep", "600"]) as new:
        xenctrl.save_helper_of(DOMID)
        new.kill()
    assert str(new.pid) in seen
    assert str(os.getpid()) not in seen


def test_the_mode_is_off_afterwards(monkeypatch):
    host = collected_beside(monkeypatch, 1000, 1, rounds=2)
    assert host.here == host.there  # much later
    assert stock.switch_off(host, 5)
    assert not host.on
