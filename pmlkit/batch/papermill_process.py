# SPDX-License-Identifier: Apache-2.0
"""Papermill as `pmlkit.batch.notebook` starts it: a process that ends with its caller.

Usage: ``python -m pmlkit.batch.papermill_process NOTEBOOK EXECUTED [OPTION...]``, with a pipe as
standard input.
"""

from __future__ import annotations

import os
import threading

from pmlkit.lazy import without

# What papermill imports and no notebook needs takes longer than all the rest. To check IRIs,
# jsonschema imports rfc3987_syntax, which builds a grammar. To read notebooks from S3 and HDFS,
# papermill imports boto3 and pyarrow.
with without("rfc3987_syntax", "boto3", "pyarrow"):
    from papermill.__main__ import papermill

STARTS = 3


def main() -> None:
    """Run papermill; start the kernel again if it dies before its first cell.

    jupyter_client looks for free ports and closes them; the kernel opens them a second later. In
    between, another program can take one, and the kernel dies.
    """
    threading.Thread(target=_end_with_caller, daemon=True).start()
    for start in range(1, STARTS + 1):
        try:
            papermill()
        except RuntimeError as error:
            if start == STARTS or "Kernel died before replying" not in str(error):
                raise


def _end_with_caller() -> None:
    # The caller holds the other end and never writes: end of file means that it has died.
    os.read(0, 1)
    os._exit(70)


if __name__ == "__main__":
    main()
