# SPDX-License-Identifier: Apache-2.0
"""The archive is what cpio reads, and depends on nothing but what was put into it."""

import io
import os
import shutil
import subprocess

import pytest

from pmlkit.sources.guest.cpio import Archive


def written(archive):
    stream = io.BytesIO()
    archive.write(stream)
    return stream.getvalue()


def members(data):
    """Read newc by its published layout: thirteen numbers of eight digits after the magic."""
    files, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return files
        files[name] = (mode, data[start : start + size])
        at = start + (size + 3) // 4 * 4


def test_files_links_and_folders_come_out_as_they_went_in():
    archive = Archive()
    archive.file("work/a", b"12345", 0o755)
    archive.link("work/b", "a")
    archive.folder("tmp", 0o1777)
    files = members(written(archive))
    assert files["work/a"] == (0o100755, b"12345")
    assert files["work/b"] == (0o120777, b"a")
    assert files["tmp"] == (0o041777, b"")
    assert files["work"] == (0o040755, b"")


def test_a_folder_comes_before_what_it_holds():
    archive = Archive()
    archive.file("x/y/z", b"")
    names = list(members(written(archive)))
    assert names.index("x") < names.index("x/y") < names.index("x/y/z")


def test_the_top_of_the_tree_is_merged_into_usr(tmp_path):
    for name in ("bin/ls", "usr/bin/awk", "lib64/ld.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    archive = Archive()
    archive.tree(tmp_path)
    files = members(written(archive))
    assert files["bin"] == (0o120777, b"usr/bin")
    assert files["lib64"] == (0o120777, b"usr/lib64")
    assert files["usr/bin/ls"][1] == b"bin/ls"
    assert files["usr/bin/awk"][1] == b"usr/bin/awk"
    assert files["usr/lib64/ld.so"][1] == b"lib64/ld.so"


def test_the_bytes_do_not_depend_on_order_times_or_owners(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, names in ((first, "abc"), (second, "cba")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
            os.utime(folder / name, (len(folder.name), 12345))
    archives = [Archive(), Archive()]
    for archive, folder in zip(archives, (first, second), strict=True):
        archive.tree(folder)
    assert written(archives[0]) == written(archives[1])


def test_a_later_file_replaces_an_earlier_one_but_a_link_no_folder():
    archive = Archive()
    archive.link("usr/bin/xz", "busybox")
    archive.file("bin/xz", b"the real one", 0o755)
    archive.file("etc/x/file", b"")
    archive.link("etc/x", "elsewhere")
    files = members(written(archive))
    assert files["usr/bin/xz"] == (0o100755, b"the real one")
    assert files["etc/x"][0] == 0o040755


def test_a_dropped_folder_goes_with_all_it_holds(tmp_path):
    (tmp_path / "doc" / "deep").mkdir(parents=True)
    (tmp_path / "doc" / "deep" / "file").write_text("x")
    (tmp_path / "kept").write_text("x")
    archive = Archive()
    archive.tree(tmp_path, "share", drop=lambda path: path == "share/doc")
    assert [p for p in archive.paths if p.startswith("share")] == ["share", "share/kept"]


@pytest.mark.skipif(not shutil.which("cpio"), reason="needs cpio")
def test_cpio_reads_it(tmp_path):
    archive = Archive()
    archive.file("etc/odd", b"123")
    archive.link("etc/link", "odd")
    subprocess.run(["cpio", "-idm", "--quiet"], input=written(archive), cwd=tmp_path, check=True)
    assert (tmp_path / "etc" / "odd").read_bytes() == b"123"
    assert os.readlink(tmp_path / "etc" / "link") == "odd"
    assert (tmp_path / "etc" / "odd").stat().st_mtime == 1704067200
