# SPDX-License-Identifier: Apache-2.0
"""Packages are fetched without touching the system, and kept for when there is no network."""

import os
import shutil
import subprocess
import time

import pytest
from needs import REQUIRED, needs_apt

from pmlkit.errors import GuestError, MissingTool
from pmlkit.sources.guest import debian

URIS = """\
'http://d/pool/libc6_2.36-9+deb12u10_amd64.deb' libc6_2.36-9+deb12u10_amd64.deb 2758 SHA256:00
'http://d/pool/zlib1g_1.2.13_amd64.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86 SHA256:11
"""


class FakeApt:
    """Stands for apt: answers from URIS, and can be cut off."""

    def __init__(self, folder):
        self.folder, self.calls, self.down, self.gone = folder, [], False, set()

    def __call__(self, command, cwd=None):
        self.calls.append(command)
        if command[0] == "dpkg-deb":
            folder = os.path.join(command[-1], "usr")
            os.makedirs(folder, exist_ok=True)
            open(os.path.join(folder, os.path.basename(command[2])), "w").close()
            return self.done()
        if "update" in command and not self.down:
            state = os.path.dirname(command[command.index("-c") + 1])  # beside apt.conf
            open(os.path.join(state, "state/lists/d_Packages"), "w").close()
        if self.down:
            return self.done(100, "W: a warning\nE: Could not connect to d\n")
        if "download" in command and "--print-uris" not in command:
            return self.download(command[command.index("--") + 1 :], cwd)
        return self.done(output=URIS if "--print-uris" in command else "")

    def download(self, wanted, cwd):
        if self.gone & set(wanted):
            self.gone.clear()
            return self.done(100, "E: 404 Not Found\n")
        for name in wanted:
            name, _, version = name.partition("=")
            version = version.replace(":", "%3a")
            open(os.path.join(cwd, f"{name}_{version}_amd64.deb"), "w").close()
        return self.done()

    @staticmethod
    def done(status=0, errors="", output=""):
        return subprocess.CompletedProcess([], status, output, errors)

    def verbs(self):
        words = ("update", "--print-uris", "download", "-x")
        return [next(w for w in words if w in command) for command in self.calls]


@pytest.fixture
def apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path))
    fake = FakeApt(tmp_path)
    monkeypatch.setattr(debian, "_run", fake)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return fake


def age(folder, pattern, seconds):
    for path in folder.glob(pattern):
        os.utime(path, (time.time() - seconds,) * 2)


def test_versions_come_with_their_epoch_and_files_lie_in_one_root(apt):
    steps = []
    fetched = debian.fetch(["libc6"], steps.append)
    assert fetched.versions == {"libc6": "2.36-9+deb12u10", "zlib1g": "1:1.2.13.dfsg-1"}
    assert len(list((fetched.root / "usr").iterdir())) == 2
    assert steps == [
        "fetching Debian's lists of packages",
        "fetching 2 Debian packages",
        "unpacking 2 Debian packages",
    ]


def test_a_second_call_asks_nobody(apt):
    first = debian.fetch(["libc6"])
    apt.calls.clear()
    assert debian.fetch(["libc6"]) == first
    assert apt.calls == []


def test_after_a_day_apt_is_asked_again_but_nothing_is_fetched_twice(apt, tmp_path):
    first = debian.fetch(["libc6"])
    apt.calls.clear()
    age(tmp_path, "debian/resolved/*", 90_000)
    age(tmp_path, "debian/state/updated", 90_000)
    assert debian.fetch(["libc6"]) == first
    assert apt.verbs() == ["update", "--print-uris"]


def test_after_a_day_without_network_the_old_ones_serve(apt, tmp_path):
    first = debian.fetch(["libc6"])
    age(tmp_path, "debian/resolved/*", 90_000)
    apt.down = True
    assert debian.fetch(["libc6"]) == first


def test_a_package_that_debian_has_replaced_is_asked_for_again(apt, tmp_path):
    debian.fetch(["other"], skip={"zlib1g"})
    age(tmp_path, "debian/state/updated", 3600)
    apt.gone = {"zlib1g=1:1.2.13.dfsg-1"}
    apt.calls.clear()
    assert set(debian.fetch(["libc6"]).versions) == {"libc6", "zlib1g"}
    assert apt.verbs().count("update") == 1


def test_a_damaged_note_is_made_anew(apt, tmp_path):
    first = debian.fetch(["libc6"])
    for note in (tmp_path / "debian" / "resolved").iterdir():
        note.write_text('{"root": "5')
    assert debian.fetch(["libc6"]) == first


def test_what_is_skipped_is_not_fetched(apt):
    assert set(debian.fetch(["libc6"], skip={"zlib1g"}).versions) == {"libc6"}


def test_another_release_has_lists_and_a_cache_of_its_own(apt, tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "mirrors", lambda: ["http://d/debian"])
    fetched = debian.fetch(["libc6"], release="trixie")
    assert tmp_path / "debian-trixie" in fetched.root.parents
    assert not (tmp_path / "debian").exists()
    sources = (tmp_path / "debian-trixie/release.list").read_text()
    assert sources.startswith("deb ") and sources.endswith("http://d/debian trixie main\n")
    config = (tmp_path / "debian-trixie/apt.conf").read_text()
    assert f'Dir::Etc::sourcelist "{tmp_path}/debian-trixie/release.list";' in config
    assert 'Dir::Etc::sourceparts "/dev/null";' in config


def test_without_network_and_cache_it_says_so(apt):
    apt.down = True
    with pytest.raises(debian.PackageError, match="Could not connect to d.*check the network"):
        debian.fetch(["libc6"])
    with pytest.raises(GuestError):
        debian.fetch(["libc6"])


def test_nothing_half_done_is_left(apt, tmp_path):
    apt.gone = {"zlib1g=1:1.2.13.dfsg-1"}
    with pytest.raises(debian.PackageError, match="libc6, zlib1g.*404"):
        debian.fetch(["libc6"])
    assert list((tmp_path / "debian" / "roots").iterdir()) == []
    assert list((tmp_path / "debian").glob("tmp*")) == []


@pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb"])
def test_a_missing_tool_is_named(apt, monkeypatch, tool):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else name)
    with pytest.raises(MissingTool, match=f"{tool} is not installed"):
        debian.fetch(["libc6"])


@pytest.fixture
def network():
    """Debian's archive, or a reason to skip; the user's cache keeps this quick."""
    try:
        debian.fetch(["busybox-static"], dependencies=False)
    except debian.PackageError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))


@needs_apt
def test_real_packages_come_with_their_dependencies_and_the_system_is_left_alone(network):
    status = os.stat("/var/lib/dpkg/status").st_mtime_ns
    fetched = debian.fetch(["xz-utils"])
    assert {"xz-utils", "liblzma5", "libc6"} <= set(fetched.versions)
    assert (fetched.root / "usr/bin/xz").is_file()
    assert os.stat("/var/lib/dpkg/status").st_mtime_ns == status


@needs_apt
def test_an_unknown_package_is_named(network):
    with pytest.raises(debian.PackageError, match="no-such-package.*Unable to locate") as caught:
        debian.fetch(["no-such-package"])
    assert caught.value.packages == ("no-such-package",)


@needs_apt
def test_the_current_kernel_is_found(network):
    package = debian.dependency("linux-image-cloud-amd64", r"linux-image-\d[\w.+-]*")
    assert package.endswith("-cloud-amd64")
    with pytest.raises(debian.PackageError, match="it does not depend on"):
        debian.dependency("linux-image-cloud-amd64", "no-such-thing")
