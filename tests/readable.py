# SPDX-License-Identifier: Apache-2.0
"""What a notebook shows has units and short numbers, and nothing is cut."""

import re

from pmlkit.notebook.shown import NO_VALUE

# Elided or cut by pandas, no value, more than four decimals.
UNREADABLE = re.compile(r"\.\.\.|\u2026|\bNaN\b|\bnan\b|<NA>|\bNone\b|\d\.\d{5,}")
TAGS = re.compile(r"<[^>]*>")
PATHS = re.compile(r"\S*/\S*")


def texts(outputs):
    """Return what outputs of cells show as text, without addresses and paths."""
    for output in outputs:
        data = output.get("data", {})
        shown = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
        yield from (PATHS.sub("", TAGS.sub(" ", "".join(text))) for text in shown)


def assert_readable(outputs):
    """Assert that no text is cut, no number is long, and each missing value has its reason."""
    for text in texts(outputs):
        assert not UNREADABLE.search(text), text
        assert NO_VALUE not in text, text
