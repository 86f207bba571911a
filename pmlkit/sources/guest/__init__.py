# SPDX-License-Identifier: Apache-2.0
"""What the emulated VMs boot: kernels, root file systems and workloads.

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
