# SPDX-License-Identifier: Apache-2.0
"""A port for a server of a test's own."""

import random
import socket

OURS = range(20_000, 32_000)  # Linux gives these to nobody who does not ask for one by its number


def free_port():
    """Return a port of the loopback that nobody has, and nobody gets before the server starts."""
    for port in random.Random().sample(OURS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
