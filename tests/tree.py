# SPDX-License-Identifier: Apache-2.0
"""The files of the project: those that git tracks, whatever else a user keeps in the clone."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {
    ".ci", ".gitignore", ".pre-commit-config.yaml", "CITATION.cff", "LICENSE", "Makefile",
    "README.md", "data", "docs", "environment.yml",
    "experiments", "hypervisor-patches", "notebooks", "pmlkit", "pyproject.toml",
    "requirements.lock", "tests",
}  # fmt: skip


def tracked(*patterns):
    """Return the paths of the project's files, in order.

    In a copy that is no clone, these are all files under the names of the top level.

    Parameters
    ----------
    *patterns : str
        As `Path.match` takes them: only the files that match one of them.
    """
    names = _listed_by_git() or _found()
    paths = [ROOT / name for name in sorted(names)]
    wanted = [path for path in paths if not patterns or any(map(path.match, patterns))]
    return [path for path in wanted if path.is_file()]


def _listed_by_git():
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return done.stdout.split("\0")[:-1]


def _found():
    below = [path for name in TOP_LEVEL for path in (ROOT / name).rglob("*")]
    top = [ROOT / name for name in TOP_LEVEL]
    return [p.relative_to(ROOT) for p in [*top, *below] if "__pycache__" not in p.parts]
