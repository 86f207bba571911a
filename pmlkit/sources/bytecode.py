# SPDX-License-Identifier: Apache-2.0
"""Python's byte code for a guest that has Python.

Debian's packages compile it when they are installed. Left to the guest, ``import numpy`` would
compile for most of a minute, emulated; so the guest's own Python does it here, once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import output_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_SKIP = r"/(tests?|lib2to3|idlelib|turtledemo|ensurepip|f2py|distutils|pydoc_data|bad_.*\.py)/"


def compiled(root: Path, progress: Callable[..., Any] | None = None) -> Path | None:
    """Compile the modules below a root file system.

    Parameters
    ----------
    root : Path
        Unpacked packages; it is only read.
    progress : callable, optional
        Called with a line of text before the work begins.

    Returns
    -------
    Path or None
        A folder beside `root` with the compiled files where Python looks for them; None if there
        is no Python in it. That of a Python that does not run on this machine stays empty: the
        guest then compiles for itself.
    """
    pythons = sorted((root / "usr" / "bin").glob("python3.[0-9]*[0-9]"))
    if not pythons:
        return None
    folder = root.with_name("bytecode")
    if folder.is_dir():
        return folder
    if progress:
        progress("compiling the guest's Python modules")
    try:
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            _compile(root, pythons[0], Path(scratch) / "cache")
            _arrange(Path(scratch) / "cache" / root.relative_to("/"), Path(scratch) / "new")
            (Path(scratch) / "new").replace(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def _compile(root: Path, python: Path, cache: Path) -> None:
    """Run the guest's Python by the guest's loader: the machine's libraries do not matter."""
    libraries = [root / place / "x86_64-linux-gnu" for place in ("lib", "usr/lib")]
    command = [libraries[0] / "ld-linux-x86-64.so.2", "--library-path"]
    command += [":".join(map(str, libraries)), python, "-m", "compileall", "-qq", "-x", _SKIP]
    # A hash that is never checked: the archive has other times than this machine's files.
    command += ["--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/"]
    command += [root / "usr" / "lib" / python.name, root / "usr" / "lib" / "python3"]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPYCACHEPREFIX": str(cache),
        "PYTHONHASHSEED": "0",  # the same bytes each time
    }
    subprocess.run(command, env=environment, capture_output=True)  # type: ignore[arg-type]


def _arrange(cache: Path, target: Path) -> None:
    """Move each compiled file from the parallel tree to a __pycache__ of its module's folder."""
    target.mkdir()
    for path in sorted(cache.rglob("*.pyc")):
        place = target / path.parent.relative_to(cache) / "__pycache__"
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place / path.name)
