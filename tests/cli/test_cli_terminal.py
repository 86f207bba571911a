# SPDX-License-Identifier: Apache-2.0
"""Output on a terminal and into a pipe: colours, a reader that goes away, a full disk."""

import json
import os
import pty
import re
import shlex
import subprocess

from cli_case import COMMAND, check_one_line, spawn


def test_a_reader_that_goes_away_is_no_error(make_trace):
    # More than a pipe holds, so that the writer is stopped in the middle.
    path = make_trace(rounds=2000, pages=1, pml=False).path
    command = shlex.join([*COMMAND, "wss", str(path), "--window", "1r", "--json"])
    done = subprocess.run(["bash", "-c", f"{command} | head -n 1"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_standard_output_on_a_full_disk_is_one_line(trace):
    with open("/dev/full", "w") as full:
        done = spawn("info", trace, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    check_one_line(done.stderr, "cannot write the standard output .no space left.: free some space")


def on_a_terminal(*words, **env):
    """Run a command on a terminal of its own; return all that it shows."""
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "100"} | env,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # the terminal is closed once the process has gone
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_colours_are_for_terminals_and_obey_no_color(run, trace):
    coloured = r"\x1b\[[0-9;]*3[0-9]m"
    assert re.search(coloured, on_a_terminal("info", trace))
    assert not re.search(coloured, on_a_terminal("info", trace, NO_COLOR="1"))
    assert "\x1b" not in run("info", trace)[1]


def test_json_on_a_terminal_is_json_alone(trace):
    assert json.loads(on_a_terminal("info", trace, "--json"))["kind"] == "access"
