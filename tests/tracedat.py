# SPDX-License-Identifier: Apache-2.0
"""Small files of trace-cmd, written as its documents say, with the kernel's own event formats."""

import struct
import zlib

import pyarrow as pa

HEADER_PAGE = (
    b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    b"\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    b"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    b"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"
)
HEADER_EVENT = (
    b"# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n"
    b"\tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n"
    b"\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
)
_COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
_RING = (
    "\tfield:int index;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:u32 dirty_index;\toffset:12;\tsize:4;\tsigned:0;\n"
    "\tfield:u32 reset_index;\toffset:16;\tsize:4;\tsigned:0;\n"
)
PUSH = (
    "name: kvm_dirty_ring_push\nID: 30\nformat:\n" + _COMMON + _RING
    + "\tfield:u32 slot;\toffset:20;\tsize:4;\tsigned:0;\n"
    "\tfield:u64 offset;\toffset:24;\tsize:8;\tsigned:0;\n\n"
    'print fmt: "ring %d: dirty 0x%x reset 0x%x slot %u offset 0x%llx (used %u)", REC->index, '
    "REC->dirty_index, REC->reset_index, REC->slot, REC->offset, "
    "REC->dirty_index - REC->reset_index\n"
)  # fmt: skip
RESET = (
    "name: kvm_dirty_ring_reset\nID: 29\nformat:\n" + _COMMON + _RING
    + '\nprint fmt: "ring %d: dirty 0x%x reset 0x%x (used %u)", REC->index, REC->dirty_index, '
    "REC->reset_index, REC->dirty_index - REC->reset_index\n"
)  # fmt: skip
PAGE = 4096
UNAME = b"Linux host 6.1.0-18-amd64 #1 SMP x86_64\0"


def push(time_ns, thread, ring, slot, offset):
    """Make an event (time, bytes) of a ring's entry."""
    return time_ns, struct.pack("<HBBiiIIIQ", 30, 0, 0, thread, ring, 1, 0, slot, offset)


def reset(time_ns, thread, ring):
    """Make an event of a ring's reset, with four bytes of padding."""
    return time_ns, struct.pack("<HBBiiIII", 29, 0, 0, thread, ring, 1, 1, 0)


def page(events, missed=None, large=False):
    """Make a page of a ring buffer; `missed` events before it (-1: nobody knows how many)."""
    first = events[0][0] if events else 0
    data, before = b"", first
    for time_ns, payload in events:
        delta = time_ns - before
        if delta >= 1 << 27:
            data += struct.pack("<II", 30 | (delta & ((1 << 27) - 1)) << 5, delta >> 27)
            delta = 0
        if large:
            data += struct.pack("<II", delta << 5, len(payload) + 4) + payload
        else:
            data += struct.pack("<I", len(payload) // 4 | delta << 5) + payload
        before = time_ns
    commit, tail = len(data), b""
    if missed is not None:
        commit |= 1 << 31
    if missed is not None and missed >= 0:
        commit, tail = commit | 1 << 30, struct.pack("<Q", missed)
    return (struct.pack("<QQ", first, commit) + data + tail).ljust(PAGE, b"\0")


def _sized(*texts):
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def _headers():
    return b"header_page\0" + _sized(HEADER_PAGE) + b"header_event\0" + _sized(HEADER_EVENT)


def _formats():
    head = struct.pack("<I", 1) + b"kvm\0" + struct.pack("<I", 2)
    return head + _sized(PUSH.encode(), RESET.encode())


def _threads(threads):
    return _sized("".join(f"{number} {name}\n" for number, name in threads.items()).encode())


def version_6(cpus, threads=(), options=()):
    """Write version 6: `cpus` are lists of pages, `options` pairs of number and bytes."""
    options = [(5, UNAME), *options]
    data = b"\x17\x08\x44tracing6\0\0\x08" + struct.pack("<I", PAGE) + _headers()
    data += struct.pack("<I", 0) + _formats() + struct.pack("<II", 0, 0) + _threads(dict(threads))
    data += struct.pack("<I", len(cpus)) + b"options  \0"
    for number, text in options:
        data += struct.pack("<HI", number, len(text)) + text
    data += struct.pack("<H", 0) + b"flyrecord\0"
    at = -(-(len(data) + 16 * len(cpus)) // PAGE) * PAGE
    pages = b""
    for cpu in cpus:
        size = PAGE * len(cpu)
        data += struct.pack("<QQ", at + len(pages), size)
        pages += b"".join(cpu)
    return data.ljust(at, b"\0") + pages


def version_7(cpus, threads=(), options=(), codec=None):
    """Write version 7; `codec` ("zlib", "zstd") compresses the data, and None leaves them."""
    pack = {"zlib": zlib.compress, "zstd": _zstd, None: None}[codec]
    name = (codec or "none").encode()
    data = b"\x17\x08\x44tracing7\0\0\x08" + struct.pack("<I", PAGE) + name + b"\x001\0"
    hole, data = len(data), data + bytes(8)
    places = {}
    for number, body in ((16, _headers()), (18, _formats()), (21, _threads(dict(threads)))):
        places[number] = len(data)
        if pack:
            packed = pack(body)
            body = struct.pack("<II", len(packed), len(body)) + packed
        data += struct.pack("<HHIQ", number, 1 if pack else 0, 0, len(body)) + body
    buffer, bodies = len(data), []
    at = -(-(len(data) + 16) // PAGE) * PAGE
    for cpu in cpus:
        body = b"".join(cpu)
        if pack:
            chunks = [pack(one) for one in cpu]
            body = struct.pack("<I", len(chunks)) + b"".join(
                struct.pack("<II", len(chunk), PAGE) + chunk for chunk in chunks
            )
        bodies.append(body)
    data += struct.pack("<HHIQ", 3, 1 if pack else 0, 0, sum(map(len, bodies)))
    data = data.ljust(at, b"\0")
    rows = b""
    for number, body in enumerate(bodies):
        rows += struct.pack("<IQQ", number, len(data), len(body))
        data += body
    about = struct.pack("<Q", buffer) + b"\0local\0" + struct.pack("<II", PAGE, len(cpus)) + rows
    told = [(3, about), (5, UNAME), *options]
    told += [(number, struct.pack("<Q", place)) for number, place in places.items()]
    told.append((0, bytes(8)))
    body = b"".join(struct.pack("<HI", number, len(text)) + text for number, text in told)
    place = len(data)
    data += struct.pack("<HHIQ", 0, 0, 0, len(body)) + body
    return data[:hole] + struct.pack("<Q", place) + data[hole + 8 :]


def _zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)
