# SPDX-License-Identifier: Apache-2.0
"""Bad input and wrong use: each error is one line, with its exit code."""

import sys

import click
import pytest
from cli_case import check_one_line

from pmlkit import cli


def test_a_recording_without_rounds_is_no_defect_of_pmlkit(run, make_trace):
    path = make_trace("none.trace", events=[]).path
    assert run("mrc", path, "--window", "1s")[0] == 0
    code, _, err = run("compare", path, "--window", "1s", "--techniques", "pml")
    assert code == 1
    check_one_line(err, "has no rounds: record it for longer")
    code, _, err = run("plot", path, "window", "-o", path.parent / "f")
    assert code == 1
    check_one_line(err, "has no rounds: record it for longer")


def flip(path, at=200):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def set_version(path):
    path.write_text(path.read_text().replace('"version": 1', '"version": 7', 1))


DAMAGE = {
    "a flipped bit of the entries": ("entries/part-00000.parquet", flip, "part-00000.parquet"),
    "truncated entries": ("entries/part-00000.parquet", cut, "part-00000.parquet"),
    "a flipped bit of a table": ("rounds.parquet", flip, "rounds.parquet"),
    "a lost table": ("batches.parquet", lambda path: path.unlink(), "batches.parquet"),
    "another version": ("trace.json", set_version, "format version 7.*reads version 1"),
    "an edited description": (
        "trace.json",
        lambda path: path.write_text(path.read_text().replace("synthetic", "authentic")),
        "trace.json",
    ),
    "a truncated description": ("trace.json", cut, "trace.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("command", ["info", "wss"])
def test_damage_is_refused_by_name(run, trace, command, what):
    file, damage, says = DAMAGE[what]
    damage(trace / file)
    code, out, err = run(command, trace, "--json", *(["--window", "1r"] * (command == "wss")))
    assert (code, out) == (1, "")
    check_one_line(err, says)
    assert ": " in err.removeprefix("pmlkit: "), "what to do is missing"


def test_info_finds_damage_that_wss_does_not_read(run, trace):
    flip(trace / "pml.trace" / "entries" / "part-00000.parquet")
    code, _, err = run("info", trace)
    assert code == 1
    check_one_line(err, "part-00000.parquet")


@pytest.fixture
def strays(tmp_path, monkeypatch, trace):
    """A folder with a text file, a foreign folder and a trace; it is the working directory."""
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "trace.json").write_text('{"format": "another"}')
    (tmp_path / "x.spool").write_bytes(b"not a spool at all, but long enough to be one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COULD_NOT = [
    ("info nowhere.trace", "no trace at nowhere.trace: "),
    ("info file.txt", "file.txt is not a pmlkit trace"),
    ("info folder", "folder is not a pmlkit trace"),
    ("wss nowhere.trace", "no trace at nowhere.trace: "),
    ("wss h.trace --window 5ms", "5 ms is not possible.* 10 ms"),
    ("wss h.trace --window 15ms", "15 ms is not possible.* 10 ms"),
    ("wss h.trace/pml.trace --window 10ms --kinds r", "writes only"),
    ("simulate h.trace -o h.trace", "h.trace exists already"),
    ("simulate h.trace/pml.trace -o new.trace", "no accesses"),
    ("simulate h.trace -o file.txt/new.trace", "cannot write .*new.trace"),
    ("simulate nowhere.trace -o new.trace", "no trace at nowhere.trace"),
    ("ingest nowhere.spool -o new.trace", "nowhere.spool"),
    ("ingest x.spool -o new.trace", "x.spool"),
    ("ingest folder -o new.trace", "folder"),
    ("plot nowhere.trace wss -o f", "no trace at nowhere.trace"),
    ("plot h.trace heat -o file.txt/f", "cannot write"),
    ("record nosuchworkload -o new.trace", "no such workload"),
    ("record hotcold --set hot=many -o new.trace", "hot cannot be 'many'"),
    ("record hotcold --set nosuch=1 -o new.trace", "no parameter nosuch"),
    ("record file.txt -o new.trace", "file.txt"),
    ("record folder -o new.trace", "folder"),
    ("record hotcold -o h.trace", "h.trace exists already"),
    ("record hotcold -o file.txt/new.trace", "cannot write .*new.trace"),
]


WRONG_USE = [
    ("bogus", "No such command 'bogus'"),
    ("wss", "Missing argument 'TRACE...'.*pmlkit wss --help"),
    ("wss h.trace --nonsense", "--nonsense"),
    ("wss h.trace --window soon", "'soon' is not a window"),
    ("wss h.trace --window 0ms", "window"),
    ("wss h.trace --window -1s", "'-1s' is not a window"),
    ("wss h.trace --window 10ms --region attic", "'attic'.* hot, cold"),
    ("wss h.trace --window 10ms --min-count 0", "0"),
    ("wss h.trace --window 10ms --kinds rq", "'rq'"),
    ("wss h.trace --window 10ms --page-tables both", "'both'"),
    ("wss h.trace --window 10ms --start yesterday", "'yesterday' is not a duration"),
    ("wss h.trace --window 10ms --start 20ms --end 10ms", "ends before it starts"),
    ("wss h.trace --window 10ms --start 1h", "h.trace lasts .* a round between them"),
    ("mrc h.trace --start 1h", "h.trace lasts .* a round between them"),
    ("mrc h.trace --method lru", "'lru'"),
    ("mrc h.trace --rate 2", "2"),
    ("simulate h.trace", "Missing option '-o'"),
    ("simulate h.trace -o new.trace --start 20ms --end 10ms", "ends before it starts"),
    ("simulate h.trace -o new.trace --start 1h", "h.trace lasts .* a round between them"),
    ("export h.trace csv -o new.csv --end 0", "h.trace lasts .* a round between them"),
    ("export h.trace damo -o new.data --start 1h", "h.trace lasts .* a round between them"),
    ("plot h.trace heat -o new --end 0", "h.trace lasts .* a round between them"),
    ("compare h.trace --window 10ms --start 20ms --end 10ms", "ends before it starts"),
    ("compare h.trace --window 10ms --start 1h", "h lasts .* a window T of 10 ms in it"),
    ("compare h.trace --published --start 10ms", "leave out --start and --end"),
    ("simulate h.trace -o new.trace --buffers 3", "3 is not in the range"),
    ("simulate h.trace -o new.trace --buffer 0", "0 is not in the range"),
    ("simulate h.trace -o new.trace --rearm later", "'later'"),
    ("plot h.trace", "name a TRACE, then a FIGURE"),
    ("plot h.trace heat", "give one: -o STEM for files, or --terminal"),
    ("plot h.trace portrait", "no figure 'portrait': choose from wss"),
    ("plot h.trace portrait -o f", "no figure 'portrait': choose from wss"),
    ("plot h.trace mcr -o f", "do you mean 'mrc'"),
    ("export h.trace damoo -o f", "do you mean 'damo'"),
    ("compare h.trace --techniques pml-treshold", "do you mean 'pml-threshold'"),
    ("doctor xenn", "no capability 'xenn': do you mean 'xen'?"),
    ("record", "name a WORKLOAD"),
    ("record hotcold", "-o NAME.trace"),
    ("record hotcold -o new.txt", "NAME.trace"),
    ("record hotcold -o new.trace --memory lots", "'lots' is not a size"),
    ("record hotcold -o new.trace --memory 1", "a guest with 1 MiB of memory"),
    (
        "record hotcold -o new.trace --memory 64G",
        "a guest with 64 GiB of memory: give it 64 MiB to 3 GiB",
    ),
    ("record hotcold -o new.trace --memory 100K", "whole number of MiB"),
    ("record hotcold -o new.trace --window 1ns", "too short"),
    ("record hotcold -o new.trace --window fast", "'fast'"),
    ("record hotcold -o new.trace --set hot", "name=value"),
    ("record hotcold -o new.trace --time-limit never", "'never' is not a duration"),
]


@pytest.mark.parametrize(("words", "says"), COULD_NOT)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(run, strays, words, says):
    check_refusal(run, strays, words, says, 1)


@pytest.mark.parametrize(("words", "says"), WRONG_USE)
def test_wrong_use_is_one_line_and_exit_code_2(run, strays, words, says):
    check_refusal(run, strays, words, says, 2)


def check_refusal(run, folder, words, says, expected):
    before = sorted(folder.rglob("*"))
    code, out, err = run(*words.split())
    check_one_line(err, says)
    assert (code, out) == (expected, "")
    assert sorted(folder.rglob("*")) == before, "something was left behind"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(28, "No space left on device", "x.trace"), 1, "x.trace: No space left on device"),
        (PermissionError(13, "Permission denied"), 1, "Permission denied"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "a/b: Permission denied: check its"),
        (click.ClickException("as click says it"), 1, "as click says it"),
        (ValueError("two\nlines"), 1, "ValueError: two lines: this is a defect.*PMLKIT_DEBUG=1"),
    ],
)
def test_any_exception_becomes_one_line(run, monkeypatch, error, code, says):
    from pmlkit import doctor

    def fail(names):
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    found, out, err = run("doctor")
    assert (found, out) == (code, "")
    # The newline before "interrupted" ends the line on which the terminal shows ^C.
    check_one_line(err.removeprefix("\n"), says)


def test_debugging_shows_the_traceback(run, monkeypatch):
    monkeypatch.setenv("PMLKIT_DEBUG", "1")
    code, _, err = run("info", "nowhere.trace")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("pmlkit: there is no trace at nowhere.trace")


def test_that_a_file_cannot_be_read_is_not_taken_for_wrong_use(make_trace, monkeypatch):
    made = make_trace(rounds=1)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert cli.main(["info", str(made.path)]) == 0  # opening it decides


def test_a_missing_package_is_no_defect_of_pmlkit(run, trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("pmlkit.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("pmlkit.figures", raising=False)
    code, _, err = run("plot", trace, "wss", "-o", trace.parent / "f")
    assert code == 1
    check_one_line(err, "the Python package matplotlib is missing: `pmlkit doctor`")


@pytest.mark.parametrize(
    "words",
    [
        "export hotcold csv -o -",
        "import csv - -o x.trace",
        "plot hotcold wss -o -",
        "simulate hotcold -o -",
        "run -",
        "annotate hotcold -",
        "wss -",
    ],
)
def test_a_dash_is_no_file(run, tmp_path, monkeypatch, words):
    """It means standard input or output elsewhere; here a file of this name was written."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    check_one_line(err, r"standard input and output are not supported: give a file \(\./- if")
    assert not list(tmp_path.iterdir())
