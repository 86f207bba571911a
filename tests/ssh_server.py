# SPDX-License-Identifier: Apache-2.0
"""An SSH server of the test's own: a loopback port, keys made for it, nothing of the machine's."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import REQUIRED
from ports import free_port
from waiting import HANG_S, until

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers {user}
SetEnv {variables}
"""
_CLIENT = """\
Host dom0
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking accept-new
"""


def _sshd():
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    missing = [tool for tool in ("ssh", "ssh-keygen") if not shutil.which(tool)]
    if found and not missing:
        return found
    reason = f"needs {', '.join(missing) or 'sshd'}: apt-get install openssh-server openssh-client"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def server(folder, variables):
    """Run a server; yields the SSH client's command that reaches it as host ``dom0``.

    Parameters
    ----------
    folder : Path
        For keys and configuration; made.
    variables : dict
        The environment of what runs over it.
    """
    sshd = _sshd()
    folder.mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the server locks itself in; it stays empty
    facts = {"folder": folder, "user": getpass.getuser(), "port": free_port()}
    told = " ".join(f'"{name}={value}"' for name, value in variables.items())
    (folder / "sshd_config").write_text(_CONFIG.format(**facts, variables=told))
    (folder / "ssh_config").write_text(_CLIENT.format(**facts))
    log = open(folder / "sshd.log", "wb")  # noqa: SIM115 (closed below)
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
    )
    try:
        _wait(process, facts["port"], folder / "sshd.log")
        yield f"ssh -F {shlex.quote(str(folder / 'ssh_config'))}"
    finally:
        process.terminate()
        process.wait(HANG_S)
        log.close()


def _wait(process, port, log):
    def answers():
        assert process.poll() is None, f"sshd did not start: {log.read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, "sshd does not answer")
