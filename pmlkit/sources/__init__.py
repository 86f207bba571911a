# SPDX-License-Identifier: Apache-2.0
"""Sources of traces. A source observes; it does not estimate working sets.

- `pmlkit.sources.recorder`: a real Linux guest under QEMU; every frame that it reads, writes or
  executes, and the log of an emulated PML
- `pmlkit.sources.simulator`: a software PML applied to a recorded access trace
"""
