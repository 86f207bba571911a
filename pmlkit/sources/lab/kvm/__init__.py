# SPDX-License-Identifier: Apache-2.0
"""Debian's own KVM on an emulated CPU with PML (Bochs), without patches.

Modules
-------
session  `KvmLabOptions`, `run` and `collect`: boot the host, log a guest, take the spool
image    the host's root and the boot medium
qemu     Debian's QEMU as the VMM
ingest   a spool of it converted to a trace
steps    the monitor, driven step by step by a script on the host, for experiments and tests

``vmm`` is the monitor that runs the guest and has its pages logged, in C; ``init`` and ``run.sh``
run on the host.
"""
