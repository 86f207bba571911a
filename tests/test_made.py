# SPDX-License-Identifier: Apache-2.0
"""What stands beside the tables of an experiment."""

import json
from datetime import datetime

from experiments import made


def test_command_versions_and_time_are_noted(tmp_path):
    path = tmp_path / "made.json"
    made.note(path, "python -m x", {"xen": "4.17"}, "2026-01-02T03:04:05+00:00")
    assert json.loads(path.read_text()) == {
        "created": "2026-01-02T03:04:05+00:00",
        "provenance": {"command": "python -m x", "versions": {"xen": "4.17"}},
    }
    made.note(path, "python -m x", {})
    assert datetime.fromisoformat(json.loads(path.read_text())["created"]).tzinfo
