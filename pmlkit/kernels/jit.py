# SPDX-License-Identifier: Apache-2.0
"""The compiler of the kernels, and instructions of the processor that numba does not offer.

This module is separate because all modules of compiled loops need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite.ir import IRBuilder as Builder
    from llvmlite.ir import Value
    from numba.core.typing.templates import Signature

    from pmlkit.types import Array

    Context = Any  # numba's code generator, which has no types
    Values = Sequence[Value]
    Intrinsic = tuple[Signature, Callable[[Context, Builder, Signature, Values], Value]]

_Function = TypeVar("_Function", bound=Callable[..., object])

AHEAD = 16  # uses between prefetching a page's state and using it: the latency of a cache miss
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / the golden ratio, odd: Knuth, TAOCP 3, 6.4
ONES = 0xFFFFFFFF  # (x + ONES) >> 32 is 0 for a 32-bit x of 0, else 1: no branch to mispredict

# numba's types describe values in Python. These annotations describe values in compiled code.
_untyped: Any = numba
int64: Callable[[int], int] = _untyped.int64
uint32: Callable[[int], int] = _untyped.uint32
uint64: Callable[[int], int] = _untyped.uint64
_intrinsic: Callable[[object], Any] = intrinsic
_function_of: Callable[..., Value] = cgutils.get_or_insert_function


def compiled(function: _Function) -> _Function:
    """Compile at the first call, without the GIL, and store the result on the disk if allowed."""
    try:
        return _untyped.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder that numba could write to
        return _untyped.njit(nogil=True)(function)


def _popcount(typing: object, word: types.Type) -> Intrinsic:
    """Count the bits of a word: one instruction."""

    def generate(context: Context, builder: Builder, signature: Signature, values: Values) -> Value:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate


def _fetch(typing: object, array: types.Type, at: types.Type) -> Intrinsic:
    """Prefetch an element (by its place in memory), without waiting."""

    def generate(context: Context, builder: Builder, signature: Signature, values: Values) -> Value:
        data = context.make_array(array)(context, builder, values[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        element = builder.bitcast(builder.gep(data, [values[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = _function_of(builder.module, kind, "llvm.prefetch.p0i8")
        # to be written, kept in all caches, data
        builder.call(prefetch, [element, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _subtract(
    typing: object, counts: types.Type, at: types.Type, masks: types.Type, row: types.Type
) -> Intrinsic:
    """Subtract 8 words of `masks` from 8 of `counts`: 32 lanes of 16 bits, or 16 of 32.

    A lane that is taken from has that bit in it, so no lane borrows from the next.
    """

    def generate(context: Context, builder: Builder, signature: Signature, values: Values) -> Value:
        lanes = ir.VectorType(ir.IntType(64), 8)

        def place(array: int, index: int) -> Value:
            kind = signature.args[array]
            data = context.make_array(kind)(context, builder, values[array]).data
            pointer = builder.gep(data, [values[index]])
            return builder.bitcast(pointer, lanes.as_pointer())

        target, mask = place(0, 1), place(2, 3)
        less = builder.sub(builder.load(target, align=8), builder.load(mask, align=8))
        builder.store(less, target, align=8)
        return context.get_dummy_value()

    return types.void(counts, types.uint64, masks, types.uint64), generate


# Callers leave out the first argument of an intrinsic.
popcount: Callable[[int], int] = _intrinsic(_popcount)
fetch: Callable[[Array, int], None] = _intrinsic(_fetch)
subtract: Callable[[Array, int, Array, int], None] = _intrinsic(_subtract)
