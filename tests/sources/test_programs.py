# SPDX-License-Identifier: Apache-2.0
"""C files become static programs; other programs are checked before a guest is booted."""

import shutil
import struct
import subprocess

import pytest
from needs import needs_gcc

from pmlkit.errors import MissingTool, WorkloadError
from pmlkit.sources.programs import check_static, compile_static


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "cache"))


def source(tmp_path, text, name="mine.c"):
    path = tmp_path / name
    path.write_text(text)
    return path


@needs_gcc
def test_a_c_file_becomes_a_static_program_that_runs(tmp_path):
    text = '#include "pmlkit.h"\nint main(void) { pml_phase("x"); return 7; }'
    program = compile_static(source(tmp_path, text))
    check_static(program)
    assert subprocess.run([program]).returncode == 7


@needs_gcc
def test_it_is_compiled_once_for_each_version_of_it_and_its_headers(tmp_path):
    path = source(tmp_path, '#include "n.h"\nint main(void) { return N; }')
    header = source(tmp_path, "#define N 1\n", "n.h")
    first = compile_static(path)
    written = first.stat().st_mtime_ns
    assert compile_static(path) == first
    assert first.stat().st_mtime_ns == written
    header.write_text("#define N 2\n")
    assert compile_static(path) != first


@needs_gcc
def test_gccs_first_error_is_told(tmp_path):
    with pytest.raises(WorkloadError, match=r"mine\.c:1:.*error.*expected"):
        compile_static(source(tmp_path, "int main(void) { return 0 }"))


@needs_gcc
def test_a_missing_function_is_told(tmp_path):
    text = "int nowhere(void); int main(void) { return nowhere(); }"
    with pytest.raises(WorkloadError, match=r"cannot be run \(gcc says: .*"):
        compile_static(source(tmp_path, text))


@needs_gcc
def test_a_missing_source_is_told(tmp_path):
    with pytest.raises(WorkloadError, match=r"there is no .*gone/x\.c"):
        compile_static(tmp_path / "gone" / "x.c")


def test_without_gcc_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingTool, match="apt-get install gcc"):
        compile_static(source(tmp_path, "int main;"))


@needs_gcc
def test_a_dynamic_program_is_refused(tmp_path):
    path = source(tmp_path, "int main(void) { return 0; }")
    subprocess.run(["gcc", "-o", tmp_path / "dynamic", path], check=True)
    with pytest.raises(WorkloadError, match="linked dynamically.*gcc -static"):
        check_static(tmp_path / "dynamic")


def elf(machine=62, kind=2):
    head = bytearray(64)
    head[:5] = b"\x7fELF\x02"
    struct.pack_into("<HH", head, 16, kind, machine)
    return bytes(head)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither an executable nor a C file"),
        (b"#!/bin/sh\necho hello\n" * 9, "neither an executable nor a C file"),
        (b"\x7fELF", "neither an executable nor a C file"),
        (elf(machine=183), "no program for 64-bit x86"),
        (elf(kind=1), "no program for 64-bit x86"),
    ],
    ids=["empty", "script", "cut", "arm", "object"],
)
def test_what_is_no_program_is_refused(tmp_path, data, why):
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(WorkloadError, match=why):
        check_static(tmp_path / "it")
