# SPDX-License-Identifier: Apache-2.0
"""What comes with pmlkit beside its modules, and where: one answer for all who look for it.

Recordings (``data/``), workloads and experiments (``experiments/``) and ``notebooks/`` lie beside
the package in a clone of the repository; an installed wheel has them in the package, in ``share/``.
The patches for Xen and the lab's guests (``hypervisor-patches/``) are in a clone only: they are of
another licence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError

if TYPE_CHECKING:
    from pmlkit.types import PathLike


__all__ = ["CLONE", "IS_CLONE", "PATCHES", "ROOT", "located", "need_clone", "workplace"]

_SHARE = Path(__file__).resolve().with_name("share")
IS_CLONE = not _SHARE.is_dir()
ROOT = _SHARE.parents[1] if IS_CLONE else _SHARE
PATCHES = ROOT / "hypervisor-patches"
CLONE = "run pmlkit from a clone of its repository"


def located(path: PathLike, *folders: str) -> Path:
    """Find a relative path: from the working directory or, if nothing is there, from `ROOT`.

    Parameters
    ----------
    path : path-like
    folders : str
        Of `ROOT`, in which to look, too.

    Returns
    -------
    Path
        `path` itself if there is nothing anywhere.
    """
    found = Path(path)
    there = (place for folder in ("", *folders) if (place := ROOT / folder / found).exists())
    return found if found.exists() else next(there, found)


def workplace() -> Path:
    """Where relative results go: the clone, or the working directory of who installed pmlkit."""
    return ROOT if IS_CLONE else Path.cwd()


def need_clone(what: str) -> None:
    """Refuse what an installed wheel has not.

    Raises
    ------
    PmlkitError
        Unless `PATCHES` is there.
    """
    if not PATCHES.is_dir():
        raise PmlkitError(f"{what} is not part of an installed pmlkit", CLONE)
