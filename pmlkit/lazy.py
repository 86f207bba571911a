# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when they are first used.

A package's ``__init__`` lists them, so that importing one of its modules does not import all of
them: ``pmlkit --help`` takes a third of a second and not ten.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["lazy"]


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package.

    Parameters
    ----------
    package : str
        Its name, for the error of a name that there is not.
    homes : mapping of str to str
        The module below ``pmlkit`` of each name; with ``:NAME`` if it has another name there.

    Returns
    -------
    callable
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        return getattr(import_module(f"pmlkit.{module}"), attribute or name)

    return find
