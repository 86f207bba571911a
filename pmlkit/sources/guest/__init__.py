# SPDX-License-Identifier: Apache-2.0
"""Kernels, root file systems and workloads of the emulated VMs.

Modules
-------
image     the initial RAM disk of a workload
workload  workloads by name, by folder or from a C file
programs  static programs for a guest
kernel    the guest's Linux kernel
cpio      the archive format of an initial RAM disk
debian, debian_source
          Debian's packages and source packages, fetched and unpacked
"""
