# SPDX-License-Identifier: Apache-2.0
"""What the command line offers: commands, their help, their options and examples."""

import json
import re
import shlex
import subprocess
import sys

import click
import pytest
from cli_case import COMMANDS, LEAVES, check_one_line, leaf

from pmlkit import cli, recordings
from pmlkit.cli.app import MEANT


def test_the_commands_are_those_that_work():
    assert cli.cli.list_commands(None) == COMMANDS


def test_nothing_heavy_is_imported_before_a_command_runs():
    heavy = {"numpy", "pandas", "pyarrow", "matplotlib", "sklearn", "papermill", "rich", "yaml"}
    code = f"import sys, pmlkit.cli.app as c; c.main(['--help']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("info", {"pandas", "numba", "scipy", "matplotlib"}),
        ("wss", {"numba", "scipy", "matplotlib"}),
        ("mrc", {"pandas", "numba", "scipy", "matplotlib"}),
    ],
)
def test_a_first_answer_imports_only_what_it_needs(command, heavy):
    """Each of these takes as long as the answer itself."""
    trace = str(recordings.bundled("hotcold"))
    code = f"import sys, pmlkit.cli.app as c; c.main([{command!r}, {trace!r}])"
    ask = f"{code}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_without_a_command_it_helps_and_is_wrong_use(run):
    code, out, _ = run()
    assert code == 2
    assert "Commands:" in out
    assert run("--help")[:2] == (0, out)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_help_with_an_example_and_json(run, name):
    code, out, err = run(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert f"\n    pmlkit {name} " in out or f"\n    pmlkit {name}\n" in out


@pytest.mark.parametrize("name", LEAVES)
def test_help_states_each_default_once(name):
    command = leaf(name)
    options = (param for param in command.params if isinstance(param, click.Option))
    for option in options:
        record = option.get_help_record(click.Context(command))
        assert record is None or record[1].count("[default:") <= 1, option.opts


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("path", ["", "-"])
def test_no_path_is_empty_or_a_dash(name, path):
    for param in leaf(name).params:
        if isinstance(param.type, click.Path):
            with pytest.raises(click.BadParameter):
                param.type.convert(path, param, None)


def test_an_empty_path_is_wrong_usage_and_not_the_lack_of_one(run):
    code, _, err = run("period", "hotcold", "--calibration", "")
    assert code == 2
    check_one_line(err, "--calibration.*the path is empty")


@pytest.mark.parametrize(
    "words",
    [
        ("collect", "web1", "-o", "w.trace", "--host", ""),
        ("collect", "", "-o", "w.trace"),
        ("collect", "--kvm", " ", "-o", "w.trace"),
        ("calibrate", "--domain", ""),
        ("run", "demo.yaml", "--cluster", ""),
    ],
)
def test_an_empty_name_is_not_this_machine(run, words):
    code, _, err = run(*words)
    assert code == 2
    check_one_line(err, "the name is empty")


# Commands that take a trace, and all of it: they check or mark it, or keep its points in a folder.
WHOLE_TRACES = {"annotate", "frontier", "info"}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_that_reads_a_trace_takes_a_part_of_it(name):
    options = {o for p in leaf(name).params for o in p.opts}
    arguments = {param.name for param in leaf(name).params if isinstance(param, click.Argument)}
    reads = bool(arguments & {"trace", "traces"}) and name not in WHOLE_TRACES
    assert ({"--start", "--end", "--phase", "--between"} <= options) == reads


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_puts_no_colour_into_a_pipe(run, name):
    assert "\x1b" not in "".join(run(*name.split(), "--help")[1:])
    code, out, err = run(*name.split(), "--no-such-option")
    assert (code, out) == (2, "")
    check_one_line(err, "no-such-option")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_valid_calls(name):
    command = cli.cli.get_command(None, name)
    lines = [line.strip() for line in command.epilog.splitlines() if line.startswith("  pmlkit")]
    assert lines
    for line in lines:
        _, called, *words = shlex.split(line)
        assert called == name
        command.make_context(name, words)


def test_each_line_of_the_overview_is_whole(run):
    _, out, _ = run("--help")
    overview = out.split("Commands:\n")[1].split("\n\n")[0]
    assert "..." not in overview


def test_a_bundled_trace_goes_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("wss", "hotcold", "--json")
    assert code == 0 and json.loads(out)[0]["pages"] > 300
    code, _, err = run("wss", "hotcodl")
    assert code == 1
    check_one_line(err, "no trace at hotcodl: do you mean the bundled 'hotcold'")
    (tmp_path / "hotcold").mkdir()  # what is there comes first
    assert run("wss", "hotcold")[0] == 1


@pytest.mark.parametrize("name", LEAVES)
def test_each_name_of_a_trace_is_of_one_type(name):
    from pmlkit.cli.parameters import TracePath

    named = [p for p in leaf(name).params if {p.name, p.metavar} & {"trace", "traces", "TRACE"}]
    assert all(isinstance(param.type, TracePath) for param in named)


def test_kinds_are_words_or_letters(run, trace):
    words = run("wss", trace, "--window", "10ms", "--kinds", "read,written", "--json")
    assert words == run("wss", trace, "--window", "10ms", "--kinds", "rw", "--json")
    code, _, err = run("wss", trace, "--kinds", "read,wrote")
    assert code == 2
    check_one_line(err, "use read, written, executed, page-tables, with commas between")


@pytest.mark.parametrize("word", sorted(MEANT))
def test_words_that_people_try_lead_to_a_command(run, word):
    code, _, err = run(word)
    assert code == 2
    check_one_line(err, f"No such command '{word}'")
    named = re.findall(r"`(?:pmlkit )?(\w+)|mean '(\w+)'", err.partition("(see")[0])
    assert named and all(set(pair) & set(COMMANDS) for pair in named)
