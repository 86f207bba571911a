# SPDX-License-Identifier: Apache-2.0
"""Completion in bash, zsh and fish; and that a pipe gets the answer and nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from cli_case import LEAVES, leaf, spawn
from waiting import HANG_S

from pmlkit import cli

SHELLS = ("bash", "zsh", "fish")


def call(*words, **env):
    return spawn(*words, env=os.environ | env)


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


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_is_completed_with_all_of_its_options(name):
    from click.shell_completion import get_completion_class

    *groups, last = name.split()
    options = (param for param in leaf(name).params if isinstance(param, click.Option))
    long = {word for option in options for word in option.opts if word.startswith("--")}
    for shell in ("bash", "zsh", "fish"):
        complete = get_completion_class(shell)(cli.cli, {}, "pmlkit", "_PMLKIT_COMPLETE")
        assert last in {item.value for item in complete.get_completions(groups, last[:-1])}
        found = {item.value for item in complete.get_completions([*groups, last], "--")}
        assert found >= long | {"--json", "--help"}


NAMED = [
    ("compare h.trace --techniques", "pml,vmw", ["pml,vmware"]),
    ("plot h.trace", "mrc", ["mrc", "mrc-time"]),
    ("export h.trace", "ora", ["oracle-general"]),
    ("import", "lac", ["lackey"]),
    ("record", "hotc", ["hotcold"]),
    ("lab run", "kno", ["known"]),
    ("doctor", "x", ["xen"]),
    ("info", "hot", ["hotcold"]),
    ("plot", "data/redis-", ["data/redis-tides.trace"]),
    ("forecast", "redis-t", ["redis-tides"]),
    ("compare", "redis-t", ["redis-tides"]),
    ("wss hotcold --region", "h", ["hot"]),
    ("wss hotcold --kinds", "w", ["written"]),
    ("export hotcold csv --kinds", "written,r", ["written,read"]),
    ("mrc nothing --region", "", []),
]


@pytest.mark.parametrize(("words", "begun", "names"), NAMED)
def test_names_are_completed(words, begun, names, monkeypatch):
    from click.shell_completion import ShellComplete

    monkeypatch.chdir(Path(__file__).parents[2])
    complete = ShellComplete(cli.cli, {}, "pmlkit", "_PMLKIT_COMPLETE")
    assert [item.value for item in complete.get_completions(words.split(), begun)] == names


def test_shell_completion_works():
    words = {"COMP_WORDS": "pmlkit w", "COMP_CWORD": "1", "_PMLKIT_COMPLETE": "bash_complete"}
    assert call(**words).stdout == "plain,wss\n"
    source = call(_PMLKIT_COMPLETE="bash_source")
    assert "_PMLKIT_COMPLETE=bash_complete" in source.stdout
