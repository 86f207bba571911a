# SPDX-License-Identifier: Apache-2.0
"""The command that a trace records."""

import sys

import pytest

from pmlkit.sources.spooling import command


@pytest.mark.parametrize("program", ["/usr/bin/pmlkit", "/home/me/pmlkit/__main__.py"])
def test_a_trace_records_what_was_typed_without_folders_of_the_machine(monkeypatch, program):
    typed = ["record", "/home/me/my work.c", "-o", "/home/me/x.trace", "--cmdline", "root=/dev/a"]
    monkeypatch.setattr(sys, "argv", [program, *typed])
    assert command("f") == "pmlkit record 'my work.c' -o x.trace --cmdline root=/dev/a"


def test_a_trace_that_python_made_records_the_function(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/job.py", "x"])
    assert command("pmlkit.collect") == "pmlkit.collect()"
