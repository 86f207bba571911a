# SPDX-License-Identifier: Apache-2.0
"""Boot a guest image on plain QEMU, without the recorder, and hear what it says."""

import subprocess
from dataclasses import dataclass

import pytest
from needs import REQUIRED
from waiting import HANG_S

from pmlkit.sources.guest import debian
from pmlkit.sources.guest import image as guest
from pmlkit.sources.recorder import qemu


@dataclass(frozen=True)
class Booted:
    """What a guest said: its report by lines, its console."""

    report: str
    console: str

    def of(self, word):
        """The rests of all report lines that begin with a word."""
        split = (line.partition(" ") for line in self.report.splitlines())
        return [rest for first, _, rest in split if first == word]

    @property
    def words(self):
        """The first word of each report line."""
        return [line.split()[0] for line in self.report.splitlines()]


def build(workload, *args, **options):
    """As `guest.build`; a machine without packages skips the test."""
    try:
        return guest.build(workload, *args, **options)
    except debian.PackageError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))


def boot(image, folder, memory_mib=None, deterministic=False):
    """Boot until the guest switches itself off."""
    console, report = folder / "console.txt", folder / "report.txt"
    memory_mib = memory_mib or image.workload.memory_mib
    command = qemu.command_line(image, memory_mib, console, report, deterministic)
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=HANG_S, check=True)
    return Booted(report.read_text(), console.read_text(errors="replace"))
