# SPDX-License-Identifier: Apache-2.0
"""A patched Xen on an emulated CPU with PML (Bochs).

Modules
-------
session  `LabOptions`, `run` and `collect`: boot, log a guest, copy the spool
guests   bare-metal guests and Linux guests of the lab
boot     a bootable lab, and saved states of it
bochs    the emulator
xen      the patched Xen, built from source
parts    Debian's packages
image    dom0's root and the boot medium
disks    dom0's job and its results
shell    a terminal in dom0, without a job: only for the command, because it needs a terminal
kvm      the same machine with Debian's own KVM instead of Xen
ingest   a spool of the lab converted to a trace (one module for each format of spools)
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.sources.lab.session import Lab, LabOptions, build, collect, run

__all__ = ["Lab", "LabOptions", "build", "collect", "run"]

__getattr__ = lazy("pmlkit.sources.lab", dict.fromkeys(__all__, "sources.lab.session"))
