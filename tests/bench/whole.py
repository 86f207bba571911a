# SPDX-License-Identifier: Apache-2.0
"""The processor time of what takes longest: advice, the demo, and with ``--full`` the suite."""

import tempfile

from tests.bench.startup import cpu_s
from tests.bench.timing import FULL


def measure(scale):
    """Return the seconds of the processor, which no other load changes much, and the rows."""
    facts = {"advise_cpu_s": cpu_s("-m", "pmlkit", "advise", "redis")}
    with tempfile.TemporaryDirectory() as folder:
        facts["demo_cpu_s"] = cpu_s("-m", "pmlkit", "run", "experiments/demo.yaml", "-o", folder)
    if scale.largest == FULL.largest:
        facts["suite_cpu_s"] = cpu_s("-m", "pytest", "-q", "--ignore=tests/hardware")
    return facts, [{"what": name, "cpu s": round(s, 1)} for name, s in facts.items()]
