# SPDX-License-Identifier: Apache-2.0
import os
from functools import wraps

import pytest
from lab_case import Lab

from pmlkit.sources.lab import session


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session", autouse=True)
def debug_xen():
    """With PMLKIT_XEN_DEBUG=1 each patched Xen is a debug build: its words end a run."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("PMLKIT_XEN_DEBUG") == "1":
            assemble = session.assemble

            @wraps(assemble)
            def debugging(**options):
                build = options["build"]
                if not options["stock"] and build == "release":
                    build = "debug"
                return assemble(**options | {"build": build})

            patch.setattr(session, "assemble", debugging)
        yield
