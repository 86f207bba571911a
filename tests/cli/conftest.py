# SPDX-License-Identifier: Apache-2.0
"""What tests of the command line use: a call in this process, and a known trace."""

import pytest
from cli_case import EVENTS, KNOWN

from pmlkit import cli


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch):
    monkeypatch.delenv("PMLKIT_DEBUG", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(capsys):
    """Call the command line in this process; returns exit code, standard output and error."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def trace(make_trace):
    made = make_trace(
        "h.trace",
        events=EVENTS,
        phases=[("a", 0), ("b", 1)],
        regions=[("hot", 10, 2), ("cold", 20, 1)],
        known=KNOWN,
    )
    return made.path
