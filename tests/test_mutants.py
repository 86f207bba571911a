# SPDX-License-Identifier: Apache-2.0
"""The mutants of mutants.py are changes that can be made: each old text stands in its file once."""

from mutants import MUTANTS, occurs


def test_each_mutant_has_its_place():
    assert len(MUTANTS) >= 60
    assert [f"{m.file}: {m.name}" for m in MUTANTS if occurs(m) != 1] == []
