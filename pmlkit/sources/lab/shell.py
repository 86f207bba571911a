# SPDX-License-Identifier: Apache-2.0
"""A shell in the lab's dom0, over the emulated serial port."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.files import scratch_folder
from pmlkit.recordings import need_clone
from pmlkit.sources.lab.bochs import Limits, Machine
from pmlkit.sources.lab.disks import write_disks
from pmlkit.sources.lab.guests import LINUX_MEMORY_MIB, load
from pmlkit.sources.lab.session import LabOptions, describe, lab_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.types import Tell


LEAVE = b"\x1d"  # Ctrl-]
_SCRIPT = """\
echo "guest.cfg describes the guest: xl create -c guest.cfg; Ctrl-] leaves the lab"
setsid cttyhack sh -l </dev/hvc0 >/dev/hvc0 2>&1
poweroff -f
"""


def shell(
    guest: str | None = None,
    options: LabOptions | None = None,
    progress: Tell | None = None,
    keys: int | None = None,
    screen: int | None = None,
) -> None:
    """Boot the lab and connect the terminal to dom0's console.

    Parameters
    ----------
    guest : str, optional
        A guest that dom0 can start at your command; default: "known".
    options : LabOptions, optional
    progress : callable, optional
    keys, screen : int, optional
        File descriptors; default: the terminal.

    Raises
    ------
    UsageError
        If there is no terminal.
    MissingTool, PackageError, GuestError, OutputError
    """
    need_clone("the lab")
    options = options or LabOptions()
    if keys is None and not sys.stdin.isatty():
        raise UsageError("the lab's shell needs a terminal: use `pmlkit lab run` in scripts")
    keys = sys.stdin.fileno() if keys is None else keys
    screen = sys.stdout.fileno() if screen is None else screen
    chosen = load(guest or "known", options.settings, progress)
    memory_mib = options.memory_mib or max(chosen.memory_mib, LINUX_MEMORY_MIB)
    lab = lab_for(options, memory_mib, progress)
    snapshot = lab.snapshot(progress) if options.snapshot else None
    job = describe(chosen, options, options.memory_mib or chosen.memory_mib, lab)
    with scratch_folder("pmlkit-lab-") as scratch:
        folder = Path(scratch)
        write_disks(folder, chosen, job, run=_SCRIPT)
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        console = f"mode=term, dev={os.ttyname(theirs)}"
        lab.prepare(folder, console)
        bochs = snapshot.restored(lab.bochs, folder, console) if snapshot else lab.bochs
        limits = Limits(host_s=options.time_limit_s, guest_s=1e9, quiet_s=options.time_limit_s)
        with Machine(bochs, folder, limits) as machine, _raw(keys):
            _join(machine, ours, keys, screen)
        os.close(ours)
        os.close(theirs)


@contextlib.contextmanager
def _raw(keys: int) -> Iterator[None]:
    """Context in which the terminal passes every key, including Ctrl-C."""
    if not os.isatty(keys):
        yield
        return
    before = termios.tcgetattr(keys)
    tty.setraw(keys)
    try:
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _join(machine: Machine, console: int, keys: int, screen: int) -> None:
    """Copy between the terminal and dom0's console until the machine ends or the user leaves."""
    open_fds = [console, keys]
    while machine.process.poll() is None:
        ready, _, _ = select.select(open_fds, [], [], 0.25)
        if console in ready:
            os.write(screen, os.read(console, 4096))
        if keys in ready:
            typed = os.read(keys, 256)
            if LEAVE in typed:
                return
            if not typed:  # end of file: select would return immediately from now on
                open_fds = [console]
            os.write(console, typed)
