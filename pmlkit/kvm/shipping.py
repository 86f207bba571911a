# SPDX-License-Identifier: Apache-2.0
"""The agent and its imports for a KVM host, as files or as one zipapp.

A module of its own, as two sources ship it: over SSH, and on the disk of the lab's host.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

__all__ = ["MODULE", "files", "zipapp"]

MODULE = "pmlkit.kvm.agent"
_PACKAGE = Path(__file__).resolve().parents[1]
_MAIN = b"""import sys
from pmlkit.kvm.agent import main
sys.exit(main(sys.argv[1:]))
"""


def files() -> dict[str, bytes]:
    """Return the files that the host needs; ``pmlkit/`` is the only folder at the top."""
    names = ["errors.py", "ftrace.py", "spool.py", "starter.py"]
    names += sorted(f"kvm/{path.name}" for path in (_PACKAGE / "kvm").glob("*.py"))
    sources = {f"pmlkit/{name}": (_PACKAGE / name).read_bytes() for name in names}
    return {"pmlkit/__init__.py": b"", **sources}


def zipapp() -> bytes:
    """Return the same as a zipapp: ``python3 AGENT.pyz`` runs the agent.

    Returns
    -------
    bytes
        The same every time: no file's time is in it.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted({**files(), "__main__.py": _MAIN}.items()):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()
