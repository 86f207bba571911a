# SPDX-License-Identifier: Apache-2.0
"""The log of any VM on a stock Linux/KVM host: runs there, and writes a spool.

It needs Python 3.9 and nothing else but the kernel's tracefs. `pmlkit.sources.kvm` converts the
spool to a trace.

Modules
-------
agent      the program: runs a job
job        options of logging, and the job that carries them
collector  a collection: what is captured becomes frames of a spool
frames     the frames' kinds, and how they are packed
capture    how entries are captured: by kprobes into instances of tracefs, or by BPF
bpf        the system call bpf(2): maps, programs, places where they run
program    the BPF program that captures entries, and its assembler
rings      rings of entries in memory: that program writes them, we read them
btf        the kernel's description of its functions
tracefs    tracefs: instances, kprobe events, pages of the ring buffer; undone after a death, too
rounds     the VMM's requests to KVM: re-arms, memory slots
tables     what stands in the frames that a round logged: page tables are told apart by it
guest_memory  the guest's frames, read out of the VMM's memory
idle       a sample of the frames that are touched, by the idle flags of the host's pages
switch     who switches logging on: the VMM itself, or we through QMP or libvirt
find       the VM: by libvirt's name, a QMP socket, or the VMM's process
qmp        QEMU's monitor
host       what a host has: kernel, parameters of KVM, rights
memory     without tracing: soft-dirty bits of the VMM's memory, and the aging of MGLRU
stop       when a collection ends, and why
shipping   the agent as files, or as a zipapp
"""
