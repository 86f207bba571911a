# SPDX-License-Identifier: Apache-2.0
"""An agent as files, as one zipapp, and the program with which a host starts it.

This module is separate because the agents of both kinds of host are sent in the same way: over SSH
(`pmlkit.sources.host.launch`), and on the disks of the labs' hosts.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

__all__ = ["bootstrap", "sources", "zipapp"]

_PACKAGE = Path(__file__).resolve().parent
_COMMON = ("errors.py", "shipping.py", "spool.py", "starter.py")
_MAIN = """import sys
from pmlkit.PACKAGE.agent import main
sys.exit(main(sys.argv[1:]))
"""
# Run by the host's `python3 -c`. Reads ten digits and a zipapp of that length from standard input.
# The agent gets the rest of the input; no file stays behind.
_BOOTSTRAP = """import os, sys, tempfile
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
    from pmlkit.PACKAGE import agent
    agent.preload()
sys.exit(agent.main())
"""


def bootstrap(package: str) -> str:
    """Return the program that takes the zipapp of ``pmlkit.PACKAGE.agent`` and runs it."""
    return _BOOTSTRAP.replace("PACKAGE", package)


def sources(package: str, more: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the modules of an agent, and the modules that all agents import.

    Parameters
    ----------
    package : {"xen", "kvm"}
    more : tuple of str
        Further modules of pmlkit, such as ``"ftrace.py"``.

    Returns
    -------
    dict of str to bytes
        By path; ``pmlkit/`` is the only folder at the top.
    """
    names = [*_COMMON, *more]
    names += sorted(f"{package}/{path.name}" for path in (_PACKAGE / package).glob("*.py"))
    read = {f"pmlkit/{name}": (_PACKAGE / name).read_bytes() for name in names}
    return {"pmlkit/__init__.py": b"", **read}


def zipapp(package: str, files: dict[str, bytes]) -> bytes:
    """Return files as a zipapp: ``python3 AGENT.pyz`` runs the agent.

    Returns
    -------
    bytes
        The same every time: no file's time is in it.
    """
    stream, main = io.BytesIO(), _MAIN.replace("PACKAGE", package).encode()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted({**files, "__main__.py": main}.items()):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()
