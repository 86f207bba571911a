# SPDX-License-Identifier: Apache-2.0
"""The answers on the page of questions: the first lines that its commands print."""

import re
import shlex
import textwrap
from pathlib import Path

from click.testing import CliRunner
from failures import failed

from pmlkit.cli.app import cli

PAGE = Path(__file__).parent / "questions.md"
# An answer that is shown: the command, and the file of its first lines.
_SHOWN = re.compile(
    r"^    (?P<command>pmlkit .*)\n\n"
    r"```\{literalinclude\} _figures/answers/(?P<name>[\w-]+)\.txt\n",
    re.MULTILINE,
)
LINES = 20
COLUMNS = 84  # that a page shows without scrolling


def shown(text=None):
    """Return {name: words of the command} of the page's answers."""
    text = PAGE.read_text() if text is None else text
    found = {}
    for match in _SHOWN.finditer(text):
        found[match["name"]] = shlex.split(match["command"], comments=True)[1:]
    return found


def first_lines(output, lines=LINES):
    """Return the answer before the table: up to an empty line, or so many lines."""
    answer = output.partition("\n\n")[0].rstrip()
    folded = (textwrap.fill(one, COLUMNS, subsequent_indent="  ") for one in answer.splitlines())
    return "\n".join(line for _, line in zip(range(lines), folded, strict=False)) + "\n"


def make(folder):
    """Run the commands, and write what they answer into a folder; keep what is there."""
    folder = Path(folder) / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in shown().items():
        if not (folder / f"{name}.txt").exists():
            done = CliRunner(env={"COLUMNS": str(COLUMNS)}).invoke(cli, words)
            if done.exit_code:
                raise failed(f"docs/questions.md: pmlkit {shlex.join(words)}", done.output)
            (folder / f"{name}.txt").write_text(first_lines(done.stdout))
