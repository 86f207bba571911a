# SPDX-License-Identifier: Apache-2.0
"""Marks of tests that need more than Python: skipped with a reason on a bare machine.

PMLKIT_REQUIRE_LAB=1 (set in CI) turns the skip into a failure, and adds the slow ones.
"""

import os
import shutil

import pytest

REQUIRED = os.environ.get("PMLKIT_REQUIRE_LAB") == "1"


def _needs(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    reason = f"needs {', '.join(missing)}: see `pmlkit doctor`"
    return pytest.mark.skipif(bool(missing) and not REQUIRED, reason=reason)


needs_gcc = _needs("gcc")
needs_browser = _needs("chromium")
needs_apt = _needs("apt-get", "dpkg-deb")
needs_ssh = _needs("ssh", "ssh-keygen")
needs_snakemake = _needs("snakemake")
needs_valgrind = _needs("valgrind")
needs_qemu = _needs("qemu-system-x86_64", "gcc", "apt-get", "dpkg-deb")
slow = pytest.mark.skipif(not REQUIRED, reason="slow: set PMLKIT_REQUIRE_LAB=1 to run it")
