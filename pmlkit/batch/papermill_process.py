# SPDX-License-Identifier: Apache-2.0
"""Papermill as `pmlkit.batch.notebook` starts it: a process that ends with its caller.

Usage: ``python -m pmlkit.batch.papermill_process NOTEBOOK EXECUTED FOLDER PARAMETERS``, with a pipe
as standard input. FOLDER is the kernel's working directory; PARAMETERS are JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading

from pmlkit.lazy import without

# What papermill imports and no notebook needs takes longer than all the rest. To check IRIs,
# jsonschema imports rfc3987_syntax, which builds a grammar. To read notebooks from S3 and HDFS,
# papermill imports boto3 and pyarrow.
with without("rfc3987_syntax", "boto3", "pyarrow"):
    from papermill.execute import execute_notebook

STARTS = 3
# The kernel reports a cell's end on two channels. By default, a notebook fails if the second report
# comes 4 s late, and if the kernel starts in more than 60 s: a busy machine takes longer. A kernel
# that dies is noticed without a limit.
PATIENCE_S = 3600


def main() -> None:
    """Run papermill; start the kernel again if it dies before its first cell.

    jupyter_client looks for free ports and closes them; the kernel opens them a second later. In
    between, another program can take one, and the kernel dies.
    """
    threading.Thread(target=_end_with_caller, daemon=True).start()
    notebook, executed, folder, parameters = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for start in range(1, STARTS + 1):
        try:
            execute_notebook(
                notebook,
                executed,
                json.loads(parameters),
                # A notebook without metadata names no language, and papermill would refuse it.
                kernel_name="python3",
                language="python",
                cwd=folder,
                progress_bar=False,
                start_timeout=PATIENCE_S,
                iopub_timeout=PATIENCE_S,
            )
            return
        except RuntimeError as error:
            if start == STARTS or "Kernel died before replying" not in str(error):
                raise


def _end_with_caller() -> None:
    # The caller holds the other end and never writes: end of file means that it has died.
    os.read(0, 1)
    os._exit(70)


if __name__ == "__main__":
    main()
