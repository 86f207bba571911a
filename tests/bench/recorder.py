# SPDX-License-Identifier: Apache-2.0
"""What recording costs: the CPU time of QEMU with the plugin against the same QEMU without it.

The same guest boots, works and powers off in both, and both are recorded from power-on, so that
nothing of the run is left out. Pairs alternate, so that drift of the machine hits both alike.
"""

import os
import tempfile
import threading
from pathlib import Path
from statistics import median

from pmlkit.sources.guest import image as guest
from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder import qemu

MEMORY_MIB = 512
# Busy real programs, made short: an idle guest would flatter the ratio.
WORKLOADS = {
    "sqlite": {"purchases": "4000", "lookups": "200"},
    "xz": {"kib": "512", "times": "1"},
    "numpy": {"matrix": "192", "numbers": "200000", "decomposed": "64"},
}


def measure(scale):
    """Return the slowdowns, and one row per workload and clock: median CPU seconds."""
    rows, pairs = [], scale.repeats
    for name in WORKLOADS:
        for deterministic in (False, True):
            image = _image(name, deterministic)
            timed = [
                (_cpu_s(image, deterministic), _cpu_s(image, deterministic, observed=True))
                for _ in range(pairs)
            ]
            rows.append(
                {
                    "workload": name,
                    "clock": "icount" if deterministic else "host",
                    "unobserved_cpu_s": round(median(bare for bare, _ in timed), 2),
                    "recorded_cpu_s": round(median(seen for _, seen in timed), 2),
                    "slowdown": round(median(seen / bare for bare, seen in timed), 2),
                }
            )
    return {f"recorder_slowdown_{r['workload']}_{r['clock']}": r["slowdown"] for r in rows}, rows


def _image(name, deterministic):
    from pmlkit.sources.recorder.record import DETERMINISTIC_CMDLINE

    cmdline = DETERMINISTIC_CMDLINE if deterministic else ""
    return guest.build(load(name), WORKLOADS[name], MEMORY_MIB, cmdline)


def _cpu_s(image, deterministic, observed=False):
    """Run the guest from power-on to power-off; return QEMU's user and system seconds."""
    with tempfile.TemporaryDirectory() as folder:
        console, report, complaints = (Path(folder) / name for name in ("c", "r", "qemu"))
        reading, writing = os.pipe()
        drain = threading.Thread(target=_drain, args=(reading,))
        drain.start()
        argument = None
        if observed:
            argument = qemu.plugin_argument(
                qemu.build_plugin(),
                writing,
                MEMORY_MIB,
                qemu.parse_period("10ms"),
                deterministic,
                boot=True,
            )
        command = qemu.command_line(image, MEMORY_MIB, console, report, deterministic, argument)
        process = qemu.start(command, complaints, keep_fd=writing)
        os.close(writing)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        drain.join()
        os.close(reading)
        return usage.ru_utime + usage.ru_stime


def _drain(descriptor):
    while os.read(descriptor, 1 << 20):
        pass
