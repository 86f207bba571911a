# SPDX-License-Identifier: Apache-2.0
"""The command line as a process, the names of its commands, and errors of one line."""

import re
import subprocess
import sys

from waiting import HANG_S

from pmlkit import cli
from pmlkit.trace.kinds import Kind

READ, WRITE = Kind.READ, Kind.WRITE
COMMAND = [sys.executable, "-c", "import sys; from pmlkit.cli.app import main; sys.exit(main())"]
COMMANDS = [
    "advise",
    "annotate",
    "calibrate",
    "collect",
    "compare",
    "corpus",
    "diff",
    "doctor",
    "export",
    "forecast",
    "frontier",
    "import",
    "info",
    "ingest",
    "lab",
    "mrc",
    "period",
    "plot",
    "reads",
    "record",
    "run",
    "simulate",
    "wss",
]
GROUPS = {"corpus": ["check", "compare", "list", "record", "score"], "lab": ["build", "run"]}
LEAVES = [name for name in COMMANDS if name not in GROUPS]
LEAVES += [f"{group} {name}" for group, names in GROUPS.items() for name in names]
# Two rounds of 10 ms each: phase "a" writes 10 and 11 and reads 20, phase "b" writes 10 again.
EVENTS = [[(10, WRITE), (20, READ), (11, WRITE)], [(10, WRITE)]]
KNOWN = [{"phase": "a", "region": "hot", "kind": "written", "pages": 2}]


def spawn(*words, **options):
    options = {"capture_output": True, "text": True, "timeout": HANG_S, **options}
    return subprocess.run([*COMMAND, *map(str, words)], **options)


def check_one_line(err, says):
    assert re.fullmatch(r"pmlkit: [^\n]+\n", err), err
    assert "Traceback" not in err
    assert re.search(says, err), err


def leaf(name):
    """Return the command of a leaf's name, such as "lab run"."""
    command = cli.cli
    for word in name.split():
        command = command.get_command(None, word)
    return command
