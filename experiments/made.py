# SPDX-License-Identifier: Apache-2.0
"""The provenance of an experiment's tables, in a file next to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pmlkit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pmlkit.types import Json


__all__ = ["note", "versions"]


def versions(traces: Iterable[Path]) -> Json:
    """Return the versions of the software in the guests of recordings: all of them together."""
    found: Json = {}
    for trace in traces:
        found |= pmlkit.open(trace).meta.provenance["versions"]
    return found


def note(path: Path, command: str, versions: object, created: str | None = None) -> None:
    """Write the command and the versions of the software, as JSON.

    Parameters
    ----------
    created : str, optional
        When it was measured, in ISO 8601; default: now.
    """
    made = {
        "created": created or datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": {"command": command, "versions": versions},
    }
    path.write_text(json.dumps(made, indent=1) + "\n")
