# SPDX-License-Identifier: Apache-2.0
"""Files that a test writes again and again."""


def rewrite(path, data):
    """Write a file in place of an earlier one, a new file: ext4 flushes one that was truncated."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
