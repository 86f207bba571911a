# SPDX-License-Identifier: Apache-2.0
"""The lab's monitor, driven step by step, to examine a guest from its host.

It is for experiments and tests.

`script` creates the script that the lab's host runs instead of its own (`KvmLabOptions.script`).
The rest runs on that host, which has Python's library and this module as ``steps.py``.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self


__all__ = ["Agent", "Monitor", "script"]

PAGE = 4096
_END = "END-OF-THIS-FILE"
_SCRIPT = """\
for m in $(cat /mods/kvm-order); do
    [ $m = kvm-intel ] && parameters="$KVM_INTEL" || parameters=
    insmod /mods/$m.ko $parameters || exit 3
done
{files}
cd /out
export SPOOL_BLOCK
PYTHONPATH=/job python3 /job/{command} >said.txt 2>&1
status=$?
dmesg >dmesg.txt
exit $status
"""
_WAIT_S = 60.0
_MAILBOX, _DONE = 512, 12  # frame of the guest's mailbox; offset of its last round
_TICK = re.compile(rb'\{"ns": (\d+)\}')


def script(files: Mapping[str, str], command: str) -> str:
    """Return the host's script: it loads KVM, writes files into /job and runs one of them, in /out.

    Parameters
    ----------
    files : dict of str to str
        Names and texts.
    command : str
        The name of a file, and its arguments.
    """
    texts = {"steps.py": Path(__file__).read_text(), **files}
    parts = [f"cat >{name} <<'{_END}'\n{text}{_END}" for name, text in texts.items()]
    return _SCRIPT.format(files="\n".join(parts), command=command)


class Monitor:
    """The monitor with a guest of the kit. A context manager.

    Parameters
    ----------
    ring : int
        Entries of the dirty ring; 0: it logs with a bitmap.
    group : str
        The control group (version 2) for the monitor; default: the present one.

    Attributes
    ----------
    pid : int
    memory : int
        The address of the guest's memory.
    """

    def __init__(self, ring: int = 0, memory_mib: int = 64, group: str = "") -> None:
        words = ["/job/vmm", "--steps", "--kit", "--memory", str(memory_mib)]
        words += ["--ring", str(ring)] if ring else []
        words += ["--cmdline", f"vmm={memory_mib}", "/job/kernel"]
        if group:
            words = ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh", *words]
        self.process = subprocess.Popen(words, stdin=PIPE, stdout=PIPE, text=True, bufsize=1)
        self.pid, self.number = self.process.pid, 0
        self.memory = self._answer("memory")
        self._pages = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, step: str, value: int = 0) -> int:
        """Run a step of the monitor's `run_steps`; returns the number in its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{step} {value}\n")
        return self._answer(step)

    def _answer(self, step: str) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(f"{step} "):
            raise RuntimeError(f"the monitor answers {line!r} to the step {step}")
        return int(line.split()[1])

    def round(self) -> None:
        """Let the guest run its next round."""
        self.number += 1
        self.do("round", self.number)

    def free(self) -> None:
        """Let the guest run until `pause`; wait until it has run a whole round."""
        before = self._done()
        self.do("free")
        # The first of two may be the rest of a round that a pause has cut.
        _await(lambda: self._done() - before >= 2, "the guest does not run")

    def _done(self) -> int:
        """Return the guest's last round."""
        number: int = struct.unpack_from("<I", self.page(_MAILBOX), _DONE)[0]
        return number

    def page(self, gfn: int) -> bytes:
        """Read a page of the guest."""
        return os.pread(self._pages, PAGE, self.memory + gfn * PAGE)

    def close(self) -> None:
        """End the monitor; idempotent."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
            os.close(self._pages)
        self.process.wait()


class Agent:
    """A collection of the monitor by the agent of `pmlkit.kvm`, as on any host. A context manager.

    Parameters
    ----------
    job : str
        The path of its job, with ``ready``: a file that the agent creates when it listens.
    name : str
        It writes the file ``NAME.spool``, and its messages to ``NAME.txt``.
    to_disk : bool
        The spool goes to the disk of the results, which has more room than /out.
    """

    def __init__(self, job: str, ready: str, pid: int, name: str, to_disk: bool = False) -> None:
        Path(ready).unlink(missing_ok=True)
        spool = "-" if to_disk else f"{name}.spool"
        words = ["python3", "-m", "pmlkit.kvm.agent", job, str(pid), spool]
        disk = f"of=/dev/sdb bs=64k seek={os.environ.get('SPOOL_BLOCK')}"
        self.messages, self._ready = Path(f"{name}.txt"), Path(ready)
        self._spool = Path(spool)
        self._disk: subprocess.Popen[bytes] | None = None
        with open(self.messages, "w") as messages:
            if to_disk:
                self._disk = subprocess.Popen(["dd", *disk.split()], stdin=PIPE, stderr=DEVNULL)
            out = self._disk.stdin if self._disk else None
            self.process = subprocess.Popen(words, stdout=out, stderr=messages)
            if out:
                out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.process, self._disk):
            if process:
                process.wait(_WAIT_S)

    def await_ready(self) -> None:
        """Wait until it listens."""

        def listens() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the agent has ended: {self.messages.read_text()}")
            return self._ready.exists()

        _await(listens, "the agent does not listen")

    def await_read(self) -> None:
        """Wait until all that was logged before is in its spool, which is a file."""
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

        def read() -> bool:
            return any(int(ns) > now_ns for ns in _TICK.findall(self._spool.read_bytes()))

        _await(read, "the agent does not read its buffers")


def _await(condition: Callable[[], bool], why: str) -> None:
    end = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(why)
        time.sleep(0.01)
