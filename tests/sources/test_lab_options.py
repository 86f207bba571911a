# SPDX-License-Identifier: Apache-2.0
import pytest

from pmlkit.errors import UsageError
from pmlkit.sources.lab.options import LabOptions, check


@pytest.mark.parametrize(
    ("options", "memory_mib", "words"),
    [
        (LabOptions(), 32, "no room for a guest of 32 MiB: 64 to 4096"),
        (LabOptions(), 8192, "no room for a guest of 8192 MiB"),
        (LabOptions(pml={"slots": 3}), 64, "a ring of 3 records"),
        (LabOptions(pml={"slots": 1}), 64, "a ring of 1 records"),
        (LabOptions(stock=True, harvest="guided"), 64, "a harvest needs the patched"),
        (LabOptions(stock=True, accessed=True), 64, "leave out --stock"),
        (LabOptions(mode="stock", pml={"flags": ("snapshots",)}), 64, "snapshots of page tables"),
        (LabOptions(harvest="both", pml={"flags": ()}), 64, "choose --page-tables mark"),
        (LabOptions(harvest="sampled", one_in=12), 64, "a power of two"),
        (LabOptions(harvest="sampled", harvest_every=2), 64, "in every round"),
    ],
)
def test_what_the_lab_cannot_do_is_refused_at_once(options, memory_mib, words):
    with pytest.raises(UsageError, match=words):
        check(options, memory_mib)


@pytest.mark.parametrize(
    "options",
    [
        LabOptions(),
        LabOptions(stock=True),
        LabOptions(harvest="both", pml={"slots": 1024, "flags": ("tables", "snapshots")}),
        LabOptions(stock=True, mode="pml"),
    ],
)
def test_what_it_can_do_is_not(options):
    check(options, 256)
