# SPDX-License-Identifier: Apache-2.0
"""Runs on the KVM lab's host: an SSH server at the serial port, for one connection after another.

`lab_ssh` is at the other end of the line. A byte CALL announces a connection; then the line is the
connection's, and FREE says that it is over. The host ends when a file ``/tmp/done`` exists.
"""

import os
import select
import socket
import subprocess
import termios
import time
import tty

CALL, FREE = b"\x05", b"\nthe line is free\n"
SERVER = ["/job/ssh/dropbear", "-F", "-E", "-R", "-p", "127.0.0.1:22"]
ACCOUNT = "root:x:0:0:root:/root:/bin/sh\n"
BLOCK = 512


def join(line, connection):
    """Copy both ways until the connection's other end leaves; never wait for one side only."""
    ends = {line: b"", connection: b""}  # what waits to be written to each
    other = {line: connection, connection: line}
    while True:
        sources = [end for end in ends if not ends[other[end]]]
        ready, writable, _ = select.select(sources, [end for end in ends if ends[end]], [])
        for end in ready:
            ends[other[end]] = data = os.read(end, BLOCK)
            if not data:
                return
        for end in writable:
            ends[end] = ends[end][os.write(end, ends[end]) :]


def account():
    """Make root's account, whom the job's key lets in."""
    os.makedirs("/etc/dropbear", exist_ok=True)
    os.makedirs("/root/.ssh", mode=0o700, exist_ok=True)
    with open("/etc/passwd", "w") as file:
        file.write(ACCOUNT)
    with open("/job/key.pub", "rb") as key, open("/root/.ssh/authorized_keys", "wb") as file:
        file.write(key.read())


def opened():
    """Return the serial port as a line of bytes, at its highest rate."""
    line = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    state = termios.tcgetattr(line)
    state[4] = state[5] = termios.B115200
    termios.tcsetattr(line, termios.TCSANOW, state)
    return line


def connected():
    """Return a connection to the server, as soon as it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", 22))
        except ConnectionRefusedError:
            time.sleep(0.05)


def main():
    account()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    environment, line = {**os.environ, "LD_LIBRARY_PATH": "/job/ssh"}, opened()
    with open("/out/ssh.txt", "wb") as log:
        server = subprocess.Popen(SERVER, stderr=log, env=environment)
    while not os.path.exists("/tmp/done"):
        os.write(line, FREE)
        while os.read(line, 1) != CALL:
            pass
        with connected() as connection:
            join(line, connection.fileno())
        termios.tcdrain(line)
    server.terminate()


if __name__ == "__main__":
    main()
