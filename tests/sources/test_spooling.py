# SPDX-License-Identifier: Apache-2.0
"""What all sources share: the output that they claim, and the command that a trace records."""

import subprocess
import sys

import pytest

from pmlkit.errors import OutputError, OutputExists
from pmlkit.sources.spooling import claim, command
from pmlkit.spool_reader import release


@pytest.mark.parametrize("program", ["/usr/bin/pmlkit", "/home/me/pmlkit/__main__.py"])
def test_a_trace_records_what_was_typed_without_folders_of_the_machine(monkeypatch, program):
    typed = ["record", "/home/me/my work.c", "-o", "/home/me/x.trace", "--cmdline", "root=/dev/a"]
    monkeypatch.setattr(sys, "argv", [program, *typed])
    assert command("f") == "pmlkit record 'my work.c' -o x.trace --cmdline root=/dev/a"


def test_a_trace_that_python_made_records_the_function(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/job.py", "x"])
    assert command("pmlkit.collect") == "pmlkit.collect()"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_trace_is_refused_before_anything_is_recorded(tmp_path, overwrite):
    out = tmp_path / "x.trace"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExists, match="remove it first"):
        claim(out, overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["x.trace"]


def test_a_trace_is_replaced_only_if_asked(make_trace):
    out = make_trace().path
    with pytest.raises(OutputExists, match="overwrite"):
        claim(out, False)
    assert claim(out, True)[0] == out


HOLDS = """
import sys
from pmlkit.sources.spooling import claim
claim(sys.argv[1], False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_spool_that_another_process_fills_is_not_taken(tmp_path):
    out = tmp_path / "x.trace"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(out)], **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match="x.trace .another process is writing it.*wait for"):
            claim(out, True)
        assert (tmp_path / "x.trace.spool").is_dir()
        other.kill()  # its lock ends with it
        other.wait()
        assert claim(out, True) == (out, tmp_path / "x.trace.spool")


def test_a_process_takes_its_own_spool_again_when_it_is_filled(tmp_path):
    out, spool = claim(tmp_path / "x.trace", True)
    with pytest.raises(OutputError, match="another process is writing it"):
        claim(out, True)
    release(spool)
    assert claim(out, True) == (out, spool)
