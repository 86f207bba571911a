# SPDX-License-Identifier: Apache-2.0
"""The system call bpf(2): maps, programs, and their attachment points.

A host has no library for it, so ctypes makes the calls. Only file descriptors keep these objects
alive: the kernel removes them at each end of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import format_of
from pmlkit.kvm.btf import BtfUnknown, Types
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.host import Host
from pmlkit.kvm.program import nothing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self


__all__ = ["CAPABILITIES", "BpfRefused", "Kernel", "Place", "entry_of", "entry_places",
           "mark_places", "probe", "why_not"]  # fmt: skip

CAPABILITIES = "CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)"
FUNCTION, MODULE = "mark_page_dirty_in_slot", "kvm"
MARKS = ("kvm_entry", "kvm_page_fault")
# A vCPU's thread leaves its CPU, or returns to the VMM; the VMM calls KVM for its VM.
LEAVE, CALL = "kvm_arch_vcpu_put", "kvm_vm_ioctl"
_BPF, _PERF_EVENT_OPEN = 321, 298  # of x86_64
_MAP_CREATE, _PROG_LOAD, _INFO, _RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
_BTF_FD_BY_ID, _BTF_NEXT_ID = 19, 23
_ARRAY, _MMAPABLE = 2, 1 << 10
_KPROBE, _TRACEPOINT, _TRACING = 2, 5, 26  # types of programs
_FENTRY = 24
_PERF_TRACEPOINT = 2  # a type of events
_LOAD = struct.Struct("<IIQQIIQII16sIIIIQIIQIII4x")
_PERF_EVENT = struct.Struct("<IIQQQQQIIQQ")
_SET_BPF = 0x40042408
# Offsets of the argument registers in the kernel's struct pt_regs on x86_64.
_REGISTERS = (112, 104, 96, 88, 72, 64)
_MISSES_AT, _INFO_BYTES = 208, 232
_LOG_BYTES = 1 << 16


class BpfRefused(PmlkitError):
    """The kernel refuses to load an object. Attribute: `errno`."""

    def __init__(self, what: str, number: int = 0, hint: str = "use --capture ftrace") -> None:
        self.errno = number
        super().__init__(what, hint)


def _refused(what: str, number: int, log: str = "") -> PmlkitError:
    if number == errno.EPERM and not Host().may_use_bpf():
        return NoRight(what, CAPABILITIES)
    if number == errno.EPERM:
        log = "we have the capabilities: does a security module, or lockdown, forbid it?"
    if number == errno.ENOSYS:
        return BpfRefused("this kernel has no BPF (CONFIG_BPF_SYSCALL)", number)
    why = f"{os.strerror(number)}: {log}" if log else os.strerror(number)
    return BpfRefused(f"the kernel refuses {what} ({why})", number)


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, what: str, *arguments: object) -> int:
    """Make a system call."""
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _refused(what, ctypes.get_errno())
    return result


def _bpf(command: int, what: str, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    size = len(attributes)
    data = ctypes.create_string_buffer(attributes, size) if isinstance(attributes, bytes) \
        else attributes  # fmt: skip
    return _call(_BPF, what, ctypes.c_long(command), data, ctypes.c_ulong(size))


def _at(data: ctypes.Array[ctypes.c_char] | None) -> int:
    return ctypes.addressof(data) if data is not None else 0


class Place:
    """The attachment point of a program: the entry of a function, or an event.

    Parameters
    ----------
    how : {"fentry", "event", "kprobe", "uprobe"}
        By the kernel's trampoline, with arguments; at an event of a tracepoint, with its fields; by
        a probe, with registers.
    where : str
        The function, or event; for a uprobe, the file.
    frame_at : int
        Offset of the frame, or of an event's vCPU, in the program's context, bytes.
    btf : int
        A descriptor of the module's BTF, which is closed with the program; 0 for the kernel.
    number : int
        Id of the function in BTF, or of the event; for a uprobe, the offset in the file, bytes.
    probes : Path, optional
        The kernel's description of its probes.
    """

    def __init__(
        self, how: str, where: str, frame_at: int, btf: int = 0, number: int = 0,
        probes: Path | None = None,
    ) -> None:  # fmt: skip
        self.how, self.where, self.frame_at = how, where, frame_at
        self.btf, self.number, self.probes = btf, number, probes

    @classmethod
    def register(cls, how: str, where: str, argument: int, number: int, probes: Path) -> Place:
        """Return a place whose frame is in the register of an argument."""
        return cls(how, where, _REGISTERS[argument], number=number, probes=probes)


class Kernel:
    """The objects of this process in the kernel; a context manager, which removes them."""

    def __init__(self) -> None:
        self._exits = contextlib.ExitStack()
        self._attached: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove all; idempotent."""
        self.detach()
        self._exits.close()

    def detach(self, keep: int = 0) -> None:
        """Detach the programs after the first `keep`, the last one first; idempotent.

        The program of the log, which relies on those before it, thus ends before them.
        """
        while len(self._attached) > keep:
            os.close(self._attached.pop())

    def _own(self, descriptor: int) -> int:
        self._exits.callback(os.close, descriptor)
        return descriptor

    def array(self, name: str, value_bytes: int, count: int) -> tuple[int, mmap.mmap]:
        """Create an array that can be mapped; return its descriptor and its memory."""
        _lift_limit()
        head = struct.pack("<IIIIIII", _ARRAY, 4, value_bytes, count, _MMAPABLE, 0, 0)
        what = f"an array of {count} times {value_bytes:,} bytes"
        descriptor = self._own(_bpf(_MAP_CREATE, what, head + _name(name) + bytes(28)))
        try:
            memory = mmap.mmap(descriptor, value_bytes * count)
        except OSError as error:
            raise _refused(f"to map {what}", error.errno or 0) from error
        return descriptor, memory

    def load(self, name: str, code: bytes, place: Place) -> int:
        """Load a program for a place; return its descriptor.

        Raises
        ------
        BpfRefused
            The message has the last line of the kernel's verifier.
        NoRight
        """
        text = ctypes.create_string_buffer(code, len(code))
        rights = ctypes.create_string_buffer(b"Apache-2.0")
        log = ctypes.create_string_buffer(_LOG_BYTES)
        traced = place.how == "fentry"
        kind = _TRACING if traced else _TRACEPOINT if place.how == "event" else _KPROBE
        if place.btf:
            self._own(place.btf)
        for level in (0, 1):  # the verifier's log only at a second attempt, because it costs time
            attributes = _LOAD.pack(
                kind, len(code) // 8, _at(text), _at(rights), level,
                _LOG_BYTES * level, _at(log) if level else 0, 0, 0, _name(name), 0,
                _FENTRY if traced else 0, 0, 0, 0, 0, 0, 0, 0,
                place.number if traced else 0, place.btf if traced else 0,
            )  # fmt: skip
            try:
                program = self._own(_bpf(_PROG_LOAD, "to load a BPF program", attributes))
                break
            except BpfRefused as error:
                if level:
                    raise _refused("the BPF program", error.errno, _last(log.value)) from error
        return program

    def attach(self, program: int, place: Place) -> None:
        """Attach a loaded program to its place."""
        if place.how == "fentry":
            what = f"BPF at {place.where}"
            link = _bpf(_RAW_TRACEPOINT_OPEN, what, struct.pack("<QII", 0, program, 0))
            self._attached.append(link)
            return
        event = self._probe(place)
        self._attached.append(event)
        if _libc.ioctl(event, ctypes.c_ulong(_SET_BPF), ctypes.c_int(program)) < 0:
            raise _refused(f"BPF at a {place.how} of {place.where}", ctypes.get_errno())

    def attach_all(self, programs: Sequence[tuple[int, Place]]) -> None:
        """Attach loaded programs to their places, in order: all of them, or none."""
        before = len(self._attached)
        try:
            for program, place in programs:
                self.attach(program, place)
        except PmlkitError:
            self.detach(keep=before)
            raise

    def _probe(self, place: Place) -> int:
        name = ctypes.create_string_buffer(place.where.encode())
        if place.probes is None:
            what = (_PERF_TRACEPOINT, _PERF_EVENT.size, place.number, *[0] * 8)
        else:
            kind = int(place.probes.read_text())
            what = (kind, _PERF_EVENT.size, *[0] * 7, _at(name), place.number)
        attributes = ctypes.create_string_buffer(_PERF_EVENT.pack(*what), _PERF_EVENT.size)
        anyone, any_cpu, no_group, close_on_exec = map(ctypes.c_long, (-1, 0, -1, 8))
        attachment = f"a {place.how} at {place.where}"
        try:
            return _call(_PERF_EVENT_OPEN, attachment, attributes, anyone, any_cpu, no_group,
                         close_on_exec)  # fmt: skip
        except BpfRefused as error:
            if error.errno == errno.EACCES:  # not so for a program: there it is the verifier's
                raise NoRight(attachment, CAPABILITIES) from error
            raise

    def missed(self, program: int) -> int:
        """Return how often a program did not run because it was already running on that CPU."""
        return _missed(program)


def _last(log: bytes) -> str:
    """Return the last line of the verifier's log that is not a statistic."""
    lines = log.decode(errors="replace").strip().splitlines()
    return next((one for one in reversed(lines) if not one.startswith(("processed", "verif"))), "")


def _missed(program: int) -> int:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    what = "the kernel's information about a program"
    _bpf(_INFO, what, struct.pack("<IIQ", program, _INFO_BYTES, _at(info)))
    (count,) = struct.unpack_from("<Q", info.raw, _MISSES_AT)
    return int(count)


def _name(text: str) -> bytes:
    return text.encode().ljust(16, b"\0")


def _lift_limit() -> None:
    """Before Linux 5.11, maps count as locked memory."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))


# ------------------------------------------------------------------------------
# Where the log can be captured


def why_not(host: Host) -> str:
    """Return why a capture by BPF is impossible here, as far as files show; otherwise ""."""
    machine = os.uname().machine
    if machine != "x86_64":
        return f"capture by BPF is not supported on {machine}"
    has_types = (host.root / "sys/kernel/btf/vmlinux").exists()
    if not has_types and not _kprobes(host).exists():
        return "this kernel has neither BTF nor a PMU of kprobes"
    return ""


def _kprobes(host: Host) -> Path:
    return host.root / "sys/bus/event_source/devices/kprobe/type"


def entry_places(host: Host) -> Iterator[Place]:
    """Yield the places at which the log can be captured, the cheapest first.

    Raises
    ------
    BpfRefused, NoRight
        If there are none.
    """
    place: Place | None = None
    hint = "modprobe kvm_intel (or kvm_amd), or use --capture ftrace"
    why: PmlkitError = BpfRefused(f"BPF finds no {FUNCTION} here", hint=hint)
    try:
        place = _by_trampoline(host)
    except PmlkitError as error:  # a module's BTF needs more rights than a kprobe
        why = error
    except (BtfUnknown, OSError):
        pass
    if place is not None:
        yield place
    if _kprobes(host).exists():
        yield Place.register("kprobe", FUNCTION, host.frame_argument, 0, _kprobes(host))
    elif place is None:
        raise why


def probe(host: Host) -> str:
    """Load a program that does nothing at the first place that works; return its type.

    Raises
    ------
    BpfRefused, NoRight
        If none works.
    """
    why: PmlkitError | None = None
    for place in entry_places(host):
        try:
            with Kernel() as kernel:
                kernel.attach(kernel.load("pmlkit_probe", nothing(), place), place)
            return place.how
        except PmlkitError as error:
            why = error
    raise why or BpfRefused(f"BPF finds no {FUNCTION} here")


@functools.lru_cache(maxsize=1)  # cached, because counting the kernel's types takes time
def _types(host: Host) -> tuple[Types, bool]:
    """Return the types that KVM has, and whether it is a module."""
    folder = host.root / "sys/kernel/btf"
    own = folder / MODULE
    module = own.read_bytes() if own.exists() else None
    return Types((folder / "vmlinux").read_bytes(), module), module is not None


def _by_trampoline(host: Host) -> Place | None:
    types, is_module = _types(host)
    function = types.function(FUNCTION)
    if "gfn" not in function.parameters:
        return None
    at = 8 * function.parameters.index("gfn")
    return Place("fentry", FUNCTION, at, _btf_of_kvm(is_module), function.number)


def mark_places(host: Host) -> list[Place]:
    """Return the events of VM entries and of page faults.

    They have fields. From Linux 6.2 on, the structures that a tracepoint has as arguments are for
    programs of another licence than ours.

    Raises
    ------
    BpfRefused
        If the kernel does not have them.
    """
    return [_event(host, name) for name in MARKS]


def _event(host: Host, name: str) -> Place:
    try:
        form = format_of((host.tracing / "events/kvm" / name / "format").read_text())
    except OSError as error:
        raise BpfRefused(f"BPF finds no event {name} here ({error.strerror})") from error
    at, size = form.fields.get("vcpu_id", (0, 4)) if form else (0, 0)
    if form is None or size not in (4, 8):
        raise BpfRefused(f"the kernel describes its event {name} in an unknown form")
    return Place("event", name, at, number=form.number)


def entry_of(host: Host, function: str) -> Place:
    """Return the entry of a function of KVM, for a program that needs none of its arguments.

    Raises
    ------
    BpfRefused, NoRight
        If the kernel's types do not contain it.
    """
    try:
        types, is_module = _types(host)
        number = types.entry(function)
    except (BtfUnknown, OSError) as error:
        raise BpfRefused(f"BPF finds no {function} here ({error})") from error
    return Place("fentry", function, 0, _btf_of_kvm(is_module), number)


def _btf_of_kvm(is_module: bool) -> int:
    return _module_btf(MODULE) if is_module else 0


def _module_btf(name: str) -> int:
    """Return a descriptor of a module's BTF, as the kernel has loaded it."""
    number = 0
    while True:
        next_id = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
        _bpf(_BTF_NEXT_ID, f"the BTF of {name}", next_id)
        (number,) = struct.unpack_from("<I", next_id.raw, 4)
        descriptor = _bpf(_BTF_FD_BY_ID, "BTF by its number", struct.pack("<III", number, 0, 0))
        if _btf_name(descriptor) == name:
            return descriptor
        os.close(descriptor)


def _btf_name(descriptor: int) -> str:
    room = ctypes.create_string_buffer(64)
    info = ctypes.create_string_buffer(struct.pack("<QIIQII", 0, 0, 0, _at(room), 64, 0), 32)
    _bpf(
        _INFO, "the kernel's information about BTF", struct.pack("<IIQ", descriptor, 32, _at(info))
    )
    return room.value.decode(errors="replace")
