# SPDX-License-Identifier: Apache-2.0
import io
import json
import lzma
import subprocess
import sys
import tarfile
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from pmlkit.errors import GuestError, MissingTool
from pmlkit.sources.lab import boot as lab_boot
from pmlkit.sources.lab import disks as lab_disks
from pmlkit.sources.lab import image as lab_image
from pmlkit.sources.lab import parts as lab_parts
from pmlkit.sources.lab import qemu, session
from pmlkit.sources.lab import xen as lab_xen
from pmlkit.sources.lab.bochs import DISK_UNIT
from pmlkit.sources.lab.boot import JOB_UNITS, Lab
from pmlkit.sources.lab.guests import LabGuest
from pmlkit.sources.lab.session import LabOptions, describe, machine_mib


def test_modules_come_after_those_they_need(tmp_path):
    for name, needs in (("a", "b,c"), ("b", "c"), ("c", ""), ("d-e", "")):
        (tmp_path / f"{name}.ko").write_bytes(b"\0depends=" + needs.encode() + b"\0")
    ordered = lab_parts.module_closure(tmp_path, ["a", "d_e"])
    assert [path.stem for path in ordered] == ["c", "b", "a", "d-e"]


def test_compressed_modules_are_found_and_read(tmp_path):
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"\0depends=b\0"))
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"\0depends=\0"))
    ordered = lab_parts.module_closure(tmp_path, ["a"])
    assert [path.name for path in ordered] == ["b.ko.xz", "a.ko.xz"]
    assert lab_parts.module_bytes(ordered[0]) == b"\0depends=\0"


def test_a_missing_module_is_named(tmp_path):
    with pytest.raises(GuestError, match="no module xyz"):
        lab_parts.module_closure(tmp_path, ["xyz"])


def test_a_missing_tool_names_its_package():
    with pytest.raises(MissingTool, match="apt-get install frobnicator"):
        lab_parts.need("no-such-tool", "frobnicator")


def test_hooks_come_in_order_and_by_version():
    names = [path.name for path in lab_xen.hooks("4.17.7")]
    assert names[0].startswith("0001-public") and names == sorted(names)
    with pytest.raises(GuestError, match=r"no hooks for Xen 4.3.1"):
        lab_xen.hooks("4.3.1")


@pytest.mark.parametrize(
    ("options", "build"),
    [({}, "release"), ({"xen_debug": True}, "debug"), ({"xen_preempt": True}, "preempt")],
)
def test_a_lab_boots_the_build_that_is_asked_for(options, build, monkeypatch):
    asked = []
    monkeypatch.setattr(session, "assemble", lambda **how: asked.append(how["build"]))
    session.lab_for(session.LabOptions(**options), 64)
    assert asked == [build]


def test_without_a_series_a_clone_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_xen, "APPLY", tmp_path / "apply")
    with pytest.raises(GuestError, match="from a clone"):
        lab_xen.hooks()


def test_builds_of_one_source_have_names_of_their_own(tmp_path):
    (tmp_path / "more.patch").write_text("a patch\n")
    builds = (
        lab_xen.Debian(),
        lab_xen.Debian(series=False),
        lab_xen.Debian(config="CONFIG_PML=n\n"),
        lab_xen.Debian(patches=[tmp_path / "more.patch"]),
    )
    digests = [lab_xen.recipe_digest(build.identity()) for build in builds]
    assert len(set(digests)) == len(builds)


def _tree(folder, subversion=17, extra=".7", more=""):
    """Make a tree as small as possible that states a version."""
    (folder / "xen").mkdir(parents=True)
    text = f"export XEN_VERSION = 4\nexport XEN_SUBVERSION    = {subversion}\n"
    text += f"export XEN_EXTRAVERSION ?= {extra}$(XEN_VENDORVERSION)\n{more}"
    (folder / "xen" / "Makefile").write_text(text)
    return folder


def test_a_tree_says_its_version_and_is_named_by_its_files(tmp_path):
    tree = lab_xen.Tree(_tree(tmp_path / "xen"))
    assert (tree.version, tree.has_series) == ("4.17.7", False)
    first = lab_xen.recipe_digest(tree.identity())
    assert lab_xen.recipe_digest(tree.identity()) == first
    (tmp_path / "xen" / "xen" / "built.o").touch()  # what was built is not of the source
    assert lab_xen.recipe_digest(tree.identity()) == first
    (tmp_path / "xen" / "xen" / "new.c").touch()
    second = lab_xen.recipe_digest(tree.identity())
    assert second != first
    (tmp_path / "xen" / "xen" / "new.c").rename(tmp_path / "xen" / "new.c")
    assert lab_xen.recipe_digest(tree.identity()) != second


def test_a_folder_that_is_no_tree_is_refused(tmp_path):
    with pytest.raises(GuestError, match="not a source tree of Xen"):
        lab_xen.Tree(tmp_path)


def test_a_tree_without_hooks_is_refused_before_it_is_built(tmp_path):
    with pytest.raises(GuestError, match=r"no hooks for Xen 4.9.1") as caught:
        lab_xen.Tree(_tree(tmp_path / "xen", subversion=9, extra=".1")).identity()
    assert "4.17" in caught.value.hint


def test_a_checkout_is_copied_without_what_git_ignores(tmp_path):
    folder = _tree(tmp_path / "xen")
    (folder / "xen" / "arch" / "x86" / "mm" / "pml").mkdir(parents=True)
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "xen" / "noise.log").write_text("x")
    subprocess.run(["git", "init", "-q", folder], check=True)
    lab_xen.Tree(folder).unpack(tmp_path / "copy", lambda _: None)
    copied = sorted(str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*"))
    assert "xen/Makefile" in copied and "xen/noise.log" not in copied and ".git" not in copied


@pytest.mark.parametrize(("guest", "machine"), [(64, 1024), (256, 1024), (512, 1536), (4096, 6144)])
def test_the_machine_has_room_for_dom0_and_the_guest(guest, machine):
    assert machine_mib(guest) == machine


def test_holes_do_not_change_a_file(tmp_path):
    path = tmp_path / "memory.ram"
    data = bytes(3 << 20) + b"x" + bytes((1 << 20) - 1) + bytes(5 << 20) + b"y"
    path.write_bytes(data)
    lab_boot._make_sparse(path)
    assert path.read_bytes() == data
    assert path.stat().st_blocks * 512 < len(data)


def test_only_the_newest_states_are_kept(tmp_path):
    import os

    for age, name in enumerate("fedcba"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    lab_boot._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "d", "e", "f"]


def test_another_console_replaces_the_first_port_only():
    text = "com1: enabled=true, mode=file\ncom2: enabled=true\n"
    changed = lab_boot._with_console(text, "mode=term, dev=/dev/pts/1")
    assert changed == "com1: enabled=1, mode=term, dev=/dev/pts/1\ncom2: enabled=true\n"


@pytest.mark.parametrize(
    "line", ["(XEN) Panic on CPU 0:", "(XEN) Xen WARN at x.c:1", "(XEN) Assertion 'a' failed at b"]
)
def test_a_fault_of_xen_fails_the_run(line):
    lab_boot.check_faults("(XEN) Speculative mitigation: WARNING is no fault")
    with pytest.raises(GuestError):
        lab_boot.check_faults(f"LAB 1 dom0 is up\n{line}\n")


@pytest.fixture
def written(tmp_path):
    kernel = tmp_path / "guest.elf"
    kernel.write_bytes(b"\x7fELF")
    guest = LabGuest("g", kernel, cmdline='levels=3 x="y"', vcpus=2, mailbox=True)
    job = describe(guest, LabOptions(rounds=3, most_bytes=4096), 64, Lab(None, None, 1024, {}))
    lab_disks.write_disks(tmp_path, guest, job, "exit 0\n")
    return tmp_path


def test_the_job_s_disk_says_how_long_the_job_is(written):
    data = (written / "job.img").read_bytes()
    assert len(data) == JOB_UNITS * DISK_UNIT
    blocks = int(data[:64].split(b"\n")[0])
    with tarfile.open(fileobj=io.BytesIO(data[4096 : 4096 * (blocks + 1)])) as tar:
        names = tar.getnames()
        config = tar.extractfile("guest.cfg").read().decode()
        job = json.loads(tar.extractfile("job.json").read())
    assert {"kernel", "run", "pmlkit/spool.py", "pmlkit/xen/agent.py"} <= set(names)
    assert "vcpus=2\nmemory=64\n" in config
    assert 'extra="levels=3 x=\\"y\\""' in config
    assert (job["mode"], job["rounds"], job["lockstep"]) == ("pml", 3, True)
    assert job["most_bytes"] == 4096


def _said(folder):
    command = [sys.executable, "-v", "-c", "import agent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout, f"# code object from {folder}/agent.py\n" in done.stderr


def test_a_python_like_dom0_s_compiles_no_module_of_the_job(tmp_path):
    for name, data in lab_disks.with_caches({"agent.py": b"print('first')"}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert _said(tmp_path) == ("first\n", False)
    # What was compiled of another source is never run.
    (tmp_path / "agent.py").write_bytes(b"print('other')")
    assert _said(tmp_path) == ("other\n", True)


def test_each_module_of_the_job_is_there_compiled(written):
    with tarfile.open(fileobj=io.BytesIO((written / "job.img").read_bytes()[4096:])) as tar:
        names = set(tar.getnames())
    modules = {name for name in names if name.startswith("pmlkit/") and name.endswith(".py")}
    assert "pmlkit/xen/agent.py" in modules
    assert {cache_from_source(name) for name in modules} <= names


def test_an_empty_disk_gives_no_results(written, tmp_path):
    (tmp_path / "into").mkdir()
    lab_disks.take_results(written / "out.img", tmp_path / "into")
    assert not any((tmp_path / "into").iterdir())


def test_results_stay_in_their_folder(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("../../evil")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    (tmp_path / "out.img").write_bytes(stream.getvalue() + bytes(10_000))
    (tmp_path / "into").mkdir()
    lab_disks.take_results(tmp_path / "out.img", tmp_path / "into")
    assert [p.name for p in (tmp_path / "into").iterdir()] == ["evil"]


def test_qemu_s_libraries_come_by_the_names_that_programs_look_for(tmp_path):
    folder = tmp_path / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    for name in ("libz.so.1.2.13", "libgcc_s.so.1", "libc.so.6", "libxenctrl.so.4.17.0"):
        (folder / name).write_text(name)
    for name in ("libz.so.1", "libxenctrl.so.4.17"):
        (folder / name).symlink_to(f"{name}{'.2.13' if 'z' in name else '.0'}")
    found = {path.name: path.read_text() for path in qemu._libraries(tmp_path)}
    assert found == {"libz.so.1": "libz.so.1.2.13", "libgcc_s.so.1": "libgcc_s.so.1"}


def test_the_first_root_that_has_a_program_wins(tmp_path):
    for root in ("ours", "stock"):
        (tmp_path / root / "usr/sbin").mkdir(parents=True)
        (tmp_path / root / "usr/sbin/xl").write_text(root)
    roots = (tmp_path / "ours", tmp_path / "stock")
    assert lab_image._find(roots, ("usr/sbin",), "xl").read_text() == "ours"
    with pytest.raises(GuestError, match="contain no xenstored"):
        lab_image._find(roots, ("usr/sbin",), "xenstored")


def test_all_of_the_lab_s_files_are_there():
    for name in ("bochsrc.in", "grub.cfg.in", "bochs.patch", "dom0/init", "kit/kit.h"):
        assert (Path(lab_image.LAB) / name).is_file()


def test_a_tree_without_configure_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lab_xen, "check_tools", lambda: None)
    tree = _tree(tmp_path / "tree")
    (tree / "xen/arch/x86/mm/pml").mkdir(parents=True)
    with pytest.raises(GuestError, match="no configure.*autogen"):
        lab_xen.patched(source=tree)
