# SPDX-License-Identifier: Apache-2.0
"""The agent of dom0, and its imports.

This module is separate because two sources ship the agent: over SSH (`pmlkit.sources.host.launch`),
and on the disk of the lab's dom0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pmlkit import shipping
from pmlkit.xen.binding import emit

__all__ = ["files", "zipapp"]


def files() -> dict[str, bytes]:
    """Return the files that dom0 needs; no C parser is needed there.

    Returns
    -------
    dict of str to bytes
        Files by path; ``pmlkit/`` is the only folder at the top.
    """
    with tempfile.TemporaryDirectory() as scratch:
        emit(Path(scratch) / "declarations.py")
        declared = (Path(scratch) / "declarations.py").read_bytes()
    return {**shipping.sources("xen", ("signals.py",)), "pmlkit/xen/_declarations.py": declared}


def zipapp() -> bytes:
    """Return the same as a zipapp: ``python3 AGENT.pyz`` runs the agent."""
    return shipping.zipapp("xen", files())
