# SPDX-License-Identifier: Apache-2.0
"""`.ci/again` repeats the tests that failed, and says which ones passed only then."""

import os
import subprocess
import sys

import pytest
from tree import ROOT

TESTS = """
import pathlib
import pytest

@pytest.mark.parametrize("n", range({n}))
def test_fails(n):
    seen = pathlib.Path(__file__).parent / f"seen{{n}}"
    again = seen.exists()
    seen.touch()
    assert again and {passes}

def test_passes():
    {body}
"""


@pytest.mark.parametrize(
    ("n", "passes", "body", "status"),
    [
        (0, True, "pass", 0),
        (5, True, "pass", 0),
        (1, False, "pass", 1),
        (6, True, "pass", 1),  # too many for chance
        (1, True, "raise KeyboardInterrupt", 2),  # not all tests have run
    ],
)
def test_what_passes_only_when_repeated_is_named(tmp_path, n, passes, body, status):
    file, report = tmp_path / "test_some.py", tmp_path / "report"
    file.write_text(TESTS.format(n=n, passes=passes, body=body))
    command = [ROOT / ".ci/again", report, sys.executable, "-m", "pytest", "-q", file]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    named = report.read_text().splitlines() if report.exists() else []
    assert named == ([f"test_some.py::test_fails[{k}]" for k in range(n)] if status == 0 else [])
