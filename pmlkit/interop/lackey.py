# SPDX-License-Identifier: Apache-2.0
"""valgrind's lackey: ``valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM``.

Each line is an access: ``I`` an instruction, ``L`` a load, ``S`` a store, ``M`` a load and a store,
with the address (hexadecimal) and the size in bytes. Pages are those of the program's address
space. The clock counts instructions: one instruction is one nanosecond. valgrind's own lines begin
with ``==``, ``--`` or ``**`` and the number of the process.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError, argument
from pmlkit.files import open_regular
from pmlkit.interop.reading import ForeignFileError, lines
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pmlkit.interop.rounds import Chunk
    from pmlkit.types import PathLike


INSTRUCTIONS = 1_000_000
SHIFT = 12
SIZE_LIMIT = 1 << 16  # bytes of one access: no instruction has more
_ADDRESS_LIMIT = 1 << 64
_CHUNK = 1 << 18  # uses that are yielded at once
_BLOCK = 1 << 20
_ACCESS = re.compile(rb"(I|(?: [LSM])) {1,3}([0-9a-fA-F]{1,16}),(\d{1,9})\s*$")
_BEGINS = (b"I ", b" L", b" S", b" M")
_VALGRIND = re.compile(rb"(==|--|\*\*)(\d{1,10})\1")  # with the number of the process
_KINDS = {
    b"I ": (int(Kind.EXEC),),
    b" L": (int(Kind.READ),),
    b" S": (int(Kind.WRITE),),
    b" M": (int(Kind.READ), int(Kind.WRITE)),
}
_HINT = "use valgrind's --log-file, which keeps the program's own output out"


def load(path: PathLike, instructions: int | None = None) -> Imported:
    """Read accesses; a round has `instructions` (a million)."""
    length = INSTRUCTIONS if instructions is None else instructions
    if length < 1:
        what = f"a round of {length:,} instructions"
        raise UsageError(f"{what} is not possible: give more {argument('instructions')}")
    next(_accesses(path), None)  # a file of another format is refused before it is read as a whole
    total, clock = _count(path, b"\nI"), "the clock counts instructions: one is a nanosecond"
    counted: Sequence[bytes] = _BEGINS[:1]
    unit = "instructions"
    if not total:
        total, counted = _count(path, *(b"\n" + begin for begin in _BEGINS[1:])), _BEGINS[1:]
        unit = "accesses"
        clock = (
            "the clock counts accesses, because the file has no instructions: one is a nanosecond"
        )
    return Imported(
        _rounds(path, min(length, max(total, 1)), total, counted),
        notes=("pages are of the program's address space", clock),
        clock=unit,
        ordered=False,
        address="virtual",
        complete=None,
    )


def _count(path: PathLike, *patterns: bytes) -> int:
    """Count the lines that begin with one of some patterns of equal length."""
    count, before = 0, b"\n"
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            block = before + block
            count += sum(block.count(pattern) for pattern in patterns)
            before = block[1 - len(patterns[0]) :]
    return count


def _rounds(path: PathLike, length: int, total: int, counted: Sequence[bytes]) -> Iterator[Chunk]:
    pages, kinds, ticks = array("Q"), array("B"), array("q")
    tick = -1
    for first, last, begin in _accesses(path):
        tick += begin in counted
        kind = _KINDS[begin]
        for page in range(first, last + 1):  # an access may cross pages
            pages.extend([page] * len(kind))
            kinds.extend(kind)
            ticks.extend([max(tick, 0)] * len(kind))
        if len(pages) >= _CHUNK:
            yield _columns(pages, kinds, ticks, length, total)
            pages, kinds, ticks = array("Q"), array("B"), array("q")
    if pages:
        yield _columns(pages, kinds, ticks, length, total)


def _columns(
    pages: array[int], kinds: array[int], ticks: array[int], length: int, total: int
) -> Chunk:
    starts = np.frombuffer(ticks, np.int64) // length * length
    ends = np.minimum(starts + length, total)
    return starts, ends, 0, np.frombuffer(pages, np.uint64), np.frombuffer(kinds, np.uint8)


def _accesses(path: PathLike) -> Iterator[tuple[int, int, bytes]]:
    """Yield the first and last page of each access, and the beginning of its line."""
    process: bytes | None = None
    for number, line in lines(path):
        access = _ACCESS.match(line)
        if access is None:
            process = _process(path, number, line, process)
            continue
        begin, size = int(access[2], 16), int(access[3])
        last = begin + max(size, 1) - 1
        if size > SIZE_LIMIT or last >= _ADDRESS_LIMIT:
            why = f"is not an access (of {size:,} bytes at {begin:#x})"
            raise ForeignFileError(path, f"line {number}", why)
        yield begin >> SHIFT, last >> SHIFT, line[:2]


def _process(path: PathLike, number: int, line: bytes, process: bytes | None) -> bytes | None:
    """Return the process that a line of valgrind names, or the last one; refuse other lines."""
    own = _VALGRIND.match(line)
    if own is None:
        if line.strip():
            what = "is not an access" if line.startswith(_BEGINS) else "is not a line of lackey's"
            raise ForeignFileError(path, f"line {number}", what, _HINT)
        return process
    if process not in (None, own[2]):
        why = "belongs to a second process with unrelated addresses"
        hint = "use valgrind --log-file=NAME.%p, which writes one file per process"
        raise ForeignFileError(path, f"line {number}", why, hint)
    return own[2]
