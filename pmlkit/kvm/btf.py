# SPDX-License-Identifier: Apache-2.0
"""BTF, the kernel's own description of its types: functions, and the positions of their arguments.

A module's types are numbered after those of the kernel, so the kernel's must be counted. The format
is the kernel's (``Documentation/bpf/btf.rst``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["BtfUnknown", "Function", "Types"]

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_PARAMETER = struct.Struct("<II")
_MAGIC = 0xEB9F
_FUNC, _FUNC_PROTO = 12, 13
# The bytes after a type's head, by its kind: so many, and so many for each of its members.
_FIXED = (0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0)
_EACH = (0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12)


class BtfUnknown(ValueError):
    """The BTF is of an unknown form, or lacks the function."""


class Function(NamedTuple):
    """A function.

    Attributes
    ----------
    number : int
        Id of its type.
    parameters : list of str
        Their names, in order.
    """

    number: int
    parameters: list[str]


class _Btf:
    """The parts of a piece of BTF; `base` has the types before its own."""

    def __init__(self, data: bytes, base: _Btf | None = None) -> None:
        try:
            magic, _, _, size, *parts = _HEADER.unpack_from(data)
        except struct.error as error:
            raise BtfUnknown("it is cut off") from error
        if magic != _MAGIC:
            raise BtfUnknown("it does not begin with BTF's magic number")
        types_at, types_bytes, names_at, names_bytes = parts
        self.types = data[size + types_at : size + types_at + types_bytes]
        self.names = data[size + names_at : size + names_at + names_bytes]
        self.base = base
        self.first: int = base.first + base.count() if base else 1
        self.names_from: int = base.names_from + len(base.names) if base else 0

    def walk(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield each type's name, kind, reference (or size), and the position of its rest."""
        types, unpack, at = self.types, _TYPE.unpack_from, 0
        fixed, each = _FIXED, _EACH
        try:
            while at < len(types):
                name, info, refers = unpack(types, at)
                kind = info >> 24 & 31
                yield name, kind, refers, at
                at += 12 + fixed[kind] + each[kind] * (info & 0xFFFF)
        except (struct.error, IndexError) as error:
            raise BtfUnknown(f"a type at byte {at} is not known") from error

    def count(self) -> int:
        return sum(1 for _ in self.walk())

    def name(self, number: int) -> str:
        """Return the name at an offset."""
        if number < self.names_from and self.base:
            return self.base.name(number)
        at = number - self.names_from
        return self.names[at : self.names.find(b"\0", at)].decode(errors="replace")

    def parameters(self, at: int) -> list[str]:
        """Return the names of the parameters of a type of functions."""
        count = _TYPE.unpack_from(self.types, at)[1] & 0xFFFF
        rows = (_PARAMETER.unpack_from(self.types, at + 12 + 8 * n) for n in range(count))
        return [self.name(name) for name, _ in rows]


class Types:
    """The types of the kernel, and of one of its modules.

    Parameters
    ----------
    kernel : bytes
        The kernel's BTF.
    module : bytes, optional
        The module's. Functions are looked up in the module, not in the kernel's BTF.

    Raises
    ------
    BtfUnknown
        Raised by all methods if the object does not exist.
    """

    def __init__(self, kernel: bytes, module: bytes | None = None) -> None:
        self._base = _Btf(kernel)
        self._btf = _Btf(module, self._base) if module is not None else self._base

    def _find(self, name: str) -> tuple[int, int]:
        """Return a function's number, and the number of its type."""
        for own, (called, of, refers, _) in enumerate(self._btf.walk(), self._btf.first):
            if of == _FUNC and self._btf.name(called) == name:
                return own, refers
        raise BtfUnknown(f"it has no function {name}")

    def function(self, name: str) -> Function:
        """Find a function."""
        number, refers = self._find(name)
        for btf in (self._btf, self._base):  # it may be of a type that the kernel has, too
            for own, (_, kind, _, at) in enumerate(btf.walk(), btf.first):
                if own == refers and kind == _FUNC_PROTO:
                    return Function(number, btf.parameters(at))
        raise BtfUnknown(f"the function {name} has no type")

    def entry(self, name: str) -> int:
        """Return the number of a function, without its parameters: they take long to find."""
        return self._find(name)[0]
