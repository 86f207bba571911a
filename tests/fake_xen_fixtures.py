# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a host with a domain, for agents and collections (`fake_xen`)."""

import shutil

import fake_xen
import pytest
from needs import REQUIRED


@pytest.fixture(scope="session")
def xen_libraries(tmp_path_factory):
    if not (shutil.which("gcc") and shutil.which("git")) and not REQUIRED:
        pytest.skip("needs gcc and git, to compile the reader out of the patches")
    return tmp_path_factory.mktemp("xen-libraries")


@pytest.fixture
def xen(xen_libraries, tmp_path):
    """A host with a running domain 5, "guest"."""
    made = fake_xen.FakeXen(fake_xen.libraries(str(xen_libraries)), tmp_path / "host")
    made.folder.mkdir()
    made.domains((5, "guest", fake_xen.RUNNING))
    return made


@pytest.fixture
def here(xen, monkeypatch):
    """Agents that this process starts are on that host."""
    for name in ("LD_LIBRARY_PATH", "FAKE_XEN"):
        monkeypatch.setenv(name, xen.environment()[name])
    return xen
