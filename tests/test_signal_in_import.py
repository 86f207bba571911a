# SPDX-License-Identifier: Apache-2.0
"""A signal that comes while pandas is imported ends the command, as at any other time."""

import subprocess
import sys

import pytest
from factories import make_trace as write_trace
from waiting import HANG_S

RUN = """
import os, signal, sys

class Ends:
    def find_spec(self, name, path, target=None):
        if name == "pandas.core.api":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Ends())
from pmlkit.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "words",
    [
        "import csv {}.csv --columns time=t_start_ns,obj=gfn -o {}.new",
        "export {} csv -o {}.out",
        "wss {}",
        "mrc {}",
        "info {}",
    ],
)
def test_a_signal_during_the_import_of_pandas_is_heard(words, tmp_path):
    trace = write_trace(tmp_path / "x.trace", rounds=4)
    (tmp_path / "x.trace.csv").write_text("t_start_ns,t_end_ns,gfn\n0,1,1\n")
    command = [sys.executable, "-c", RUN, *words.replace("{}", str(trace)).split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert (done.returncode, done.stderr.strip()) == (143, "pmlkit: ended by SIGTERM")
