# SPDX-License-Identifier: Apache-2.0
"""Workloads are found, described and refused with a reason."""

import os
import subprocess
from itertools import pairwise

import pytest
from needs import needs_gcc
from tree import tracked

from pmlkit.errors import WorkloadError
from pmlkit.sources.guest.workload import Parameter, Workload, list_workloads, load

GOOD = """\
summary: does something
command: ./run.sh "$size"
files: [run.sh]
packages: [redis-server]
parameters:
  size: {default: 4, help: in MiB}
  share: {default: 0.5, help: of it}
  word: {default: x}
memory_mib: 128
phases: [one, two]
"""


@pytest.fixture
def folder(tmp_path):
    def make(text=GOOD):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "run.sh").write_text("#!/bin/sh\n")
        (tmp_path / "mine" / "workload.yaml").write_text(text)
        return tmp_path / "mine"

    return make


def test_all_that_are_promised_are_there():
    shipped = {workload.name: workload for workload in list_workloads()}
    synthetic = {"hotcold", "rrww", "rwrw", "wwrr", "zipf", "sawtooth", "burst", "idle"}
    synthetic |= {"sparse", "largepages", "forks", "remap", "moving", "semispace"}
    assert synthetic | {"redis", "sqlite", "xz", "numpy", "gcc"} <= set(shipped)


BUNDLED = [path.parent.name for path in tracked("experiments/workloads/*/workload.yaml")]


@pytest.mark.parametrize("name", BUNDLED)
def test_each_is_described(name):
    workload = load(name)
    assert workload in list_workloads()
    assert 10 < len(workload.summary) <= 100
    assert workload.phases[-1] == "done"
    assert workload.seconds > 0
    for name, parameter in workload.parameters.items():
        assert parameter.help
        assert f"${name}" in workload.command or workload.files


def test_a_folder_is_a_workload(folder):
    workload = load(folder())
    assert workload == Workload(
        name="mine",
        summary="does something",
        command='./run.sh "$size"',
        packages=("redis-server",),
        files=(folder() / "run.sh",),
        parameters={
            "size": Parameter(4, "in MiB"),
            "share": Parameter(0.5, "of it"),
            "word": Parameter("x", ""),
        },
        memory_mib=128,
        phases=("one", "two"),
    )


def test_parameters_take_the_type_of_their_default(folder):
    workload = load(folder()).with_parameters({"size": "9", "share": "0.25", "word": "7"})
    assert {n: p.default for n, p in workload.parameters.items()} == {
        "size": 9,
        "share": 0.25,
        "word": "7",
    }
    assert load(folder()).parameters["size"].default == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sise": "3"}, "it has no parameter sise.*it has size, share, word"),
        ({"size": "big"}, "size cannot be 'big'.*whole number, such as 4"),
        ({"share": "half"}, "share cannot be 'half'.*a number, such as 0.5"),
    ],
)
def test_wrong_parameters_are_refused(folder, values, message):
    with pytest.raises(WorkloadError, match=message):
        load(folder()).with_parameters(values)


def test_a_workload_without_parameters_says_so():
    with pytest.raises(WorkloadError, match="it has none"):
        Workload("x", "x", "x").with_parameters({"a": "1"})


def test_an_unknown_name_is_answered_by_close_ones():
    with pytest.raises(WorkloadError, match="hotcolt cannot be run .*did you mean hotcold?"):
        load("hotcolt")
    with pytest.raises(WorkloadError, match="--list"):
        load("qqqqqqqq")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary: [", "line 1: "),
        ("summary: x\ncommand: y\n\tz: 1\n", "line 3: "),
        ("just words", "not `key: value`"),
        ("summary: x\n", "no `command`"),
        ("command: 5\n", "`command` should be a str"),
        ("command: x\nmemory_mib: lots\n", "`memory_mib` should be a int"),
        ("command: x\ndisk_mib: 15\n", "`disk_mib` is 15, and a disk has 16 to 4096 MiB"),
        ("command: x\ndisk_mib: 0100\n", "line 2: 0100 would be read as 64"),
        ("command: x\ndisk_mib: 4097\n", "`disk_mib` is 4097"),
        ("command: x\nfiles: [gone.txt]\n", "gone.txt, which does not exist"),
        ("command: x\nfiles: 7\n", "`files` should be a list"),
        ("command: x\nphases: [1, 2]\n", "`phases` should be a list of words"),
        ("command: x\nmemmory_mib: 5\n", "`memmory_mib` is not a known field.*mean memory_mib"),
        ("command: x\nparameters: {Size: 4}\n", "parameter Size is not a lower-case"),
        ("command: x\nparameters: {size: {help: y}}\n", "parameter size has no `default`"),
    ],
)
def test_a_bad_description_is_refused_with_the_place(folder, text, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        load(folder(text))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(folder):
    path = folder()
    (path / "workload.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkloadError, match=r"workload\.yaml"):
        load(path)


def test_a_folder_without_a_description_is_refused(tmp_path):
    with pytest.raises(WorkloadError, match=r"no workload\.yaml"):
        load(tmp_path)


@needs_gcc
def test_a_c_file_and_a_static_program_are_workloads(tmp_path):
    source = tmp_path / "my prog.c"
    source.write_text("int main(void) { return 0; }")
    assert load(source).sources == (source,)
    assert load(source).command == "'./my prog'"
    subprocess.run(["gcc", "-static", "-o", tmp_path / "prog", source], check=True)
    assert load(tmp_path / "prog").files == (tmp_path / "prog",)
    assert load(str(tmp_path / "prog")).command == "./prog"


@needs_gcc
def test_a_c_file_that_does_not_compile_is_refused_at_once(tmp_path):
    (tmp_path / "bad.c").write_text("int main(void) { return x; }")
    with pytest.raises(WorkloadError, match=r"bad\.c.*gcc reports.*undeclared"):
        load(tmp_path / "bad.c")


@pytest.mark.parametrize("key", ["sources", "files"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("@args", "names '@args': give a name in the folder"),
        ("-o", "names '-o': give a name in the folder"),
        ("/etc/passwd", "names '/etc/passwd': give a name in the folder"),
        ("../other", r"names '../other': give a name in the folder"),
        ("sub/../../other", "give a name in the folder"),
        ("link", "link is a link out of the folder, to /etc"),
        ("linked/passwd", "is a link out of the folder, to /etc/passwd"),
        ("sub", "sub/deep/out is a link out of the folder"),
        ("pipe", "pipe is a FIFO"),
        ("pipes", "pipes/pipe is a FIFO"),
    ],
)
def test_a_strangers_folder_gives_only_what_is_in_it(folder, tmp_path, key, name, words):
    mine = folder(f"command: x\n{key}: ['{name}']\n")
    (tmp_path / "other").write_text("host")
    (mine / "@args").write_text("")
    (mine / "link").symlink_to("/etc")
    (mine / "linked").symlink_to("/etc")
    (mine / "sub" / "deep").mkdir(parents=True)
    (mine / "sub" / "deep" / "out").symlink_to(tmp_path / "other")
    (mine / "pipes").mkdir()
    os.mkfifo(mine / "pipe")
    os.mkfifo(mine / "pipes" / "pipe")
    with pytest.raises(WorkloadError, match=words):
        load(mine)


def test_a_link_that_stays_in_the_folder_is_fine(folder):
    mine = folder("command: x\nfiles: [here]\n")
    (mine / "here").symlink_to("run.sh")
    assert load(mine).files == (mine / "here",)


@pytest.mark.parametrize("name", ["--help", "a=1", "xz-utils/sid", "../x.deb", "", "A"])
def test_a_package_has_the_name_of_one(folder, name):
    with pytest.raises(WorkloadError, match="not a name of a Debian package"):
        load(folder(f"command: x\npackages: ['{name}']\n"))


def test_a_description_that_is_no_file_or_a_bomb(folder):
    mine = folder()
    aliases = "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi")
    )
    (mine / "workload.yaml").write_text(f"command: x\na: &a [x]\n{aliases}")
    with pytest.raises(WorkloadError, match="stands for more than 100,000 values"):
        load(mine)
    (mine / "workload.yaml").unlink()
    os.mkfifo(mine / "workload.yaml")
    with pytest.raises(WorkloadError, match="it is a FIFO"):
        load(mine)
