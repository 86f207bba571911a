# SPDX-License-Identifier: Apache-2.0
"""How long a user waits before anything happens, and for the first answers."""

import os
import resource
import subprocess
import sys
from dataclasses import replace

import pmlkit
from tests.bench.timing import best

HELP = "import sys; from pmlkit.cli.app import main; sys.exit(main(['--help']))"
# What any tool of this kind imports: the unit of the answers' times.
IMPORTS = "import pandas, pyarrow"
ANSWERS = ("info", "wss", "mrc")
# As a user's: without this variable, Python compiles a module at its first import only.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def measure(scale):
    """Return the ratios (those of ``--help`` and the import are seconds) and the rows."""
    code = {"pmlkit --help": HELP, "import pmlkit": "import pmlkit", "python alone": "pass"}
    calls = {name: lambda line=line: _run("-c", line) for name, line in code.items()}
    seconds, _ = best(calls, replace(scale, repeats=3 * scale.repeats, clock="wall"))
    rows = [{"what": "start", "who": name, "s": round(s, 3)} for name, s in seconds.items()]
    facts = {"help_s": seconds["pmlkit --help"], "import_s": seconds["import pmlkit"]}
    ratios, of_answers = _answers(3 * scale.repeats)
    return facts | ratios, rows + of_answers


def _answers(repeats):
    """Return the processor time of each command on a bundled trace over that of the imports."""
    trace = str(pmlkit.bundled("redis"))
    calls = {name: ("-m", "pmlkit", name, trace) for name in ANSWERS}
    calls["imports"] = ("-c", IMPORTS)
    turns = [{name: cpu_s(*call) for name, call in calls.items()} for _ in range(repeats)]
    least = {name: min(turn[name] for turn in turns) for name in calls}
    ratios = {f"{name}_vs_imports": least[name] / least["imports"] for name in ANSWERS}
    rows = [
        {"what": "first answer", "who": name, "cpu s": round(s, 3),
         "of the imports": round(s / least["imports"], 2)}
        for name, s in least.items()
    ]  # fmt: skip
    return ratios, rows


def cpu_s(*arguments):
    """Run Python; return the processor time that it and its children took, s."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(*arguments):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, *arguments], check=True, env=ENVIRONMENT, **quiet)
