# SPDX-License-Identifier: GPL-2.0-only
"""Track dirty video memory of an HVM guest like a device model, while the guest is logged.

    python3 vram.py DOMID    the guest is `known`; some of its written frames stand for video memory

Prints a JSON line for each step: the step, and the frames of a round in the log and in the
tracking.
"""

import ctypes
import json
import os
import struct
import sys

from pmlkit.xen.agent import unpause
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import TYPE_LOG, Handle, PmlLog

DATA = 4096  # the kit's own frames lie before
VIDEO, OTHER = (4096, 512), (5096, 256)  # first frame, frames: `known` writes 300 of the former
ALL = (4096, 2500)  # all that it writes
LIMIT_S = 60


class Tracking:
    """XEN_DMOP_track_dirty_vram of a domain."""

    def __init__(self, domid):
        self._lib = ctypes.CDLL("libxendevicemodel.so.1", use_errno=True)
        self._lib.xendevicemodel_open.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._lib.xendevicemodel_open(None, 0))
        self._domid = ctypes.c_uint16(domid)

    def dirty(self, first, frames):
        """Return the frames written since the last call; 0 frames end the tracking."""
        bits = (ctypes.c_ulong * (-(-frames // 64) or 1))()
        done = self._lib.xendevicemodel_track_dirty_vram(
            self._handle, self._domid, ctypes.c_uint64(first), ctypes.c_uint32(frames), bits
        )
        if done:
            why = os.strerror(ctypes.get_errno())
            raise SystemExit(f"LAB agent: XEN_DMOP_track_dirty_vram: {why}")
        return {first + i for i in range(frames) if bits[i // 64] >> i % 64 & 1}


def say(what, **answer):
    print("VRAM", json.dumps([what, answer]), flush=True)


class Rounds:
    """The guest's rounds, one after the other."""

    def __init__(self, box):
        self._box, self._number = box, 0

    def run(self, meanwhile=lambda: None):
        self._number += 1
        self._box.run(self._number, LIMIT_S, meanwhile)

    def logged(self, log, what, meanwhile=lambda: None, video=VIDEO, track=None):
        """Run and close a round; report its frames in the log, the bitmap and the tracking."""
        self.run(meanwhile)
        seen = len(track.dirty(*video)) if track else None
        dirty = log.close_round()["dirty"]
        records = [record["data"] for record in log.read() if record["type"] == TYPE_LOG]
        frames = [w >> 12 for data in records for (w,) in struct.iter_unpack("<Q", data)]
        frames = [frame for frame in frames if frame >= DATA]
        bitmap = {
            8 * i + b for i, byte in enumerate(bytes(dirty)) for b in range(8) if byte >> b & 1
        }
        marked = {frame for frame in bitmap if frame >= DATA}
        say(what, entries=len(frames), log=spans(frames), bitmap=spans(marked), tracked=seen)


def spans(frames):
    """Return runs of frames as [first, count]."""
    found = []
    for frame in sorted(set(frames)):
        if found and frame == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([frame, 1])
    return found


def left_over(domid, track, rounds):
    """Say how often the processor's buffer is full in a round, if little is tracked and much was.

    All was, until the log was switched on and off, and the tracking ended without another call.
    """
    track.dirty(*ALL)
    PmlLog(domid, LogOptions(slots=64)).close()
    track.dirty(0, 0)
    track.dirty(*VIDEO)
    with Handle(domid) as counters:
        before = counters.vcpu_status(0)["exits"]
        rounds.run()
        exits = counters.vcpu_status(0)["exits"] - before
    say("tracked elsewhere", tracked=spans(track.dirty(*VIDEO)), exits=exits)
    track.dirty(0, 0)


def main(domid):
    domid = int(domid)
    track = Tracking(domid)
    unpause(domid)
    with Mailbox(domid) as box:
        box.wait_ready(LIMIT_S)
        rounds = Rounds(box)
        track.dirty(*VIDEO)
        rounds.run()
        say("tracked before", tracked=spans(track.dirty(*VIDEO)))
        with PmlLog(domid, LogOptions(slots=64)) as log:
            log.close_round()
            for _ in range(2):
                rounds.logged(log, "logged while tracked", track=track)
            rounds.logged(log, "asked all the time", lambda: track.dirty(*VIDEO), track=track)
            rounds.logged(log, "another range", video=OTHER, track=track)
            track.dirty(0, 0)
            rounds.logged(log, "tracking has ended")
            rounds.logged(log, "begins again", track=track)
            rounds.run()
        say("written before the end", tracked=spans(track.dirty(*VIDEO)))
        rounds.run()
        say("tracked after", tracked=spans(track.dirty(*VIDEO)))
        track.dirty(0, 0)
        left_over(domid, track, rounds)


if __name__ == "__main__":
    main(*sys.argv[1:])
