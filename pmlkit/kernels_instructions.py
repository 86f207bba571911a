# SPDX-License-Identifier: Apache-2.0
"""Instructions of the processor that numba has no word for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AHEAD = 16  # uses between asking for what is kept of a page and needing it: what a cache miss takes


@intrinsic
def popcount(typing: Any, word: Any) -> tuple[Any, Callable[..., Any]]:
    """Count the bits of a word: one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def fetch(typing: Any, array: Any, at: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for an element (by its place in memory) that will be needed: it waits for nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(array)(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        element = builder.bitcast(builder.gep(made.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        # to be written, kept in all caches, data
        builder.call(prefetch, [element, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate
