# SPDX-License-Identifier: Apache-2.0
"""Xen's interfaces, and the agent in dom0. It needs only Python 3.9 and cffi.

One module per wrapped interface:

- `pmlkit.xen.binding`: Xen's libraries, loaded when first used; errors with call, errno, domain
- `pmlkit.xen.xenctrl`: libxenctrl, whose ABI is not stable
- `pmlkit.xen.domains`: domains by name or id (Xenstore), and how they ended
- `pmlkit.xen.pml`: the patched interface, the PML log of each vCPU (libxenpml, stable)
- `pmlkit.xen.stock`: stock log-dirty, which an unpatched Xen has (libxendevicemodel)

The collector:

- `pmlkit.xen.job`: its options and its job
- `pmlkit.xen.collector`: rounds of a domain into a spool
- `pmlkit.xen.stop`: the end of a collection, and its reason
- `pmlkit.xen.marks`: switches log-dirty mode off after a killed collection
- `pmlkit.xen.frames`: the frames of the spool
- `pmlkit.xen.agent`: the program; `pmlkit.xen.lab`: how rounds pass in the lab
- `pmlkit.xen.shipping`: all of it as files or a zipapp, for dom0
"""
