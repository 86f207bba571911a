# SPDX-License-Identifier: Apache-2.0
"""pandas is imported by Python code, not by pyarrow's C: there, a signal that comes is heard."""

import subprocess
import sys

import pytest
from factories import make_trace as write_trace
from said import said
from waiting import HANG_S

WATCHED = """
import linecache, os, signal, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            frame = sys._getframe(1)
            while "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            assert "import" in line, line
            seen.append(name)
        if name == "pandas.core.api" and "ends" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)

seen = []
sys.meta_path.insert(0, Watch())
from pmlkit.__main__ import main
status = main()
assert seen or "pandas" not in sys.modules
sys.exit(status)
"""
IMPORTS = (
    "import csv {}.csv -o {}.a",
    "import csv {}.csv --columns time=t_start_ns,obj=gfn -o {}.b",
)
EXPORTS = ("export {} csv -o {}.c", "export {} damo -o {}.d", "export {} oracle-general -o {}.e")
ANSWERS = (
    "info {}",
    "wss {}",
    "mrc {}",
    "period {}",
    "simulate {} -o {}.f",
    "plot {} wss -o {}.pdf",
)


def run(words, tmp_path, **environment):
    trace = write_trace(tmp_path / "x.trace", rounds=4)
    (tmp_path / "x.trace.csv").write_text("t_start_ns,t_end_ns,gfn\n0,1,1\n1,2,5\n")
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *words.replace("{}", str(trace)).split()],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment},
    )


@pytest.mark.parametrize("words", [*IMPORTS, *EXPORTS, *ANSWERS])
def test_python_code_imports_pandas(words, tmp_path):
    done = run(words, tmp_path)
    assert done.returncode == 0 and "AssertionError" not in done.stderr, done.stderr


@pytest.mark.parametrize("words", IMPORTS)
def test_a_signal_meanwhile_ends_the_command(words, tmp_path):
    done = run(words, tmp_path, ends="yes")
    assert (done.returncode, said(done.stderr)) == (143, "pmlkit: ended by SIGTERM\n")
