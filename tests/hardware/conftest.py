# SPDX-License-Identifier: Apache-2.0
import os
from functools import wraps

import pytest
from lab_case import Lab, record, run_on_kvm

from pmlkit.sources.lab import session


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def kvm(tmp_path_factory):
    """Runs a guest in the KVM lab, once for each set of options."""
    folder = tmp_path_factory.mktemp("kvm")

    def run(guest, **options):
        if "settings" in options:
            options["settings"] = tuple(sorted(options["settings"].items()))
        return run_on_kvm(folder, guest, tuple(sorted(options.items())))

    return run


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """Records a guest of the kit under QEMU, once."""
    folder = tmp_path_factory.mktemp("recorder")
    return lambda guest, rounds, settings: record(folder, guest, rounds, tuple(settings.items()))


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
