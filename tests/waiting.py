# SPDX-License-Identifier: Apache-2.0
"""Wait for events, and not for times: a busy machine takes as long as it takes."""

import time

HANG_S = 1500  # so that what hangs fails, before pytest ends the test after 1800 s


def until(condition, why="it never happened"):
    """Wait until a condition holds, and return what it returned."""
    end = time.monotonic() + HANG_S
    while not (held := condition()):
        assert time.monotonic() < end, why
        time.sleep(0.005)
    return held
