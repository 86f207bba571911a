# SPDX-License-Identifier: Apache-2.0
"""The command ``pmlkit``: each module adds one or more commands, even if it is small.

Modules
-------
app      the group of commands, help and exit codes
options  options that several commands share
parameters
         types of options and arguments
show     print a result, as JSON or as text
console  tables and progress on the terminal
sheets   tables that fit the terminal's width
live     a running collection on the terminal
terminal a figure as text
plans    an experiment and its report, as text and as JSON
advise, annotate, collect, compare, corpus, diff, forecast, frontier, interop, lab, mrc, period,
reads, record, run
         one or more commands each
"""

from pmlkit.cli.app import cli, main

__all__ = ["cli", "main"]
