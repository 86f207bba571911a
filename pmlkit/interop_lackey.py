# SPDX-License-Identifier: Apache-2.0
"""valgrind's lackey: ``valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM``.

A line is an access: ``I`` an instruction, ``L`` a load, ``S`` a store, ``M`` a load and a store,
with the address (hexadecimal) and the size in bytes. Pages are those of the program's address
space. The clock counts instructions: one is a nanosecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop import ForeignFileError, Imported
from pmlkit.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.types import PathLike


INSTRUCTIONS = 1_000_000
SHIFT = 12
_KINDS = {
    "I ": (int(Kind.EXEC),),
    " L": (int(Kind.READ),),
    " S": (int(Kind.WRITE),),
    " M": (int(Kind.READ), int(Kind.WRITE)),
}


def load(path: PathLike, name: str, instructions: int | None = None, **_: Any) -> Imported:
    """Read accesses; so many instructions are a round."""
    length = instructions or INSTRUCTIONS
    notes = (
        "pages are of the program's address space",
        "the clock counts instructions: one is a nanosecond",
    )
    return Imported(_rounds(path, length), notes=notes, clock="instructions", ordered=False)


def _rounds(path: PathLike, length: int) -> Iterator[tuple[NDArray[np.uint64] | int, ...]]:
    used, count, start = {}, 0, 0  # type: ignore[var-annotated]
    for first, last, kinds in _accesses(path):
        if kinds == _KINDS["I "]:
            if count == length:
                yield _round(start, start + length, used)
                used, count, start = {}, 0, start + length
            count += 1
        for page in range(first, last + 1):  # an access may cross pages
            for kind in kinds:
                used[page, kind] = None
    if used:
        yield _round(start, start + max(count, 1), used)


def _round(
    start: int, end: int, used: Mapping[tuple[int, int], None]
) -> tuple[NDArray[np.uint64] | int, ...]:
    pages = np.array([page for page, _ in used], dtype=np.uint64)
    return start, end, 0, pages, np.array([kind for _, kind in used], dtype=np.uint64)


def _accesses(path: PathLike) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Give the first and last page and the kinds of each access."""
    with open(path, encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            kinds = _KINDS.get(line[:2])
            if kinds is None:
                if line.strip() and not line.startswith(("==", "--")):
                    raise ForeignFileError(path, f"line {number}", "is no line of lackey's")
                continue
            try:
                address, size = line[3:].split(",")
                begin, size = int(address, 16), int(size)  # type: ignore[assignment]
            except ValueError as error:
                raise ForeignFileError(path, f"line {number}", "is no access") from error
            yield begin >> SHIFT, (begin + max(size, 1) - 1) >> SHIFT, kinds  # type: ignore[operator]
