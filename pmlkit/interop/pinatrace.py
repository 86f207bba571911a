# SPDX-License-Identifier: Apache-2.0
"""Intel Pin's example tool pinatrace: ``pin -t obj-intel64/pinatrace.so -- PROGRAM``.

Each line of ``pinatrace.out`` is an access: ``IP: R ADDRESS`` a read, ``IP: W ADDRESS`` a write, in
hexadecimal (``0x7f1c2b3a: R 0x7ffd5e10``). More columns may follow: the size in bytes, and the
value, which is ignored. `IP`, the instruction, is not an access to data. Pages are those of the
program's address space. There are no times: the clock counts accesses, and each access is a round.
Lines that begin with ``#`` are the tool's own; the last one is ``#eof``.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.reading import ForeignFileError, lines
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from pmlkit.interop.rounds import Chunk, Late
    from pmlkit.types import PathLike


SHIFT = 12
SIZE_LIMIT = 1 << 16  # bytes of one access: no instruction has more
_ADDRESS_LIMIT = 1 << 64
_CHUNK = 1 << 18  # uses that are yielded at once
_NUMBER = rb"0x[0-9a-fA-F]{1,16}"
# C++ prints the null pointer, which a program may prefetch, as 0, and C as (nil).
_ACCESS = re.compile(
    rb"%b: {1,20}([RW]) {1,20}(%b|0|\(nil\))(?: {1,20}(\d{1,9})(?: .*)?)?\s*$" % (_NUMBER, _NUMBER)
)
_KINDS = {b"R": int(Kind.READ), b"W": int(Kind.WRITE)}
_END = b"#eof"
_HINT = "each line must be `IP: R ADDRESS` or `IP: W ADDRESS`, with hexadecimal numbers of 64 bits"
_NOTES = (
    "pages are of the program's address space",
    "times are not known, only the order: the clock counts accesses, one is a nanosecond",
    "the instructions' own addresses are left out: they are not accesses to data",
)


def load(path: PathLike) -> Imported:
    """Read accesses; each is a round, so that their order is kept."""
    file = _File(path)
    return Imported(
        file.rounds(),
        notes=_NOTES,
        clock="accesses",
        each_a_use=True,
        address="virtual",
        late=file.late,
    )


class _File:
    """The accesses of a file; after the last one it is known whether the file is complete."""

    def __init__(self, path: PathLike) -> None:
        self._path, self._ended, self._cut = path, False, 0

    def late(self) -> Late:
        """Return the attributes of `Imported` that are known at the end of the file."""
        if self._ended:
            return {"complete": True}
        notes = (*_NOTES, "the file was cut off: it does not end with #eof")
        return {
            "complete": False,
            "notes": notes,
            "counts": {"line was omitted, because it is cut off": self._cut},
        }

    def rounds(self) -> Iterator[Chunk]:
        """Yield the chunks of `Imported.rounds`."""
        pages, kinds, ticks = array("Q"), array("B"), array("q")
        for tick, (first, last, kind) in enumerate(self._accesses()):
            for page in range(first, last + 1):  # an access may cross pages
                pages.append(page)
                kinds.append(kind)
                ticks.append(tick)
            if len(pages) >= _CHUNK:
                yield _columns(pages, kinds, ticks)
                pages, kinds, ticks = array("Q"), array("B"), array("q")
        if pages:
            yield _columns(pages, kinds, ticks)

    def _accesses(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first and last page of each access, and its kind."""
        for number, line in lines(self._path):
            if self._ended and line.strip():
                self._refuse(number, "follows #eof", "give the file of one run")
            if line.rstrip() == _END:
                self._ended = True
            elif not line.endswith(b"\n"):
                self._cut += not line.startswith(b"#")  # digits may be missing
            elif not line.startswith(b"#") and line.strip():
                yield self._access(number, line)

    def _access(self, number: int, line: bytes) -> tuple[int, int, int]:
        access = _ACCESS.match(line)
        if access is None:
            self._refuse(number, "is not an access", _HINT)
        begin = int(access[2], 16) if access[2].startswith(b"0x") else 0
        size = int(access[3] or 1)
        last = begin + max(size, 1) - 1
        if size > SIZE_LIMIT or last >= _ADDRESS_LIMIT:
            self._refuse(number, f"is not an access (of {size:,} bytes at {begin:#x})", _HINT)
        return begin >> SHIFT, last >> SHIFT, _KINDS[access[1]]

    def _refuse(self, number: int, why: str, hint: str) -> NoReturn:
        raise ForeignFileError(self._path, f"line {number}", why, hint)


def _columns(pages: array[int], kinds: array[int], ticks: array[int]) -> Chunk:
    starts = np.frombuffer(ticks, np.int64)
    return starts, starts + 1, 0, np.frombuffer(pages, np.uint64), np.frombuffer(kinds, np.uint8)
