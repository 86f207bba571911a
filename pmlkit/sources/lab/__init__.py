# SPDX-License-Identifier: Apache-2.0
"""A patched Xen on an emulated CPU with PML (Bochs).

Modules
-------
session  `run` and `collect`: boot, log a guest, take the spool
options  `LabOptions`
guests   bare-metal guests and Linux guests of the lab
boot, bochs, disks, image, parts, shell, xen
         the emulated machine and what it is made of
ingest   a spool of the lab converted to a trace
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.sources.lab.session import Lab, LabOptions, build, collect, run

__all__ = ["Lab", "LabOptions", "build", "collect", "run"]

__getattr__ = lazy("pmlkit.sources.lab", dict.fromkeys(__all__, "sources.lab.session"))
