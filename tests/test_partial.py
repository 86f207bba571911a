# SPDX-License-Identifier: Apache-2.0
"""The folder that gets its name when it is complete clears nothing but what is its own."""

import pytest

from pmlkit.errors import OutputError
from pmlkit.partial import PartialFolder


def test_what_a_link_leads_to_is_not_cleared(tmp_path):
    """Its files are called as a killed writer's: only that it is a link tells them apart."""
    theirs = tmp_path / "theirs.trace"
    theirs.mkdir()
    (theirs / "trace.json").write_text("{}")
    (theirs / "rounds.parquet").write_text("rounds")
    (tmp_path / "x.trace.partial").symlink_to(theirs)
    with pytest.raises(OutputError):
        PartialFolder(tmp_path / "x.trace")
    assert (theirs / "rounds.parquet").read_text() == "rounds"
    assert (theirs / "trace.json").read_text() == "{}"


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    left = tmp_path / "x.trace.partial"
    left.mkdir()
    (left / "trace.json").write_text("{}")
    made = PartialFolder(tmp_path / "x.trace")
    assert list(made.path.iterdir()) == []
    made.commit()
    assert (tmp_path / "x.trace").is_dir()
