# SPDX-License-Identifier: Apache-2.0
"""Every error is one line that says what and what to do, with its facts as attributes."""

import ast
import errno
import os
import pickle
import re

import pytest
from IPython.core.interactiveshell import InteractiveShell
from tree import ROOT

from pmlkit import errors
from pmlkit.errors import PmlkitError, one_line, output_error, read_error

SAMPLES = [
    (errors.TraceNotFound("a.trace"), {"path": "a.trace"}),
    (errors.NotATrace("a", "it is a file"), {"path": "a", "why": "it is a file"}),
    (errors.TraceVersionError("a", 7, 1), {"path": "a", "found": 7, "supported": 1}),
    (
        errors.TraceDamaged("a", "rounds.parquet", "is missing"),
        {"path": "a", "file": "rounds.parquet", "why": "is missing"},
    ),
    (errors.FileRefused("a", "it is a FIFO"), {"path": "a", "why": "it is a FIFO"}),
    (errors.SpoolDamaged("a", 12, "cut"), {"path": "a", "offset": 12, "why": "cut"}),
    (errors.NotUnderstood("a record of type 9"), {"why": "a record of type 9"}),
    (errors.OutputExists("a"), {"path": "a"}),
    (errors.OutputError("a", "no space left"), {"path": "a", "why": "no space left"}),
    (errors.MissingTool("gcc", "gcc"), {"tool": "gcc", "package": "gcc"}),
    (errors.WorkloadError("nope", "no such file"), {"name": "nope", "why": "no such file"}),
    (
        errors.GuestError("it panicked", "one\nKernel panic - not syncing\n\n"),
        {"why": "it panicked", "console_tail": "one\nKernel panic - not syncing\n\n"},
    ),
    (errors.ResolutionError(5, 10), {"asked": 5, "resolution": 10}),
    (errors.NeedsError("a.trace", "guest's view"), {"trace": "a.trace", "what": "guest's view"}),
    (
        errors.ClocksDiffer("instructions", "the time of web1"),
        {"cost": "instructions", "duration": "the time of web1"},
    ),
    (errors.UsageError("that is wrong", "do this"), {"hint": "do this"}),
    (
        errors.UnknownName("fruit", "aple", ["apple", "pear"]),
        {"name": "aple", "known": ("apple", "pear")},
    ),
]


@pytest.mark.parametrize(("error", "facts"), SAMPLES, ids=lambda v: type(v).__name__)
def test_facts_are_attributes_and_survive_a_process_boundary(error, facts):
    for twin in (error, pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert {name: getattr(twin, name) for name in facts} == facts


@pytest.mark.parametrize("error", [e for e, _ in SAMPLES], ids=lambda e: type(e).__name__)
def test_the_message_is_one_line_of_what_and_what_to_do(error):
    assert isinstance(error, PmlkitError)
    assert str(error) == f"{error.problem}: {error.hint}"
    assert error.problem
    assert error.hint
    assert str(error).isprintable()


def test_every_error_is_sampled_here():
    family = {n for n in errors.__all__ if isinstance(getattr(errors, n), type)} - {"PmlkitError"}
    assert {type(error).__name__ for error, _ in SAMPLES} == family


def test_the_installation_command_is_the_hint():
    assert str(errors.MissingTool("gcc", "gcc")) == "gcc is not installed: apt-get install gcc"


def test_a_guest_error_shows_the_last_words():
    error = errors.GuestError("it panicked", "booting\nKernel panic - not syncing\n")
    assert "its last line was: Kernel panic - not syncing" in str(error)


def test_control_characters_do_not_reach_the_terminal():
    assert one_line("a\n\tb\x1b[31m\udcff\x00\ud800") == r"a b\x1b[31m\xff\x00\ud800"
    assert str(errors.TraceNotFound("x\n\x1b]0;evil")).isprintable()


def test_bytes_of_a_path_that_are_no_utf8_are_shown_escaped():
    assert one_line(os.fsdecode(b"a\xff\x9bz")) == r"a\xff\x9bz"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, ("no space left", "free some space")),
        (errno.EACCES, ("not allowed", "that you may write to")),
        (errno.EROFS, ("read-only", "that you may write to")),
        (errno.ENOENT, ("folder does not exist", "make the folder")),
        (errno.ENOTDIR, ("a part of its path is a file", "another place")),
        (errno.EIO, ("Input/output error", "another place")),
    ],
)
def test_an_os_error_while_writing_becomes_advice(code, words):
    error = output_error("out.trace", OSError(code, os.strerror(code)))
    assert isinstance(error, errors.OutputError)
    assert error.path == "out.trace"
    assert all(word in str(error) for word in words)


def test_an_os_error_while_reading():
    gone = read_error("a.trace", "rounds.parquet", FileNotFoundError(errno.ENOENT, "gone"))
    assert isinstance(gone, errors.TraceDamaged)
    denied = read_error("a.trace", "rounds.parquet", PermissionError(errno.EACCES, "denied"))
    assert not isinstance(denied, errors.TraceDamaged)
    assert "rounds.parquet" in str(denied)
    assert "denied" in str(denied)


def test_a_similar_name_is_suggested():
    assert errors.closest("hotcld", ["redis", "hotcold"]) == "hotcold"
    assert errors.closest("hotcld", iter(["hotcold"])) == "hotcold"
    assert errors.closest("hotcold", []) is None


# ------------------------------------------------------------------------------
# Names of arguments, and how a notebook shows an error.


def test_an_argument_is_named_as_python_and_the_shell_write_it():
    ask = f"give {errors.argument('page_size')} or {errors.argument('inputs', 'pml')}"
    error = errors.PmlkitError("no", f"{ask}, or {errors.argument('overwrite', True)}")
    assert str(error) == "no: give `page_size` or `inputs='pml'`, or `overwrite=True`"
    assert error.hint == "give `page_size` or `inputs='pml'`, or `overwrite=True`"
    assert error.at_shell == "no: give --page-size or --inputs pml, or --overwrite"
    options = {name: f"--{name.replace('_', '-')}" for name in ("page_size", "inputs", "overwrite")}
    assert errors.at_shell(str(error), options) == error.at_shell
    assert errors.at_shell("`page_size` of a `trace`", {"trace": "--of"}) == "`page_size` of a --of"


def test_a_subclass_with_a_message_of_its_own_has_one_for_the_shell():
    exists = errors.OutputExists("x.trace")
    assert pickle.loads(pickle.dumps(exists)).at_shell == exists.at_shell
    assert "`" not in exists.at_shell


def test_a_notebook_shows_one_line(monkeypatch):
    monkeypatch.delenv("PMLKIT_DEBUG", raising=False)
    error = errors.UsageError("a is b", "give c")
    assert error._render_traceback_() == ["UsageError: a is b: give c"]
    monkeypatch.setenv("PMLKIT_DEBUG", "1")
    with pytest.raises(errors.UsageError) as caught:
        raise error
    assert "Traceback" in "".join(caught.value._render_traceback_())


def test_ipython_shows_that_line(capsys):
    shell = InteractiveShell()
    shell.run_cell("from pmlkit.errors import UsageError; raise UsageError('a is b', 'give c')")
    assert capsys.readouterr().out.strip() == "UsageError: a is b: give c"


# Of commands that Python programs do not call: their arguments are options only.
SHELL_ONLY = {"cli", "kvm", "xen", "sources", "batch"}
OPTION = re.compile(r"(?<![\w`=-])--[a-z][a-z-]+")


def test_errors_name_no_option_outside_a_command():
    for path in sorted((ROOT / "pmlkit").rglob("*.py")):
        if path.relative_to(ROOT / "pmlkit").parts[0] in SHELL_ONLY:
            continue
        raised = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Raise)]
        for text in (n for one in raised for n in ast.walk(one) if isinstance(n, ast.Constant)):
            if isinstance(text.value, str):
                plain = re.sub(r"`[^`]*`", "", text.value)
                assert not OPTION.search(plain), f"{path.name}:{text.lineno}: {text.value}"
