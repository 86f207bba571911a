# SPDX-License-Identifier: Apache-2.0
"""The agent and its imports for dom0, as files or as one zipapp.

A module of its own, as two sources ship it: over SSH (`pmlkit.sources.host.launch`), and on the
disk of the lab's dom0.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from pmlkit.xen.binding import emit

__all__ = ["BOOTSTRAP", "files", "zipapp"]

_PACKAGE = Path(__file__).resolve().parents[1]
_MAIN = b"""import sys
from pmlkit.xen.agent import main
sys.exit(main(sys.argv[1:]))
"""
# Run by dom0's `python3 -c`. Reads ten digits and a zipapp of that length from standard input. The
# agent gets the rest of the input; no file stays behind.
BOOTSTRAP = """import os, sys, tempfile
def take(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit("agent: the connection was cut before it began")
        data += more
    return data
if sys.version_info < (3, 9):
    sys.exit("agent: Python %d.%d is too old: 3.9 is needed" % sys.version_info[:2])
with tempfile.NamedTemporaryFile(suffix=".pyz") as file:
    file.write(take(int(take(10))))
    file.flush()
    sys.path.insert(0, file.name)
    from pmlkit.xen import agent
    agent.preload()
sys.exit(agent.main())
"""


def files() -> dict[str, bytes]:
    """Return the files that dom0 needs; no C parser is needed there.

    Returns
    -------
    dict of str to bytes
        By path; ``pmlkit/`` is the only folder at the top.
    """
    names = ["errors.py", "signals.py", "spool.py", "starter.py"]
    names += sorted(f"xen/{path.name}" for path in (_PACKAGE / "xen").glob("*.py"))
    sources = {f"pmlkit/{name}": (_PACKAGE / name).read_bytes() for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        emit(Path(scratch) / "declarations.py")
        declared = (Path(scratch) / "declarations.py").read_bytes()
    return {"pmlkit/__init__.py": b"", **sources, "pmlkit/xen/_declarations.py": declared}


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
