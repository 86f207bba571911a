# SPDX-License-Identifier: Apache-2.0
"""Completion in bash, zsh and fish; and that a pipe gets the answer and nothing else."""

import os
import shutil
import subprocess
import sys

import pytest
from waiting import HANG_S

SHELLS = ("bash", "zsh", "fish")
COMMAND = [sys.executable, "-c", "import sys; from pmlkit.cli.app import main; sys.exit(main())"]


def call(*words, **env):
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(shell):
    done = call(_PMLKIT_COMPLETE=f"{shell}_source")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_PMLKIT_COMPLETE={shell}_complete" in done.stdout
    if program := shutil.which(shell):  # it can read it
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True, timeout=HANG_S)


def complete(shell, line):
    """Return what a shell offers at the end of a line."""
    words = line.split(" ")
    position = words[-1] if shell == "fish" else str(len(words) - 1)
    env = {"COMP_WORDS": line, "COMP_CWORD": position, "_PMLKIT_COMPLETE": f"{shell}_complete"}
    out = call(**env).stdout
    if shell == "zsh":  # type, value and help, a line each
        return out.splitlines()[1::3]
    return [text.split("\t")[0].partition(",")[2] for text in out.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_completes_commands_and_options(shell):
    assert complete(shell, "pmlkit ru") == ["run"]
    assert complete(shell, "pmlkit run --sn") == ["--snakefile"]
    assert {"--cluster", "--jobs"} <= set(complete(shell, "pmlkit run --"))


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("wss", "--window", "10ms"),
        ("export", "csv", "-o", "out.csv"),
        ("simulate", "-o", "out.trace"),
        ("plot", "wss", "-o", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_pipe_gets_the_answer_alone(make_trace, tmp_path, words):
    trace = make_trace(rounds=20, pml=words[0] != "simulate", guest=True).path
    words = [tmp_path / word if word.startswith("out") else word for word in words]
    done = call(words[0], trace, *words[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout and "\x1b" not in done.stdout
