# SPDX-License-Identifier: Apache-2.0
"""The log of any VM on a stock Linux/KVM host: this package runs there and writes a spool.

It needs only Python 3.9 and the kernel's tracefs. `pmlkit.sources.kvm` converts the spool to a
trace.

Modules
-------
agent      the program: runs a job
job        options of logging, and the job that carries them
collector  a collection: writes captured entries to a spool
frames     the frames' kinds, and how they are packed
capture    how entries are captured: by kprobes into instances of tracefs, or by BPF
bpf        the system call bpf(2): maps, programs, attachment points
program    the BPF program that captures entries, and its assembler
rings      rings of entries in memory: the program writes them, and we read them
btf        the kernel's description of its functions
tracefs    tracefs: instances, kprobe events, pages of the ring buffer; with cleanup after a crash
rounds     the VMM's requests to KVM: re-arms, memory slots
tables     the content of logged frames, which identifies page tables
guest_memory  the guest's frames, read from the VMM's memory
idle       a sample of touched frames, from the idle flags of the host's pages
switch     switches logging on: by the VMM itself, or through QMP or libvirt
find       the VM: by libvirt's name, a QMP socket, or the VMM's process
qmp        QEMU's monitor
host       facts about a host: kernel, parameters of KVM, rights
memory     without tracing: soft-dirty bits of the VMM's memory, and the aging of MGLRU
stop       the end of a collection, and its reason
shipping   the agent as files, or as a zipapp
"""
