# SPDX-License-Identifier: Apache-2.0
"""What a guest can do without: its image is unpacked by an emulated processor, in its memory."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pmlkit.types import PathLike


# Dependencies that only a package's installation uses: nothing is installed in the guest.
NOT_INSTALLED = frozenset(
    [
        "adduser",
        "apt",
        "base-files",
        "debconf",
        "debianutils",
        "dpkg",
        "gpgv",
        "init-system-helpers",
        "install-info",
        "libaudit-common",
        "libaudit1",
        "libcap-ng0",
        "libdb5.3",
        "libfile-find-rule-perl",
        "libgdbm-compat4",
        "libgdbm6",
        "libnumber-compare-perl",
        "libpam-modules",
        "libpam-modules-bin",
        "libpam-runtime",
        "libpam0g",
        "libperl5.36",
        "libsemanage-common",
        "libsemanage2",
        "libsepol2",
        "libtext-glob-perl",
        "lsb-base",
        "mailcap",
        "media-types",
        "netbase",
        "passwd",
        "perl",
        "perl-base",
        "perl-modules-5.36",
        "readline-common",
        "sysvinit-utils",
        "tar",
        "tzdata",
        "usrmerge",
    ]
)
_PATTERNS = (
    *(
        f"usr/share/{name}"
        for name in (
            "applications",
            "bash-completion",
            "bug",
            "debhelper",
            "doc",
            "doc-base",
            "gdb",
            "info",
            "lintian",
            "locale",
            "man",
            "menu",
            "pixmaps",
            "zsh",
        )
    ),
    *(f"usr/lib/{name}" for name in ("init", "systemd", "sysusers.d", "tmpfiles.d")),
    *(f"usr/lib/x86_64-linux-gnu/{name}" for name in ("audit", "gconv")),
    *(f"etc/{name}" for name in ("alternatives", "apt", "cron.*", "init.d", "logrotate.d")),
    *("*/__pycache__", "usr/bin/perl*", "usr/sbin/iconvconfig", "var/*"),
)


class Drop:
    """Say of a path in a package whether the guest can do without it.

    Parameters
    ----------
    patterns : sequence of str
        More patterns than those that hold for all; ``*`` stands for slashes, too, and a folder
        goes with all that it holds.
    """

    def __init__(self, patterns: Iterable[Any] = ()) -> None:
        self.patterns = (*_PATTERNS, *patterns)

    def __call__(self, path: PathLike) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.patterns)
