# SPDX-License-Identifier: Apache-2.0
"""A disk that is full after some bytes."""

import errno
import io
import os


class FullDisk:
    """A raw file on a disk that takes `room` bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = self.file.write(data[: self.room])
        self.room -= count
        return count

    def __getattr__(self, name):
        return getattr(self.file, name)


def fill_at(monkeypatch, start):
    """Let the disk be full while `pmlkit.files` writes the file whose name begins with `start`."""

    def on_full_disk(path, mode):
        room = 100 if path.name.startswith(start) else 1 << 30
        return io.BufferedWriter(FullDisk(open(path, mode, buffering=0), room))

    monkeypatch.setattr("pmlkit.files.open", on_full_disk, raising=False)
