# SPDX-License-Identifier: Apache-2.0
"""Xen's interfaces, and what runs in dom0. Needs nothing but Python 3.9 and cffi.

One module per thing that is wrapped:

- `pmlkit.xen.binding`: Xen's libraries, loaded when first used; errors with call, errno, domain
- `pmlkit.xen.xenctrl`: libxenctrl, whose ABI is not stable: found by version, tested, confined
- `pmlkit.xen.domains`: domains by name or id (Xenstore), and what has become of them
- `pmlkit.xen.mailbox`: foreign memory: the mailbox of the lab's guests
- `pmlkit.xen.pml`: the patched interface, the PML log of each vCPU (libxenpml, stable)
- `pmlkit.xen.stock`: stock log-dirty, which an unpatched Xen has

The collector:

- `pmlkit.xen.job`: what is asked of it
- `pmlkit.xen.collector`: rounds of a domain into a spool
- `pmlkit.xen.patched`, `pmlkit.xen.unpatched`: a round, with either interface
- `pmlkit.xen.stop`: when it ends, and why
- `pmlkit.xen.marks`: log-dirty mode is off after it, even if it was killed
- `pmlkit.xen.frames`: what it writes into the spool
- `pmlkit.xen.agent`: the program; `pmlkit.xen.lab_pace`: how rounds pass in the lab
- `pmlkit.xen.shipping`: all of that as files or a zipapp, for dom0
"""
