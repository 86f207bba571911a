# SPDX-License-Identifier: Apache-2.0
"""Timing that a busy machine spoils least: contenders take turns, and each one's best counts."""

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    entries : int
        Of the logs that everything is compared on.
    largest : int
        Entries of the longest trace of the scaling.
    repeats : int
        Turns that each contender takes.
    clock : {"wall", "cpu"}
        On a machine that others use, too, the CPU time of all threads compares better.
    """

    entries: int
    largest: int
    repeats: int
    clock: str = "wall"


QUICK = Scale(2_000_000, 1_000_000, 1)
DEFAULT = Scale(20_000_000, 100_000_000, 3)
FULL = Scale(100_000_000, 1_000_000_000, 3)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def best(contenders, scale, once=()):
    """Call each contender in turns, as often as `scale` says.

    Parameters
    ----------
    contenders : dict of str to callable
    scale : Scale
    once : collection of str
        Those that are so slow that one turn will do.

    Returns
    -------
    (dict, dict)
        The least seconds, and the last result, by name.
    """
    seconds, results, clock = {}, {}, CLOCKS[scale.clock]
    for turn in range(scale.repeats):
        for name, call in contenders.items():
            if turn and name in once:
                continue
            started = clock()
            results[name] = call()
            took = clock() - started
            seconds[name] = min(took, seconds.get(name, took))
    return seconds, results


def rate_rows(what, entries, seconds):
    """Return a row for each contender: million entries per second."""
    return [
        {"what": what, "who": who, "million/s": round(entries / s / 1e6, 2), "s": round(s, 3)}
        for who, s in seconds.items()
    ]


def peak_mib():
    """Return the most memory that this process has held, MiB.

    Not `resource`'s, which begins with what the process that started this one held.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
