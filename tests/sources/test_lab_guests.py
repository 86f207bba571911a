# SPDX-License-Identifier: Apache-2.0
import pytest
from needs import needs_gcc

from pmlkit.errors import UsageError, WorkloadError
from pmlkit.sources.lab import guests as lab_guests

NAMES = sorted(lab_guests.shipped())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLKIT_CACHE", str(tmp_path / "cache"))


@needs_gcc
@pytest.mark.parametrize("name", NAMES)
def test_every_guest_compiles_to_a_pvh_elf(name):
    guest = lab_guests.load(name)
    assert lab_guests.has_pvh_note(guest.kernel)
    assert guest.mailbox and guest.regions and guest.summary


@needs_gcc
def test_a_guest_is_compiled_once():
    first = lab_guests.load("known").kernel
    before = first.stat().st_mtime_ns
    assert lab_guests.load("known").kernel == first
    assert first.stat().st_mtime_ns == before


@needs_gcc
def test_settings_reach_the_command_line():
    assert lab_guests.load("reads", {"levels": "4"}).cmdline == "levels=4"


def test_what_is_known_of_a_region():
    region = {"name": "r", "gfn": 1, "pages": 9}
    assert lab_guests.known_of(region | {"kind": "written"}) == {"written": 9}
    assert lab_guests.known_of(region | {"kind": "table"}) == lab_guests.known_of(region) == {}
    known = {"touched": 5, "written": 2}
    assert lab_guests.known_of(region | {"known": known}) == known


@needs_gcc
def test_a_program_of_the_kit_is_told_by_what_it_says(tmp_path):
    built = lab_guests.load("known").kernel
    assert lab_guests.load(built).mailbox
    other = tmp_path / "other.elf"
    other.write_bytes(built.read_bytes().replace(b"KIT ready", b"not ready"))
    assert not lab_guests.load(other).mailbox


def test_an_unknown_option_is_named():
    with pytest.raises(UsageError, match="known has no option levels"):
        lab_guests.load("known", {"levels": "4"})


@needs_gcc
def test_a_user_s_own_c_file(tmp_path):
    source = tmp_path / "mine.c"
    source.write_text('#include "kit.h"\nvoid guest_setup(void){}\n')
    with pytest.raises(WorkloadError, match="guest_round"):
        lab_guests.load(source)
    source.write_text(source.read_text() + "void guest_round(unsigned n, unsigned v){}\n")
    assert lab_guests.has_pvh_note(lab_guests.load(source).kernel)


def test_what_is_none_is_refused_with_the_names():
    with pytest.raises(WorkloadError, match="known"):
        lab_guests.load("no-such-guest")


def test_a_workload_with_a_disk_is_refused():
    with pytest.raises(WorkloadError, match="needs a disk.*pmlkit record"):
        lab_guests.load("pagecache")


def test_an_elf_without_the_note_is_no_guest(tmp_path):
    elf = tmp_path / "x"
    elf.write_bytes(b"\x7fELF" + bytes(100))
    assert not lab_guests.has_pvh_note(elf)
