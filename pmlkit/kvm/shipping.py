# SPDX-License-Identifier: Apache-2.0
"""The agent of a KVM host, and its imports.

This module is separate because two sources ship the agent: over SSH, and on the disk of the lab's
host.
"""

from __future__ import annotations

from pmlkit import shipping

__all__ = ["files", "zipapp"]


def files() -> dict[str, bytes]:
    """Return the files that the host needs; ``pmlkit/`` is the only folder at the top."""
    return shipping.sources("kvm", ("ftrace.py",))


def zipapp() -> bytes:
    """Return the same as a zipapp: ``python3 AGENT.pyz`` runs the agent."""
    return shipping.zipapp("kvm", files())
