# SPDX-License-Identifier: Apache-2.0
"""``python -m pmlkit`` and the console script: the command `pmlkit`.

The handlers of signals are set before the slow imports. Ctrl-C is silent until `pmlkit.cli.main`
sets its own handlers.
"""

import os
import signal
import sys


def _leave(number: int, _: object) -> None:
    os._exit(128 + number)


def _open_closed_streams() -> None:
    """Replace closed standard streams by the null device.

    Otherwise the next file that is opened takes a stream's number, and gets what is printed.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def main() -> int:
    """Run the command line of this process; return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    _open_closed_streams()
    from pmlkit.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
