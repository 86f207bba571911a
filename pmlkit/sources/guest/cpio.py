# SPDX-License-Identifier: Apache-2.0
"""A root file system as a cpio archive (newc), the form that the Linux kernel unpacks at boot."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from pmlkit.types import PathLike


_MTIME = 1704067200  # 2024-01-01, for every file, so that the archive depends on its contents only
# Debian ships /bin/x and /usr/lib/y and expects a merged /usr, where the first four are links.
_MERGED = ("bin", "sbin", "lib", "lib64")


class Archive:
    """Files of a root file system by path; a later file replaces an earlier one.

    Paths are relative to the root. Everything belongs to root.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, str | bytes | Path]] = {}
        for name in _MERGED:
            self._entries[name] = (stat.S_IFLNK | 0o777, f"usr/{name}")
            self._entries[f"usr/{name}"] = (stat.S_IFDIR | 0o755, b"")

    def folder(self, path: PathLike, mode: int = 0o755) -> None:
        """Add a folder."""
        self._add(path, stat.S_IFDIR | mode, b"")

    def file(self, path: PathLike, data: Path | bytes, mode: int = 0o644) -> None:
        """Add a file with these bytes, or with the bytes of a Path when the archive is written."""
        self._add(path, stat.S_IFREG | mode, data)

    def link(self, path: PathLike, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target)

    def tree(
        self, source: Path, to: str = "", drop: Callable[[str], bool] = lambda path: False
    ) -> None:
        """Add a folder's contents at `to`, without the archive paths that `drop` rejects."""
        for folder, folders, files in os.walk(source):
            here = PurePosixPath(to) / PurePosixPath(Path(folder).relative_to(source).as_posix())
            for name in sorted(folders + files):
                path = _merged(str(here / name))
                if not drop(path):
                    self.copy(Path(folder, name), path)
            folders[:] = [n for n in folders if not drop(_merged(str(here / n)))]

    def copy(self, source: Path, path: PathLike) -> None:
        """Add a file, link or empty folder of this machine, and make it readable for all."""
        mode = source.lstat().st_mode
        if stat.S_ISLNK(mode):
            self.link(path, os.readlink(source))
        elif stat.S_ISDIR(mode):
            self.folder(path)
        else:
            self.file(path, source, 0o755 if mode & 0o100 else 0o644)

    def _add(self, path: PathLike, mode: int, content: str | bytes | Path) -> None:
        path = _merged(path)
        # Packages agree on folders. A link in place of a folder would orphan the folder's contents,
        # and a folder in place of the link /lib would hide /usr/lib.
        if path in self._entries and any(map(stat.S_ISDIR, (mode, self._entries[path][0]))):
            return
        for parent in PurePosixPath(path).parents[:-1]:
            self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))
        self._entries[path] = (mode, content)

    @property
    def paths(self) -> list[str]:
        """All paths, sorted: a folder before its contents."""
        return sorted(self._entries)

    def size(self) -> int:
        """Return the size of all files, bytes: the guest memory that the unpacked archive takes."""
        contents = [content for _, content in self._entries.values()]
        return sum(c.stat().st_size if isinstance(c, Path) else len(c) for c in contents)

    def write(self, stream: BinaryIO) -> None:
        """Write the archive to a binary stream."""
        for number, path in enumerate(self.paths, start=1):
            mode, content = self._entries[path]
            _member(stream, number, path, mode, _bytes(content))
        _member(stream, 0, "TRAILER!!!", 0, b"")


def _merged(path: PathLike) -> str:
    path = str(path).strip("/")
    first, _, rest = path.partition("/")
    return f"usr/{path}" if rest and first in _MERGED else path


def _bytes(content: str | bytes | Path) -> bytes:
    if isinstance(content, Path):
        return content.read_bytes()
    return os.fsencode(content) if isinstance(content, str) else content


def _member(stream: BinaryIO, number: int, path: PathLike, mode: int, data: bytes) -> None:
    """Write a header of fourteen hexadecimal fields, the name, the data, each padded to 4."""
    name = os.fsencode(path) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, _MTIME, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields)
    stream.write(head + name + bytes(-(len(head) + len(name)) % 4))
    stream.write(data)
    stream.write(bytes(-len(data) % 4))
