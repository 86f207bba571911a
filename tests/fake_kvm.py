# SPDX-License-Identifier: Apache-2.0
"""A KVM host for tests: a folder with /proc, /sys and tracefs, and buffers that tests fill.

What the kernel does when an instance or a kprobe event is made is done here by `install`, which
replaces three functions of `pmlkit.kvm.tracefs`. A buffer is a pipe with a name: a page that a test
writes is read once, as from the kernel.
"""

import os
import re
import shutil
import struct
from pathlib import Path

import tracedat

from pmlkit.kvm import rounds, tracefs
from pmlkit.kvm.frames import CALLS, LOG, MARKS, STREAMS
from pmlkit.kvm.host import Host

_COMMON = tracedat._COMMON
DIRTY, CALL, DONE, ENTRY, FAULT = 2001, 2002, 2003, 2004, 2005
_SIZES = {"u8": 1, "s32": 4, "u32": 4, "u64": 8, "s64": 8}
LINKS = ("anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:1")
QEMU = ("/usr/bin/qemu-system-x86_64", "-name", "guest=web1,debug-threads=on", "-accel", "kvm")


def event_format(name, number, fields):
    """Return the text of an event's format; `fields` are (name, size), one after another."""
    text, at = f"name: {name}\nID: {number}\nformat:\n{_COMMON}", 8
    for field, size in fields:
        text += f"\tfield:u{8 * size} {field};\toffset:{at};\tsize:{size};\tsigned:0;\n"
        at += size
    return text + '\nprint fmt: ""\n'


def _common(number, thread):
    return struct.pack("<HBBi", number, 0, 0, thread)


def dirty(time_ns, thread, gfn):
    """Make an event (time, data) of a logged page."""
    return time_ns, _common(DIRTY, thread) + struct.pack("<QQ", 0xFFFF_8000, gfn)


def call(time_ns, thread, number, values=()):
    """Make an event of a call of the VMM's."""
    values = (*values, 0, 0, 0, 0, 0)[:5]
    return time_ns, _common(CALL, thread) + struct.pack("<QIIIQQQ", 0, number, *values)


def done(time_ns, thread):
    """Make an event of its return."""
    return time_ns, _common(DONE, thread) + struct.pack("<QQq", 0, 0, 0)


def entry(time_ns, thread, vcpu):
    """Make an event of a VM entry."""
    return time_ns, _common(ENTRY, thread) + struct.pack("<IIQI", vcpu, 0, 0xFFF0, 0)


def fault(time_ns, thread):
    """Make an event of a page fault of the guest's."""
    return time_ns, _common(FAULT, thread) + struct.pack("<QQQ", 1, 2, 3)


KVM_ENTRY = event_format("kvm_entry", ENTRY, (("vcpu_id", 4), ("pad", 4), ("rip", 8), ("now", 4)))
KVM_FAULT = event_format("kvm_page_fault", FAULT, (("vcpu_id", 8), ("ip", 8), ("address", 8)))


class FakeKvm:
    """A host with one VM.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    def __init__(self, root, release="6.1.0-18-amd64", cpus=2):
        self.root, self.cpus = Path(root), cpus
        self.host = Host(self.root, release)
        self.tracing = self.root / "sys/kernel/tracing"
        self.pid, self.threads = (
            4711,
            {4711: "qemu-system-x86", 4712: "CPU 0/KVM", 4713: "CPU 1/KVM"},
        )
        self._write("sys/kernel/tracing/kprobe_events", "")
        self._write("sys/kernel/tracing/events/header_page", tracedat.HEADER_PAGE.decode())
        self._write("sys/kernel/tracing/events/kvm/kvm_entry/format", KVM_ENTRY)
        self._write("sys/kernel/tracing/events/kvm/kvm_page_fault/format", KVM_FAULT)
        (self.tracing / "instances").mkdir()
        for name, value in {"pml": "Y", "ept": "Y", "eptad": "Y"}.items():
            self._write(f"sys/module/kvm_intel/parameters/{name}", f"{value}\n")
        self._write(
            "proc/kallsyms", "0 T mark_page_dirty_in_slot\t[kvm]\n0 t kvm_vm_ioctl\t[kvm]\n"
        )
        self._write("proc/self/status", "CapEff:\t000001ffffffffff\n")
        self._write("proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n")
        self.process(os.getpid(), {os.getpid(): "python"}, links=())
        self.process(self.pid, self.threads, QEMU)

    @classmethod
    def attached(cls, root, release="6.1.0"):
        """Return the host of a folder that another process has made."""
        kvm = cls.__new__(cls)
        kvm.root, kvm.cpus, kvm.pid = Path(root), 2, 4711
        kvm.host, kvm.tracing = Host(kvm.root, release), kvm.root / "sys/kernel/tracing"
        kvm.process(os.getpid(), {os.getpid(): "python"}, links=())
        kvm.install(setattr)
        return kvm

    def _write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, pid, threads, command=("vmm",), links=LINKS, start=77):
        """Make a process."""
        own = Path(f"/proc/{pid}/stat")
        if pid == os.getpid() and own.exists():
            start = own.read_text().rpartition(")")[2].split()[19]
        self._write(f"proc/{pid}/stat", f"{pid} (a) b) S {' '.join(['1'] * 18)} {start} 1048576\n")
        self._write(f"proc/{pid}/comm", f"{threads[pid]}\n")
        self._write(f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in command))
        for thread, name in threads.items():
            self._write(f"proc/{pid}/task/{thread}/comm", f"{name}\n")
        (self.root / f"proc/{pid}/fd").mkdir(exist_ok=True)
        for number, link in enumerate(links):
            os.symlink(link, self.root / f"proc/{pid}/fd/{number}")

    def listen(self, path, pid=None):
        """Let a process have the socket that listens at a path."""
        table = self.root / "proc/net/unix"
        table.write_text(table.read_text() + f"0: 00000002 00000000 00010000 0001 01 999 {path}\n")
        os.symlink("socket:[999]", self.root / f"proc/{pid or self.pid}/fd/99")

    def give_memory_up(self):
        """Let the VM begin to end: its process has no memory any more, and its descriptors yet."""
        path = self.root / f"proc/{self.pid}/stat"
        path.write_text(path.read_text().rpartition(" ")[0] + " 0\n")

    def end(self):
        """Let the VM end."""
        shutil.rmtree(self.root / f"proc/{self.pid}")

    # Tracefs

    def instances(self):
        """Return the instances, by the end of their names."""
        found = sorted((self.tracing / "instances").iterdir())
        return {path.name.rpartition("-")[2]: path for path in found}

    def on(self):
        """Whether all buffers record."""
        paths = [path / "tracing_on" for path in self.instances().values()]
        return bool(paths) and all(p.exists() and p.read_text() == "1" for p in paths)

    def probes(self):
        """Return the names of the kprobe events."""
        return re.findall(r"^[pr]:(\S+)", (self.tracing / "kprobe_events").read_text(), re.M)

    def feed(self, stream, cpu, events, missed=None):
        """Write one page of a ring buffer."""
        path = self.instances()[STREAMS[stream]] / f"per_cpu/cpu{cpu}/trace_pipe_raw"
        pipe = os.open(path, os.O_RDWR)
        os.write(pipe, tracedat.page(events, missed))
        self._held = [*getattr(self, "_held", []), pipe]  # a pipe that nobody has open is empty

    def count(self, stream, cpu, **counts):
        """Set what the kernel counts of a CPU."""
        path = self.instances()[STREAMS[stream]] / f"per_cpu/cpu{cpu}/stats"
        names = {"overrun": "overrun", "dropped": "dropped events", "read": "read events"}
        path.write_text("".join(f"{names[n]}: {value}\n" for n, value in counts.items()))

    def make_instance(self, path):
        """Do what the kernel does."""
        path.mkdir()
        events = [
            p.parent.relative_to(self.tracing) for p in self.tracing.glob("events/*/*/format")
        ]
        for name in ("tracing_on", "trace_clock", "buffer_size_kb", "set_event_pid",
                     "options/event-fork", "events/enable"):  # fmt: skip
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text("")
        for event in events:
            (path / event).mkdir(parents=True, exist_ok=True)
            (path / event / "enable").write_text("0")
            (path / event / "filter").write_text("none")
        for cpu in range(self.cpus):
            (path / f"per_cpu/cpu{cpu}").mkdir(parents=True)
            os.mkfifo(path / f"per_cpu/cpu{cpu}/trace_pipe_raw")
            (path / f"per_cpu/cpu{cpu}/stats").write_text("overrun: 0\ndropped events: 0\n")

    def write(self, host, path, text, append=False):
        """Write a file of tracefs, and do what the kernel does with kprobe events."""
        if path.name != "kprobe_events":
            REAL_WRITE(host, path, text, append)
        elif text.startswith("-:"):
            lines = path.read_text().splitlines(keepends=True)
            group = text[2:].partition("/")[0].replace("_", "-")
            if any((self.tracing / "instances").glob(f"{group}*")):
                raise tracefs.TracingRefused(path, "it is in use", "")
            path.write_text("".join(o for o in lines if f":{text[2:].strip()} " not in o))
        else:
            REAL_WRITE(host, path, text, append)
            self._probe(text)

    def _probe(self, text):
        head, _, *arguments = text.split()
        group, _, name = head.partition(":")[2].partition("/")
        fields = [("__probe_ip", 8)] if head[0] == "p" else [("__func", 8), ("__ret_ip", 8)]
        for argument in arguments:
            field, _, rest = argument.partition("=")
            fields.append((field, _SIZES[rest.rpartition(":")[2]]))
        number = {"dirty": DIRTY, "call": CALL, "done": DONE}[name]
        self._write(f"sys/kernel/tracing/events/{group}/{name}/format",
                    event_format(name, number, fields))  # fmt: skip

    def install(self, patch):
        """Replace what the kernel would do; `patch` is pytest's, or sets attributes."""
        patch(tracefs, "make_instance", self.make_instance)
        patch(tracefs, "remove_instance", shutil.rmtree)
        patch(tracefs, "write", self.write)


REAL_WRITE = tracefs.write
NUMBERS = {"log": LOG, "marks": MARKS, "calls": CALLS}
GET, CLEAR, RESET, REGION = rounds.GET, rounds.CLEAR, rounds.RESET, rounds.REGION
