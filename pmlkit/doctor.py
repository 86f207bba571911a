# SPDX-License-Identifier: Apache-2.0
"""What this machine can do with pmlkit, and what to do about the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from pmlkit import doctor_checks as checks
from pmlkit.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pmlkit.doctor_checks import Check
    from pmlkit.types import Json


__all__ = ["CAPABILITIES", "Capability", "examine"]


@dataclass(frozen=True)
class Capability:
    """Something that pmlkit can do where all its checks hold.

    Attributes
    ----------
    name, purpose : str
    checks : tuple of Check
    """

    name: str
    purpose: str
    checks: tuple[Any, ...]

    @property
    def ready(self) -> bool:
        return all(check.state != checks.MISSING for check in self.checks)

    def as_dict(self) -> Json:
        """Return the fields and `ready`, for JSON."""
        return {**asdict(self), "ready": self.ready}


def examine(names: Sequence[Any] = ()) -> list[Capability]:
    """Check capabilities.

    Parameters
    ----------
    names : sequence of str
        Of `CAPABILITIES`; none: all.

    Returns
    -------
    list of Capability

    Raises
    ------
    UsageError
        If a name is not known.
    """
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown:
        raise UnknownName("capability", unknown[0], CAPABILITIES)
    chosen = list(dict.fromkeys(names)) or list(CAPABILITIES)
    return [_examine(name, *CAPABILITIES[name]) for name in chosen]


def _examine(name: str, purpose: str, probes: Iterable[Callable[[], Check]]) -> Capability:
    return Capability(name, purpose, tuple(check() for check in probes))


_BASE = (checks.python, checks.packages)
_FETCHING = (
    partial(checks.program, "apt-get", "apt", "fetches Debian's kernels, programs and sources"),
    partial(checks.program, "dpkg-deb", "dpkg", "unpacks them"),
)
CAPABILITIES = {
    "demo": (
        "notebooks on the bundled recordings",
        (*_BASE, checks.recordings, checks.notebooks, checks.fonts, checks.results),
    ),
    "recorder": (
        "record a real Linux guest under QEMU",
        (
            *_BASE,
            partial(
                checks.program, "gcc", "gcc", "builds the recorder's plugin and guest programs"
            ),
            checks.static_libc,
            checks.qemu,
            *_FETCHING,
            checks.workloads,
            checks.cache,
        ),
    ),
    "lab": (
        "patched Xen on an emulated PML",
        (*_BASE, checks.series, checks.lab_build, *_FETCHING, checks.cache),
    ),
    "xen": (
        "collect on a Xen host",
        (
            checks.dom0,
            checks.xen_tools,
            checks.xen_interface,
            checks.processor,
            partial(checks.optional, "ssh", "openssh-client", "collects from another dom0"),
        ),
    ),
}
