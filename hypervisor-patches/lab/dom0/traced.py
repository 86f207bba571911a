# SPDX-License-Identifier: GPL-2.0-only
"""Processes that are stopped at their calls of Xen, for the lab's tests of collectors."""

import ctypes
import os
import signal

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_TRACEME, _GETREGS, _DETACH, _SYSCALL = 0, 12, 17, 24
_REGISTERS, _ORIG_RAX, _IOCTL = 27, 15, 16


def fork(work):
    """Do `work` in a child process, which exits with 0 on success; return its id."""
    pid, status = os.fork(), 1
    if pid:
        return pid
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def start(work):
    """Do `work` in a process that can be stopped at its calls; it has made none yet."""

    def traced():
        LIBC.ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()

    pid = fork(traced)
    os.waitpid(pid, 0)
    return pid


def run_to(pid, stop):
    """Let the process run to ioctl number `stop`, or to its end; return the number of ioctls.

    Each ioctl counts twice, as it begins and as it is over.
    """
    registers, seen = (ctypes.c_ulong * _REGISTERS)(), 0
    while seen < stop:
        LIBC.ptrace(_SYSCALL, pid, None, None)
        if not os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            break
        LIBC.ptrace(_GETREGS, pid, None, ctypes.addressof(registers))
        seen += registers[_ORIG_RAX] == _IOCTL
    return seen


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def let_go(pid):
    """Let the process run to its end; return its wait status."""
    LIBC.ptrace(_DETACH, pid, None, None)
    return os.waitpid(pid, 0)[1]
