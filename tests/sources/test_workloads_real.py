# SPDX-License-Identifier: Apache-2.0
"""Real programs out of Debian's packages run in a guest and go through their phases."""

import pytest
from boots import boot, build
from needs import needs_qemu, slow

from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder.record import DETERMINISTIC_CMDLINE

pytestmark = needs_qemu
SHORT = {
    "redis": ({"keys": "300", "gets": "600", "few": "20", "idle_s": "1"}, "requests per second"),
    "sqlite": ({"purchases": "1000", "lookups": "50"}, "items left|2706"),
    "xz": ({"kib": "256", "times": "1", "preset": "1"}, "/tmp/data.tar.xz"),
    "numpy": ({"matrix": "64", "numbers": "9999", "decomposed": "32"}, "numpy 1."),
    "gcc": ({"level": "0"}, "bytes of PNG"),
}


@slow
@pytest.mark.parametrize("name", SHORT)
def test_it_runs_through_its_phases(name, tmp_path):
    values, line = SHORT[name]
    image = build(load(name), values, extra_cmdline=DETERMINISTIC_CMDLINE)
    booted = boot(image, tmp_path, deterministic=True)
    assert line in booted.console
    assert booted.of("exit") == ["0"]
    assert booted.of("phase") == ["start", *image.workload.phases]
    assert "rror" not in booted.console
