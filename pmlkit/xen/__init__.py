# SPDX-License-Identifier: Apache-2.0
"""Xen's interfaces, and what runs in dom0. Needs nothing but Python and cffi.

- `pmlkit.xen.binding`: libxenctrl, libxenforeignmemory and libxenpml, loaded when first used
- `pmlkit.xen.stock`: stock log-dirty, which an unpatched Xen has
- `pmlkit.xen.pml`: the patched interface, the PML log of each vCPU
- `pmlkit.xen.frames`: what the agent writes into a spool
- `pmlkit.xen.agent`: logs a domain in dom0 and fills the spool
"""
