# SPDX-License-Identifier: Apache-2.0
"""How long a user waits before anything happens."""

import os
import subprocess
import sys
from dataclasses import replace

from tests.bench.timing import best

HELP = "import sys; from pmlkit.cli.app import main; sys.exit(main(['--help']))"


def measure(scale):
    """Return the ratios (here seconds) and the rows."""
    code = {"pmlkit --help": HELP, "import pmlkit": "import pmlkit", "python alone": "pass"}
    calls = {name: lambda line=line: _run(line) for name, line in code.items()}
    seconds, _ = best(calls, replace(scale, repeats=3 * scale.repeats, clock="wall"))
    rows = [{"what": "start", "who": name, "s": round(s, 3)} for name, s in seconds.items()]
    facts = {"help_s": seconds["pmlkit --help"], "import_s": seconds["import pmlkit"]}
    return facts, rows


def _run(line):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", line], check=True, env=os.environ, **quiet)
