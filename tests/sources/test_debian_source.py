# SPDX-License-Identifier: Apache-2.0
from pmlkit.sources.guest.debian import mirrors

DEB822 = """\
Types: deb
# a comment in between
URIs: http://one.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main
"""


def test_mirrors_of_both_formats_without_security_and_foreign_ones(tmp_path):
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(DEB822)
    (parts / "other.list").write_text("deb https://foreign.example/apt stable main\n")
    (tmp_path / "sources.list").write_text(
        "deb [arch=amd64] http://two.example/debian bookworm main contrib\n# deb http://no main\n"
    )
    assert mirrors(tmp_path) == ["http://two.example/debian", "http://one.example/debian"]


def test_no_sources_no_mirrors(tmp_path):
    assert mirrors(tmp_path) == []
