# SPDX-License-Identifier: Apache-2.0
"""C files become static programs; other programs are checked before a guest is booted."""

import shutil
import struct
import subprocess

import pytest
from needs import needs_gcc

from pmlkit.errors import MissingTool, WorkloadError
from pmlkit.sources.guest.programs import check_static, compile_static


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
    with pytest.raises(WorkloadError, match=r"cannot be run \(gcc reports: .*"):
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
        (elf(machine=183), "not a program for 64-bit x86"),
        (elf(kind=1), "not a program for 64-bit x86"),
    ],
    ids=["empty", "script", "cut", "arm", "object"],
)
def test_what_is_no_program_is_refused(tmp_path, data, why):
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(WorkloadError, match=why):
        check_static(tmp_path / "it")


@needs_gcc
@pytest.mark.parametrize("name", ["@args.c", "-wrapper.c", "-o.c"])
def test_a_name_is_never_an_option(tmp_path, name):
    (tmp_path / "args.c").write_text("-wrapper ./evil.sh x.c")
    evil = tmp_path / "evil.sh"
    evil.write_text('#!/bin/sh\ntouch pwned\nexec "$@"\n')
    evil.chmod(0o755)
    with pytest.raises(WorkloadError, match="would read its name as options"):
        compile_static(source(tmp_path, "int main(void) { return 0; }", name))
    assert not (tmp_path / "pwned").exists()


@needs_gcc
def test_a_name_with_spaces_and_quotes_is_fine(tmp_path):
    check_static(compile_static(source(tmp_path, "int main(void) { return 0; }", "a b'c.c")))


@needs_gcc
@pytest.mark.parametrize(
    "text",
    [
        '#include "{secret}"\nint main;',
        "#include <{secret}>\nint main;",
        '#include "../secret/file"\nint main;',
        '#include "link.h"\nint main;',
        '#define X "{secret}"\n#include X\nint main;',
        'asm(".incbin \\"{secret}\\"");\nint main(void) {{ return 0; }}',
        'asm(".include \\"{secret}\\"");\nint main(void) {{ return 0; }}',
        'asm(".incbin \\"../secret/file\\"");\nint main(void) {{ return 0; }}',
        'asm(".macro m p\\n.in\\\\p \\"{secret}\\"\\n.endm\\nm cbin");\nint main(void) {{}}',
    ],
)
@pytest.mark.parametrize("content", ["#define HARMLESS 1\n", "root:SECRET:1\n"])
def test_a_file_outside_of_the_folder_is_not_read(tmp_path, text, content):
    (tmp_path / "secret").mkdir()
    secret = tmp_path / "secret" / "file"
    secret.write_text(content)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.h").symlink_to(secret)
    with pytest.raises(WorkloadError, match="secret/file, which is outside") as caught:
        compile_static(source(folder, text.format(secret=secret)))
    assert "SECRET" not in str(caught.value)


@needs_gcc
def test_a_precompiled_header_is_not_trusted(tmp_path):
    source(tmp_path, "#define N 1\n", "n.h")
    evil = source(tmp_path, "#define N 2\n", "evil.h")
    subprocess.run(["gcc", "-O2", "-pthread", "-o", tmp_path / "n.h.gch", evil], check=True)
    program = compile_static(source(tmp_path, '#include "n.h"\nint main(void) { return N; }'))
    assert subprocess.run([program]).returncode == 1


@needs_gcc
def test_a_header_without_end_is_refused(tmp_path):
    with pytest.raises(WorkloadError, match="gcc"):
        compile_static(source(tmp_path, '#include "mine.c"\n'))


@needs_gcc
def test_other_languages_are_not_compiled(tmp_path):
    for name in ("x.s", "x.S", "x.specs", "x"):
        with pytest.raises(WorkloadError, match="it is not a C file"):
            compile_static(source(tmp_path, "INPUT(/etc/passwd)", name))
