# SPDX-License-Identifier: Apache-2.0
"""The reference of commands: examples as blocks of code, and texts that are no markup."""

import re

import click

from pmlkit.cli.app import cli

# sphinx-click writes an example's lines as those of a verse.
_VERSE = re.compile(r"^\|\s*(.*)$")
# "T. The window" is no item of a list that is counted with letters.
_ENUMERATED = re.compile(r"^(\s*)(\(?(?:[A-Za-z]|\d+|[ivxlcdm]+|[IVXLCDM]+)[.)])(?= )")


def load(group=cli):
    """Import all commands of a group: sphinx-click only sees those that were imported."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            load(command)


def show_examples(app, context, lines):
    """Turn the examples after a command's help into a block of code."""
    examples = [match[1] for line in lines if (match := _VERSE.match(line))]
    commands = [line for line in examples if line and not line.endswith(":")]
    if commands:
        title = f"{examples[0].rstrip(':')}:"
        lines[:] = [title, "", ".. code-block:: shell", "", *(f"   {one}" for one in commands), ""]


def keep_letters(app, context, lines):
    """Keep a letter and a point at the start of a help text from becoming a list."""
    lines[:] = [_ENUMERATED.sub(r"\1\\\2", line) for line in lines]


def setup(app):
    """Let Sphinx call what is here."""
    load()
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-epilog", show_examples)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", keep_letters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
