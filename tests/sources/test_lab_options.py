# SPDX-License-Identifier: Apache-2.0
import pytest

from pmlkit import cli
from pmlkit.cli import lab as commands
from pmlkit.errors import UsageError
from pmlkit.sources import lab
from pmlkit.sources.lab.session import LabOptions, check


@pytest.mark.parametrize(
    ("options", "memory_mib", "words"),
    [
        ({}, 32, "a guest with 32 MiB of memory: give it 64 MiB to 4 GiB"),
        ({}, 8192, "a guest with 8 GiB of memory"),
        ({"slots": 3}, 64, "a ring of 3 records"),
        ({"slots": 1}, 64, "a ring of 1 records"),
        ({"stock": True, "harvest": "guided"}, 64, "a harvest needs the patched"),
        ({"stock": True, "harvest": "accessed"}, 64, "leave out --stock"),
        ({"stock": True, "xen_preempt": True}, 64, "leave out --stock"),
        ({"xen": "4.20"}, 64, "--xen 4.20 is Debian's binary.*add --stock"),
        ({"stock": True, "xen": "4.3"}, 64, "Debian's Xen 4.3 is not known.*4.17 or 4.20"),
        ({"mode": "stock", "page_tables": "snapshot"}, 64, "snapshots of page tables"),
        ({"harvest": "both", "page_tables": "off"}, 64, "choose --page-tables mark"),
        ({"harvest": "sampled", "one_in": 12}, 64, "a power of two"),
        ({"harvest": "sampled", "harvest_every": 2}, 64, "in every round"),
    ],
)
def test_what_the_lab_cannot_do_is_refused_at_once(options, memory_mib, words):
    with pytest.raises(UsageError, match=words):
        check(LabOptions(**options), memory_mib)


@pytest.mark.parametrize(
    "options",
    [
        LabOptions(),
        LabOptions(stock=True),
        LabOptions(stock=True, xen="4.20"),
        LabOptions(harvest="both", slots=1024, page_tables="snapshot"),
        LabOptions(stock=True, mode="pml"),
    ],
)
def test_what_it_can_do_is_not(options):
    check(options, 256)


@pytest.mark.parametrize(("words", "most_bytes"), [((), 0), (("--most", "2G"), 2 << 30)])
def test_the_command_gives_the_lab_the_limit_of_its_spool(monkeypatch, tmp_path, words, most_bytes):
    given = []
    monkeypatch.setattr(lab, "run", lambda guest, out, options, say: given.append(options))
    monkeypatch.setattr(commands, "show_trace", lambda as_json, trace: None)
    assert cli.main(["lab", "run", "known", "-o", str(tmp_path / "x.trace"), *words]) == 0
    assert [options.most_bytes for options in given] == [most_bytes]
