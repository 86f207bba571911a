# SPDX-License-Identifier: Apache-2.0
"""A real SSH client reaches the KVM lab's host, which has no network: over its serial port.

Debian's dropbear serves at the emulated port (`kvm_line`). Here, a local port is joined to it.
"""

import os
import select
import shlex
import socket
import subprocess
import threading
import tty
from contextlib import contextmanager
from pathlib import Path

from kvm_line import CALL, FREE, join

from pmlkit.sources.guest import debian
from pmlkit.sources.lab.bochs import Machine

_PACKAGES = ("dropbear-bin", "libcrypt1", "libgmp10", "libtomcrypt1", "libtommath1")
_LIBRARIES = ("libcrypt.so.1", "libgmp.so.10", "libtomcrypt.so.1", "libtommath.so.1")
_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_CONFIG = """\
Host lab
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking accept-new
  HostKeyAlgorithms ssh-ed25519
  LogLevel ERROR
"""
# The emulator may take any time: the connection is not given up.
_PATIENT = "-o ServerAliveInterval=0"


def server_files(folder):
    """Make a key, and return what the host's server needs, by its names in the job's folder."""
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / "key")]
    subprocess.run(key, check=True)
    root = debian.fetch(_PACKAGES, dependencies=False).root
    found = {f"ssh/{name}": _library(root, name) for name in _LIBRARIES}
    return {
        "ssh/dropbear": (root / "usr/sbin/dropbear").read_bytes(),
        "key.pub": (folder / "key.pub").read_bytes(),
        "kvm_line.py": Path(__file__).with_name("kvm_line.py").read_bytes(),
        **found,
    }


def _library(root, name):
    return next(p for f in _FOLDERS if (p := root / f / name).exists()).read_bytes()


@contextmanager
def reached(lab, snapshot, folder, limits, keys):
    """Boot the host; yields the machine, and the client's command that reaches it as ``lab``.

    Parameters
    ----------
    keys : Path
        The folder with the key.
    """
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    console = f"mode=term, dev={os.ttyname(theirs)}"
    lab.prepare(folder, console)
    bochs = snapshot.restored(lab.bochs, folder, console)
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = keys / "ssh_config"
        config.write_text(_CONFIG.format(port=server.getsockname()[1], folder=keys))
        with Machine(bochs, folder, limits) as machine:
            line = Line(ours, server)
            threading.Thread(target=line.serve, daemon=True).start()
            yield machine, f"ssh -F {shlex.quote(str(config))} {_PATIENT}"
    os.close(theirs)


class Line:
    """The serial line, and the port whose connections have it, one after another.

    Attributes
    ----------
    said : bytes
        What came between connections: the host's console.
    """

    def __init__(self, line, server):
        self._line, self._server, self.said = line, server, b""
        os.set_blocking(line, False)

    def serve(self):
        try:
            while True:
                self._await_free()
                client, _ = self._server.accept()
                with client:
                    os.write(self._line, CALL)
                    join(self._line, client.fileno())
        except OSError:
            return  # the machine has ended

    def _await_free(self):
        last = b""
        while not last.endswith(FREE):
            select.select([self._line], [], [])
            byte = os.read(self._line, 1)
            last, self.said = (last + byte)[-len(FREE) :], self.said + byte
