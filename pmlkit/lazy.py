# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported at their first use, and suppressed imports.

Importing one module of a package then does not import the others: ``pmlkit --help`` takes a third
of a second instead of ten.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["lazy", "without"]


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package.

    Parameters
    ----------
    package : str
        Its name, for the message about an unknown attribute.
    homes : mapping of str to str
        Module of each name, below ``pmlkit``; with ``:NAME`` if the name differs there.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        return getattr(import_module(f"pmlkit.{module}"), attribute or name)

    return find


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Context in which modules of these names cannot be imported, unless they are already.

    A library that does without such a module is imported faster.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
