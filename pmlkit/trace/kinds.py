# SPDX-License-Identifier: Apache-2.0
"""The kinds of entries: read, written, executed, or page table; the flags of page tables."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.units import is_bare

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Bools


class Kind(enum.IntFlag, boundary=enum.KEEP):
    """What happened to the frame of an entry (one byte).

    An entry of an access trace is one of READ, WRITE and EXEC. An entry of a PML log is a write: to
    data (WRITE), to a page table (``PAGE_TABLE | level``, from level 1 for a leaf to 5), or to
    either (UNKNOWN). The low bits of a page table's kind are a number, not flags: use
    `is_page_table` and `select_kinds` rather than ``&``.
    """

    UNKNOWN = 0
    READ = 1
    WRITE = 2
    EXEC = 4
    PAGE_TABLE = 0x10


class TableFlag(enum.IntFlag):
    """Flags of a page-table entry in a snapshot (one byte).

    ACCESSED and DIRTY are the guest's own flags, set by its processor and sticky. A LEAF maps a
    page: every entry of level 1, and entries of higher levels for large pages. CLEARED: the flags
    of the table were clear at the start of the round, so ACCESSED was set in this round.
    """

    PRESENT = 1
    ACCESSED = 2
    LEAF = 4
    DIRTY = 8
    WRITABLE = 0x10
    USER = 0x20
    CLEARED = 0x40


ACCESS_KINDS = (Kind.READ, Kind.WRITE, Kind.EXEC)
PML_KINDS = (Kind.UNKNOWN, Kind.WRITE, *(Kind.PAGE_TABLE | level for level in range(1, 6)))
KINDS = {"access": ACCESS_KINDS, "pml": PML_KINDS}
_LETTERS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.EXEC, "p": Kind.PAGE_TABLE}
WORDS = {"read": "r", "written": "w", "executed": "x", "page-tables": "p"}


def is_page_table(kind: Any) -> Any:
    """Whether `kind`, a number or an array, is a page table."""
    return (kind & int(Kind.PAGE_TABLE)) != 0


def page_table_level(kind: Any) -> Any:
    """Return the level, 1 (leaf) to 5, of page-table kinds (a number or an array)."""
    return kind & 0x0F


def parse_kinds(kinds: str | int | None) -> Kind | None:
    """Convert words, letters or a mask to a mask; None is all kinds.

    Parameters
    ----------
    kinds : str, int or None
        Words of `WORDS` with commas between (``"read,written"``), letters (``"rw"``), or a mask.

    Raises
    ------
    UsageError
        If a word, a letter or a bit is unknown, or no kind is given.
    """
    if kinds is None:
        return None
    if isinstance(kinds, str):
        letters = "".join(WORDS.get(word, word) for word in kinds.split(","))
        if not letters or set(letters) - set(_LETTERS):
            words = ", ".join(WORDS)
            raise UsageError(
                f"the kinds {kinds!r} are not known: use {words}, with commas between, or "
                f"letters from {', '.join(_LETTERS)}"
            )
        return Kind(sum({int(_LETTERS[letter]) for letter in letters}))
    if not is_bare(kinds) or not 0 < kinds <= 0x17 or kinds & 0x08:
        raise UsageError(
            f"the kinds mask {kinds!r} is not known: combine READ, WRITE, EXEC, PAGE_TABLE"
        )
    return Kind(int(kinds))


def select_kinds(kinds: str | int | None) -> Bools:
    """Return for each of the 256 values of a kind whether `kinds` (`parse_kinds`) selects it.

    WRITE also selects UNKNOWN, which is a write to an unknown kind of page. PAGE_TABLE selects
    every level.

    Returns
    -------
    ndarray of bool, shape (256,)
        Use it as ``select_kinds("rw")[kind_column]``.
    """
    mask = parse_kinds(kinds)
    if mask is None:
        return np.ones(256, dtype=bool)
    values = np.arange(256)
    plain = (values & int(mask) & 0x07) != 0
    plain[Kind.UNKNOWN] = bool(mask & Kind.WRITE)
    return np.where(is_page_table(values), bool(mask & Kind.PAGE_TABLE), plain)
