# SPDX-License-Identifier: Apache-2.0
"""What a command that a test has started says, however long a busy machine takes."""

import re

# As `pmlkit.progress.Log` prints each ten seconds: they end with a time.
_PROGRESS = re.compile(r"^(?!pmlkit: ).*: .*\d:\d\d( left)?\n", re.M)


def said(errors):
    """Return the text of standard error without the lines of progress."""
    return _PROGRESS.sub("", errors)
