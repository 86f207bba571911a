# SPDX-License-Identifier: Apache-2.0
"""trace-cmd's ``trace.dat``, versions 6 and 7, with the events of KVM's dirty rings.

The format is trace-cmd's (``trace-cmd.dat.v6(5)``, ``trace-cmd.dat.v7(5)``). It contains the
formats of the events from the kernel, options, and the pages of each CPU's ring buffer. A page
states whether events before it were lost, and usually how many. ``trace-cmd report`` prints the
same as text.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pmlkit import ftrace
from pmlkit.files import open_regular
from pmlkit.ftrace import Layout, format_of, layout_of
from pmlkit.interop.kvm_log import DirtyLog, frame
from pmlkit.interop.reading import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO, NoReturn

    from pmlkit.types import PathLike


__all__ = ["MAGIC", "read"]

MAGIC = b"\x17\x08\x44tracing"
_SECTION_LIMIT = 64 << 20  # bytes of a section, unpacked
_CHUNK_LIMIT = 16 << 20  # bytes of a chunk of a CPU's pages, unpacked
_DATA_LIMIT = 1 << 32  # bytes of all pages, unpacked
_PAGE_LIMIT = 1 << 20
_COUNT_LIMIT = 1 << 16  # limit of systems, events of a system, sections, CPUs
_DATE, _CPUSTAT, _BUFFER, _CLOCK, _UNAME, _OFFSET, _TSC = 1, 2, 3, 4, 5, 7, 14
_HEADERS, _FORMATS, _THREADS = 16, 18, 21
_VCPU = re.compile(r"^CPU (\d{1,5})/KVM")
_OVERRUN = re.compile(rb"^(?:overrun|commit overrun|dropped events): (\d{1,18})", re.MULTILINE)
_TIMED_CLOCKS = ("local", "global", "perf", "mono", "mono_raw", "boot", "tai", "uptime")
_MARKS = ("kvm_exit", "kvm_entry", "kvm_page_fault", "kvm_pml_full")
_SYSTEMS = ("kvm", "kprobes", "probe")


def read(path: PathLike) -> DirtyLog:
    """Read the events of a file.

    Raises
    ------
    ForeignFileError
        If it is cut short, damaged, or counts time in a unit other than nanoseconds.
    """
    with open_regular(path) as file:
        trace = _Reader(path, file)
        try:
            trace.read()
        except (struct.error, IndexError, zlib.error, pa.ArrowException) as error:
            trace.refuse(f"is cut off or damaged ({error})")
    return trace.log


@dataclass
class _Buffer:
    """Where the pages of one CPU's ring buffer are."""

    cpu: int
    offset: int
    size: int
    page_bytes: int
    packed: bool


class _Reader:
    """The reader of a file, and its state."""

    def __init__(self, path: PathLike, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = file.seek(0, 2)
        self.log = DirtyLog(path)
        self.log.counts_losses = True  # the kernel marks every loss
        self.events: dict[int, Callable[[str, int, int, bytes], None]] = {}
        self.order, self.page_bytes, self.layout = "<", 4096, Layout()
        self.date_ns, self.tsc = 0, (0, 0)
        self.compression, self.left = b"none", _DATA_LIMIT
        self.overrun, self.lost, self.cpu = 0, 0, 0

    def refuse(
        self, why: str, hint: str = "record it again, or import the text of `trace-cmd report`"
    ) -> NoReturn:
        raise ForeignFileError(self.path, f"byte {self.file.tell()}", why, hint)

    # Numbers and texts

    def take(self, count: int, limit: int = _SECTION_LIMIT) -> bytes:
        if count > limit or self.file.tell() + count > self.size:
            self.refuse(f"is cut off, or claims {count:,} bytes that do not exist")
        return self.file.read(count)

    def number(self, size: int) -> int:
        return self.of(self.take(size))

    def of(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")

    def count(self, size: int = 4) -> int:
        count = self.number(size)
        if count > _COUNT_LIMIT:
            self.refuse(f"claims {count:,} parts")
        return count

    def text(self) -> bytes:
        text = bytearray()
        while (byte := self.take(1)) != b"\0":
            text += byte
            if len(text) > 4096:
                self.refuse("has a name without an end")
        return bytes(text)

    def go(self, offset: int) -> None:
        if offset > self.size:
            self.refuse(f"points to byte {offset:,}, beyond its end")
        self.file.seek(offset)

    # The file

    def read(self) -> None:
        self.go(len(MAGIC))
        version = self.text()
        self.order = "<" if self.take(1) == b"\0" else ">"
        self.take(1)
        self.page_bytes = self.number(4)
        if version == b"6":
            buffers = self.read_6()
        elif version == b"7":
            buffers = self.read_7()
        else:
            self.refuse(f"has version {version!r}, and versions 6 and 7 are supported")
        if not self.events:
            self.refuse("has no kvm_dirty_ring_push", "record with `trace-cmd record -e kvm`")
        for buffer in buffers:
            self.read_buffer(buffer)
        if self.overrun > self.lost:  # the rest was lost after the last page
            self.log.add_loss("", self.overrun - self.lost)

    def read_6(self) -> list[_Buffer]:
        self.read_headers()
        for _ in range(self.count()):  # ftrace's own events
            self.take(self.number(8))
        self.read_formats()
        for _ in range(2):  # kallsyms, printk
            self.take(self.number(4))
        self.read_threads()
        cpus, tag, places = self.count(), self.take(10), [0]
        if tag == b"options  \0":
            while option := self.number(2):
                data = self.take(self.number(4))
                if option == _BUFFER:
                    places.append(self.of(data[:8]))
                elif option == 8:  # CPUCOUNT
                    cpus = min(self.of(data[:4]), _COUNT_LIMIT)
                else:
                    self.read_option(option, data)
            tag = self.take(10)
        buffers = self.buffers_6(tag, cpus)
        for place in places[1:]:
            self.go(place)
            buffers += self.buffers_6(self.take(10), cpus)
        return buffers

    def buffers_6(self, tag: bytes, cpus: int) -> list[_Buffer]:
        if tag != b"flyrecord\0":
            self.refuse(f"has {tag!r} instead of pages of a ring buffer")
        places = [(self.number(8), self.number(8)) for _ in range(cpus)]
        return [_Buffer(cpu, *place, self.page_bytes, False) for cpu, place in enumerate(places)]

    def read_7(self) -> list[_Buffer]:
        self.compression = self.text()
        self.text()
        options, place = [], self.number(8)
        for _ in range(64):
            if not place:
                break
            more, place = self.options_7(place)
            options += more
        sections = {option: self.of(data[:8]) for option, data in options if len(data) >= 8}
        for option, read in (
            (_HEADERS, self.read_headers),
            (_FORMATS, self.read_formats),
            (_THREADS, self.read_threads),
        ):
            if option in sections:
                self.within(sections[option], read)
        buffers = []
        for option, data in options:
            if option == _BUFFER:
                buffers += self.buffers_7(data)
            else:
                self.read_option(option, data)
        return buffers

    def options_7(self, place: int) -> tuple[list[tuple[int, bytes]], int]:
        self.go(place)
        self.section_header()
        options: list[tuple[int, bytes]] = []
        while len(options) < _COUNT_LIMIT:
            option, data = self.number(2), self.take(self.number(4))
            if option == 0:
                return options, self.of(data)
            options.append((option, data))
        self.refuse("has too many options")

    def section_header(self) -> tuple[bool, int]:
        """Return whether a section is compressed, and its size."""
        _, flags, _ = self.number(2), self.number(2), self.number(4)
        return bool(flags & 1), self.number(8)

    def within(self, place: int, read: Callable[[], None]) -> None:
        """Read a section with `read`, unpacked if necessary."""
        self.go(place)
        packed, _ = self.section_header()
        if not packed:
            read()
            return
        data = self.unpacked(_SECTION_LIMIT)
        kept = self.file, self.size
        self.file, self.size = io.BytesIO(data), len(data)
        try:
            read()
        finally:
            self.file, self.size = kept

    def unpacked(self, limit: int) -> bytes:
        packed, size = self.number(4), self.number(4)
        if size > limit:
            self.refuse(f"unpacks to {size:,} bytes, and at most {limit:,} are read")
        data = self.take(packed)
        if self.compression not in (b"zstd", b"zlib"):
            self.refuse(f"is compressed with {self.compression!r}, and zlib and zstd are supported")
        try:
            if self.compression == b"zstd":
                whole = pa.decompress(data, size, codec="zstd", asbytes=True)
            else:
                whole = zlib.decompressobj().decompress(data, size)
        except (OSError, ValueError, zlib.error) as error:  # pyarrow's errors are the first two
            self.refuse(f"contains damaged compressed data: {error}")
        if len(whole) != size:
            self.refuse(f"unpacks to {len(whole):,} bytes instead of {size:,}")
        return whole

    def buffers_7(self, data: bytes) -> list[_Buffer]:
        place = self.of(data[:8])
        name_end = data.index(b"\0", 8) if b"\0" in data[8:] else len(data)
        clock_end = data.index(b"\0", name_end + 1) if b"\0" in data[name_end + 1 :] else len(data)
        self.check_clock(data[name_end + 1 : clock_end])
        at = clock_end + 1
        page_bytes, cpus = self.of(data[at : at + 4]), self.of(data[at + 4 : at + 8])
        self.go(place)
        packed, _ = self.section_header()
        buffers = []
        for row in range(min(cpus, _COUNT_LIMIT)):
            one = data[at + 8 + 20 * row : at + 28 + 20 * row]
            if len(one) < 20:
                self.refuse("describes fewer CPUs than it declares")
            cpu, offset, size = self.of(one[:4]), self.of(one[4:12]), self.of(one[12:])
            buffers.append(_Buffer(cpu, offset, size, page_bytes, packed))
        return buffers

    # The sections

    def read_headers(self) -> None:
        if self.take(12) != b"header_page\0":
            self.refuse("has no header_page where one is required")
        text = self.take(self.number(8)).decode("ascii", "replace")
        layout = layout_of(text, self.order)
        if layout is None:
            self.refuse("has an unknown header_page")
        self.layout = layout
        if self.take(13) != b"header_event\0":
            self.refuse("has no header_event where one is required")
        self.take(self.number(8))

    def read_formats(self) -> None:
        for _ in range(self.count()):
            system = self.text().decode("ascii", "replace")
            for _ in range(self.count()):
                text = self.take(self.number(8))
                if system in _SYSTEMS:
                    self.add_format(system, text.decode("ascii", "replace"))

    def read_threads(self) -> None:
        for line in self.take(self.number(8)).decode("utf-8", "replace").splitlines():
            number, _, name = line.strip().partition(" ")
            vcpu = _VCPU.match(name.strip())
            if vcpu and number.isdecimal() and len(number) < 11:
                self.log.set_name("", int(number), int(vcpu[1]))

    def read_option(self, option: int, data: bytes) -> None:
        text = data.rstrip(b"\0 \n")
        if option == _DATE:
            self.date_ns += self.whole(text) * 1000
        elif option == _OFFSET:
            self.date_ns += self.whole(text)
        elif option == _UNAME:
            for word in text.decode("ascii", "replace").split()[2:3]:
                self.log.set_release(word)
        elif option == _CLOCK and b"[" in text:
            self.check_clock(text.partition(b"[")[2].partition(b"]")[0])
        elif option == _CPUSTAT:
            self.overrun += sum(int(count) for count in _OVERRUN.findall(text))
        elif option == _TSC and len(data) >= 16:
            self.tsc = self.of(data[:4]), min(self.of(data[4:8]), 63)

    def whole(self, text: bytes) -> int:
        try:
            return int(text[:40], 0)
        except ValueError:
            self.refuse(f"has the time {text[:40]!r}")

    def check_clock(self, name: bytes) -> None:
        if name and name.decode("ascii", "replace") not in _TIMED_CLOCKS and not self.tsc[0]:
            hint = "record with `trace-cmd record -C mono`"
            self.refuse(f"uses the clock {name[:40]!r}, not ns", hint)

    def add_format(self, system: str, text: str) -> None:
        event = format_of(text)
        if event is None:
            return
        name, number, fields = event.name, event.number, event.fields
        if name == "kvm_dirty_ring_push" and {"index", "slot", "offset"} <= fields.keys():
            self.events[number] = self.push(fields)
        elif name == "kvm_dirty_ring_reset" and "index" in fields:
            self.events[number] = self.reset(fields)
        elif name == "kvm_entry" and "vcpu_id" in fields:
            self.events[number] = self.entry(fields)
        elif name in _MARKS:
            self.events[number] = self.mark
        elif system != "kvm" and "gfn" in fields and "dirty" in name:
            self.events[number] = self.probe(fields)

    # Events

    def push(self, fields: dict[str, tuple[int, int]]) -> Callable[[str, int, int, bytes], None]:
        def add(where: str, time_ns: int, thread: int, data: bytes) -> None:
            ring, slot, offset = (self.field(data, fields[n]) for n in ("index", "slot", "offset"))
            self.log.last_ns[self.cpu] = time_ns
            self.log.add_page(where, time_ns, thread, ring, frame(slot, offset), absolute=False)

        return add

    def reset(self, fields: dict[str, tuple[int, int]]) -> Callable[[str, int, int, bytes], None]:
        def add(where: str, time_ns: int, thread: int, data: bytes) -> None:
            self.log.add_reset(where, time_ns, thread, self.field(data, fields["index"]))

        return add

    def probe(self, fields: dict[str, tuple[int, int]]) -> Callable[[str, int, int, bytes], None]:
        def add(where: str, time_ns: int, thread: int, data: bytes) -> None:
            gfn = self.field(data, fields["gfn"])
            place = gfn if gfn < 1 << 52 else None
            self.log.last_ns[self.cpu] = time_ns
            self.log.add_page(where, time_ns, thread, 0, place, absolute=True)

        return add

    def mark(self, where: str, time_ns: int, thread: int, data: bytes) -> None:
        self.log.add_mark(where, time_ns, thread)

    def entry(self, fields: dict[str, tuple[int, int]]) -> Callable[[str, int, int, bytes], None]:
        def add(where: str, time_ns: int, thread: int, data: bytes) -> None:
            self.log.add_mark(where, time_ns, thread, self.field(data, fields["vcpu_id"]))

        return add

    def field(self, data: bytes, place: tuple[int, int]) -> int:
        if sum(place) > len(data):
            raise IndexError("an event is shorter than its fields")
        return self.of(data[place[0] : sum(place)])

    # Ring buffers

    def read_buffer(self, buffer: _Buffer) -> None:
        page_bytes = max(buffer.page_bytes, self.layout.page_bytes)
        if not self.layout.data_at < page_bytes <= _PAGE_LIMIT:
            self.refuse(f"has pages of {page_bytes} bytes")
        self.cpu = buffer.cpu
        for number, page in enumerate(self.pages(buffer, page_bytes)):
            self.read_page(f"page {number} of CPU {buffer.cpu}", page)

    def pages(self, buffer: _Buffer, page_bytes: int) -> Iterator[bytes]:
        if not buffer.size:
            return
        self.go(buffer.offset)
        if not buffer.packed:
            if buffer.offset + buffer.size > self.size:
                self.refuse(f"is cut off: the pages of CPU {buffer.cpu} extend beyond its end")
            for _ in range(buffer.size // page_bytes):
                yield self.take(page_bytes)
            return
        for _ in range(self.number(4)):
            data = self.unpacked(_CHUNK_LIMIT)
            self.left -= len(data)
            if self.left < 0:
                self.refuse(f"unpacks to more than {_DATA_LIMIT:,} bytes of pages")
            for at in range(0, len(data) - page_bytes + 1, page_bytes):
                yield data[at : at + page_bytes]

    def read_page(self, where: str, page: bytes) -> None:
        try:
            count = ftrace.lost(page, self.layout)
            if count != 0:
                self.lost += count or 0
                self.log.add_loss(where, count, self.log.last_ns.get(self.cpu, 0))
            for time, data in ftrace.events(page, self.layout):
                self.read_event(where, time, data)
        except ftrace.PageDamaged as error:
            raise IndexError(f"{where} {error}") from error

    def read_event(self, where: str, time: int, data: bytes) -> None:
        add = self.events.get(self.of(data[:2]))
        if add is not None:
            scale, shift = self.tsc
            time_ns = ((time * scale) >> shift if scale else time) + self.date_ns
            add(where, max(time_ns, 0), self.of(data[4:8]), data)
