# SPDX-License-Identifier: Apache-2.0
"""A stranger's file is regular and of a stated size; ours appears whole, outside of traces."""

import errno
import io
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading

import pytest
from full_disk import FullDisk

from pmlkit import cli, files
from pmlkit.errors import FileRefused, OutputError, OutputExists
from pmlkit.files import (
    PartialFolder,
    open_regular,
    portable,
    read_regular,
    refuse_inside_trace,
    scratch_folder,
    whole,
    write_files,
)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("/home/me/x.trace", "x.trace"),
        ("/home/me/corpus/", "corpus"),
        ("--output=/home/me/x.trace", "--output=x.trace"),
        ("-o/home/me/x.trace", "-ox.trace"),
        ("sub/x.trace", "sub/x.trace"),
        ("root=/dev/none", "root=/dev/none"),
        ("--set", "--set"),
        ("", ""),
    ],
)
def test_an_absolute_path_is_published_as_a_name(argument, name):
    assert portable(argument) == name


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with open_regular(tmp_path / name, 3) as file:
            assert file.read() == b"abc"
    assert read_regular(tmp_path / "a", 3) == b"abc"


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_fifo, "it is a FIFO"),
        (_socket, "it is a socket"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
        (lambda path: path.symlink_to("/dev/tty"), "it is a device"),
        (lambda path: path.write_bytes(bytes(9)), "it has 9 bytes, and at most 8 are read"),
    ],
)
@pytest.mark.parametrize("read", [open_regular, read_regular])
def test_anything_else_is_refused_in_words(tmp_path, make, words, read):
    make(tmp_path / "x")
    with pytest.raises(FileRefused, match=words):
        read(tmp_path / "x", 8)


def test_a_file_that_does_not_know_its_size_is_limited():
    with pytest.raises(FileRefused, match="more than 16 bytes, and at most 16"):
        read_regular("/proc/self/maps", 16)


def test_what_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")
    with pytest.raises(FileRefused, match="null"):
        open_regular("a\0b")


@pytest.mark.parametrize(
    "name", ["new.csv", "rounds.parquet", "entries/x", "entries/part-00000.parquet", "a/b/c"]
)
def test_an_output_in_a_trace_is_refused(make_trace, tmp_path, monkeypatch, name):
    path = make_trace(pml=False).path
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(path)
    for folder in (path, tmp_path / "link", "", tmp_path / "no" / ".." / "x.trace"):
        with pytest.raises(OutputError, match=r"x\.trace is a trace\): choose a place outside"):
            refuse_inside_trace(os.path.join(folder, name))


def test_the_trace_itself_is_no_output_in_it_but_for_folders(make_trace, tmp_path):
    path = make_trace(pml=False).path
    refuse_inside_trace(path)
    refuse_inside_trace(tmp_path / "x.csv")
    refuse_inside_trace(tmp_path, is_folder=True)
    with pytest.raises(OutputError, match="is a trace"):
        refuse_inside_trace(path, is_folder=True)


def test_a_damaged_trace_is_still_one(make_trace):
    path = make_trace(pml=False).path
    (path / "trace.json").unlink()
    with pytest.raises(OutputError, match="is a trace"):
        refuse_inside_trace(path / "x")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: whole(path / "rounds.parquet", overwrite=True).__enter__(),
        lambda path: write_files(path, {"x.csv": b"1"}),
        lambda path: write_files(path / "new", {"x.csv": b"1"}),
        lambda path: PartialFolder(path / "pml.trace", overwrite=True),
    ],
)
def test_nothing_is_written_into_a_trace(make_trace, write):
    path = make_trace().path
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(OutputError, match="is a trace"):
        write(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_file_appears_when_it_is_whole(tmp_path):
    with whole(tmp_path / "a") as partial:
        partial.write_bytes(b"abc")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyError), whole(tmp_path / "a", overwrite=True) as partial:
        partial.write_bytes(b"new")
        raise KeyError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_name_that_is_taken(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "d").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, overwrite in (("a", False), ("d", True), ("dangling", False)):
        with pytest.raises(OutputExists, match="exists already"), whole(tmp_path / name, overwrite):
            pytest.fail("there is nothing to write")


def test_a_name_that_is_taken_meanwhile(tmp_path):
    with pytest.raises(OutputExists), whole(tmp_path / "a") as partial:
        partial.write_bytes(b"ours")
        (tmp_path / "a").write_bytes(b"another's")
    assert (tmp_path / "a").read_bytes() == b"another's"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("precious"),
        lambda path: path.mkdir(),
        _fifo,
        _socket,
    ],
)
def test_a_partial_file_that_is_no_file_is_somebody_elses(tmp_path, make):
    (tmp_path / "precious").write_bytes(b"precious")
    make(tmp_path / "a.partial")
    with pytest.raises(OutputExists, match=r"a\.partial exists already"), whole(tmp_path / "a"):
        pytest.fail("there is nothing to write")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert os.path.lexists(tmp_path / "a.partial")


def test_of_two_writers_one_wins(tmp_path):
    with whole(tmp_path / "a") as partial:
        partial.write_bytes(b"first")
        with (
            pytest.raises(OutputError, match="another process is writing it"),
            whole(tmp_path / "a", overwrite=True),
        ):
            pytest.fail("the first has it")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_what_a_killed_writer_has_left_is_taken_over(tmp_path):
    (tmp_path / "a.partial").write_bytes(b"left" * 100)
    with whole(tmp_path / "a") as partial:
        partial.write_bytes(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_many_writers_in_a_row_and_at_once(tmp_path):
    results = []

    def write(number):
        try:
            with whole(tmp_path / "a", overwrite=True) as partial:
                partial.write_bytes(bytes([number]) * 1000)
            results.append("written")
        except OutputError as error:
            results.append(error.why)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) <= {"written", "another process is writing it"}
    assert len(results) == 40
    content = (tmp_path / "a").read_bytes()
    assert content == content[:1] * 1000
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_that(tmp_path, code):
    words = {
        errno.ENOSPC: "no space left",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "ulimit -f",
    }
    with pytest.raises(OutputError, match=words[code]), whole(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("room", range(0, 31, 5))
def test_files_are_written_all_or_none(tmp_path, monkeypatch, room):
    old, new = (dict.fromkeys("abc", letter * 10) for letter in (b"1", b"2"))
    write_files(tmp_path, old)
    rooms = iter(max(0, min(10, room - 10 * place)) for place in range(3))

    def on_full_disk(path, mode):
        return io.BufferedWriter(FullDisk(open(path, mode, buffering=0), next(rooms)))

    monkeypatch.setattr(files, "open", on_full_disk, raising=False)
    if room < 30:
        with pytest.raises(OutputError, match=f"{'abc'[room // 10]} .no space left"):
            write_files(tmp_path, new)
    else:
        write_files(tmp_path, new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        old if room < 30 else new
    )


def test_more_files_are_written_than_may_be_open(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 32 + len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    try:
        write_files(tmp_path, {str(number): b"" for number in range(2 * few)})
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few, limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list(tmp_path.iterdir())) == 2 * few


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_scratch_folder_is_named_and_other_errors_are_as_they_were(code):
    with pytest.raises(OutputError) as caught, scratch_folder():
        raise OSError(code, os.strerror(code))
    assert caught.value.path == tempfile.gettempdir()
    for error in (OSError(code, "full", "/elsewhere"), OSError(errno.EIO, "broken")):
        with pytest.raises(OSError) as other, scratch_folder():
            raise error
        assert other.value is error


def test_a_library_that_does_not_say_why_is_looked_behind(tmp_path):
    code = """
import resource, sys
import numpy as np
from pmlkit.errors import OutputError
from pmlkit.files import whole
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with whole(sys.argv[1]) as partial:
        np.zeros(100_000, np.uint8).tofile(partial)
except OutputError as error:
    print(error.why)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "the file has reached the maximum size here\n"
    assert not os.listdir(tmp_path)


def test_a_path_that_cannot_be(tmp_path):
    for path in ("a\0b", "/", tmp_path / "no" / "a", tmp_path / ("x" * 300)):
        with pytest.raises((OutputError, OutputExists)), whole(path):
            pytest.fail("there is no such place")


def test_a_path_that_is_no_utf8(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b"\xff\xfe"))
    with whole(path) as partial:
        partial.write_bytes(b"abc")
    assert read_regular(path, 3) == b"abc"


@pytest.mark.parametrize(
    "command",
    [
        ["plot", "x.trace", "wss", "-o", "x.trace/rounds"],
        ["plot", "x.trace", "wss", "-o", "x.trace/new/rounds"],
        ["mrc", "x.trace", "-o", "x.trace/entries/rounds"],
        ["simulate", "x.trace", "-o", "x.trace/y.trace"],
        ["simulate", "x.trace", "-o", "x.trace/pml.trace", "--overwrite"],
        ["record", "hotcold", "-o", "x.trace/y.trace"],
        ["compare", "x.trace", "--window", "10ms", "-o", "x.trace"],
        ["frontier", "x.trace", "--window", "10ms", "-o", "x.trace/new"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_no_command_writes_into_a_trace(make_trace, tmp_path, monkeypatch, capsys, command):
    path = make_trace(rounds=20).path
    monkeypatch.chdir(tmp_path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert cli.main(command) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "is a trace): choose a place outside of all traces" in message
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_partial_folder_is_never_cleared_through_a_link(tmp_path):
    (tmp_path / "precious" / "entries").mkdir(parents=True)
    (tmp_path / "precious" / "rounds.parquet").write_bytes(b"precious")
    (tmp_path / "x.trace.partial").symlink_to("precious")
    with pytest.raises(OutputError):
        PartialFolder(tmp_path / "x.trace")
    assert (tmp_path / "precious" / "rounds.parquet").read_bytes() == b"precious"
    assert (tmp_path / "precious" / "entries").is_dir()


def test_a_limit_on_memory_is_called_that(make_trace):
    path = make_trace(pml=False).path
    code = """
import sys
from pmlkit import cli
def fail(*args):
    raise RuntimeError("can't start new thread")
sys.modules["pmlkit.trace.reader"] = type("M", (), {"Trace": type("T", (), {"open": fail})})
sys.exit(cli.main(["info", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("pmlkit: not enough memory or threads: ")


@pytest.mark.parametrize("replaceable", [True, False])
def test_that_a_name_is_taken_names_overwrite_where_it_helps(tmp_path, replaceable):
    taken = tmp_path / "a"
    taken.write_text("") if replaceable else taken.mkdir()
    with pytest.raises(OutputExists) as caught, whole(taken):
        pass
    assert caught.value.replaceable == replaceable
    assert ("overwrite" in str(caught.value)) == replaceable
