# SPDX-License-Identifier: Apache-2.0
"""The patch series as files: each version's hooks bring all of common/, and say the same."""

import os
import re
import subprocess
from pathlib import Path

import pytest

PATCHES = Path(__file__).resolve().parents[1] / "hypervisor-patches"
COMMON = PATCHES / "common"
VERSIONS = sorted(path.parent.name for path in PATCHES.glob("*/0001-*.patch"))
# What a version's hooks say in other words, as the code around them differs.
_SINCE_4_20 = (
    r"(vmx|ept)_vcpu_flush_pml_buffer|depends on (HVM|INTEL_VMX)|paging_log_dirty_enable\(d"
)
OTHER_WORDS = {
    "4.20": re.compile(_SINCE_4_20),
    # XSM has one list of its hooks there, the changelog a place for what is new, and tracked VRAM
    # has a structure for each kind of paging.
    "staging": re.compile(
        _SINCE_4_20
        + r"|_log_dirty_range\(d|xsm_pml_op|xsm_ops\.pml_op|flask_pml_op,$|XSM_HOOK\(int|dirty_vram"
        r"|int \(\*pml_op\)|^## Unreleased|^### Added|xperimental: logs of the pages|^- On x86:$"
        r"|Modification Logging of Intel processors \(xl"
    ),
}
# Hunks that stand below another function or entry in a version than in 4.17.
OTHER_PLACES = {
    "4.20": {"config HVM": "config INTEL_VMX"},
    "staging": {
        "config HVM": "config PV_LINEAR_PT",
        "vmx_fpu_leave": "vmx_load_vmcs_ctxt",
        "paging_log_dirty_range": "struct paging_mode {",
        "out:": "paging_mark_pfn_clean",
    },
}
LISTS = ("MAINTAINERS", "CHANGELOG.md", "tools/libs/uselibs.mk", "tools/xl/Makefile",
         "tools/tests/Makefile")  # fmt: skip
# Where a version's hooks of XSM are declared.
OTHER_FILES = {
    "staging": re.compile(r"xen/include/xsm/(hooks|xsm)\.h|xen/xsm/(dummy|flask/hooks)\.c")
}
NAMES = re.compile(r"\b(?:xen)?pml_\w+|\bXENPML_\w+|\bXEN_DOMCTL_pml\w*")


def hooks(version):
    return sorted((PATCHES / version).glob("*.patch"))


def added(version):
    """Return the lines that a version's hooks add."""
    lines = "".join(path.read_text() for path in hooks(version)).splitlines()
    return {line[1:].strip() for line in lines if line.startswith("+") and line[:3] != "+++"}


def places(version):
    """Return (patch, file, function or entry) of each hunk."""
    found, other = set(), {new: old for old, new in OTHER_PLACES.get(version, {}).items()}
    for path in hooks(version):
        file = None
        for line in path.read_text().splitlines():
            if line.startswith("--- a/"):
                file = line[6:]
            elif match := re.match(r"@@ -\S+ \+\S+ @@ ?(.*)", line):
                function = re.search(r"(\w+)\(", match[1])
                # In a list of files or of changes there is no such place.
                place = "" if file in LISTS else function[1] if function else match[1]
                found.add((path.name[:4], file, other.get(place, place)))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_each_patch_parses(version):
    for patch in hooks(version):
        if "\n--- a/" in patch.read_text():
            command = ["git", "apply", "--numstat", patch]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{version}/{patch.name}: {done.stderr}"


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "4.17"])
def test_a_port_hooks_in_at_the_same_places(version):
    assert [p.name for p in hooks(version)] == [p.name for p in hooks("4.17")]
    other = OTHER_FILES.get(version)
    differing = places(version) ^ places("4.17")
    assert sorted(hunk for hunk in differing if not (other and other.search(hunk[1]))) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_hooks_name_is_there(version):
    text = "".join(p.read_text(errors="replace") for p in COMMON.rglob("*") if p.is_file())
    lines = [line for path in hooks(version) for line in path.read_text().splitlines()]
    lines = [line[1:] for line in lines if line.startswith("+") and line[:3] != "+++"]
    named = set(NAMES.findall("\n".join(lines)))
    defined = set(NAMES.findall(text))
    # Fields and functions of existing files: a declaration and a use are two lines at least.
    twice = {name for name in named if sum(bool(re.search(rf"\b{name}\b", x)) for x in lines) > 1}
    assert sorted(named - defined - twice) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_each_entry_point_has_a_caller(version):
    header = (COMMON / "xen/arch/x86/include/asm/pml.h").read_text()
    entries = set(re.findall(r"^[a-z].*\b(pml_\w+)\(", header, re.M))
    hooked = set(NAMES.findall("\n".join(added(version))))
    inside = (COMMON / "xen/arch/x86").rglob("*.c")
    own = "".join(path.read_text() for path in inside)
    called = {name for name in entries if len(re.findall(rf"\b{name}\(", own)) > 1}
    assert entries and sorted(entries - hooked - called) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_each_new_file_comes_with_one_patch(version):
    brought = []
    for patch in hooks(version):
        head = patch.read_text().partition("\n---\n")[0]
        brought += re.findall(r"^Adds: (.+)$", head, re.M)
    files = [str(p.relative_to(COMMON)) for p in COMMON.rglob("*") if p.is_file()]
    assert sorted(brought) == sorted(files)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_option_comes_with_the_code(version):
    """The commits before it build: they call what is not there yet if the option is set only."""
    texts = {patch.name: patch.read_text() for patch in hooks(version)}
    option = [name for name, text in texts.items() if "\n+config PML\n" in text]
    code = [name for name, text in texts.items() if "\nAdds: xen/arch/x86/mm/pml/core.c\n" in text]
    assert option == code and len(code) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_no_hook_changes_a_file_of_ours(version):
    for patch in hooks(version):
        changed = re.findall(r"^--- a/(.+)$", patch.read_text(), re.M)
        assert not [name for name in changed if (COMMON / name).exists()]


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "4.17"])
def test_a_port_hooks_in_the_same(version):
    allowed = OTHER_WORDS.get(version)
    differing = added("4.17") ^ added(version)
    assert [line for line in sorted(differing) if not (allowed and allowed.search(line))] == []


def _constants():
    """Return the constants that the code defines as one number."""
    text = "".join(path.read_text() for path in COMMON.rglob("*.[ch]"))
    found = re.findall(r"^#define (\w+)\s+(\d+)U?\s", text, re.M)
    found += [("PAGES_PER_LEAF", str(4096 * 8))] * ("PAGES_PER_LEAF (PAGE_SIZE * 8)" in text)
    return {name: int(value) for name, value in found}


def test_the_bounds_of_loops_are_those_of_the_code():
    text = (PATCHES / "README.md").read_text().partition("## Bounded work")[2]
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\| `(\w+)` \|$", text, re.M)
    rows += re.findall(r"([\d,]+ (?:tables|loads)(?: at most)?)\s\(`(MAX_\w+)`\)", text)
    assert len(rows) == 12
    constants = _constants()
    for most, name in rows:
        if name != "BITS_OF_TABLE":
            assert f"{constants[name]:,} " in f"{most} ", name
    entries = 512 // constants["BITS_OF_TABLE"]
    assert f"1 GiB, {entries}: {entries * 512:,} regions" in text


def test_a_stranger_s_folder_is_refused_in_one_line(tmp_path):
    done = subprocess.run([PATCHES / "apply", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"apply: {tmp_path} is no source tree of Xen: it has no xen/Makefile\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["."], "builds: . is no source tree of Xen: it has no xen/Makefile"),
        ([".", "no-hvn"], "builds: no such configuration: no-hvn; try --help"),
    ],
)
def test_builds_refuses_in_one_line(tmp_path, words, why):
    command = [PATCHES / "tests" / "builds", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr == why + "\n"


def test_an_unknown_version_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "xen").mkdir()
    makefile = "export XEN_VERSION = 4\nexport XEN_SUBVERSION = 3\nexport XEN_EXTRAVERSION ?= .1\n"
    (tmp_path / "xen" / "Makefile").write_text(makefile)
    done = subprocess.run([PATCHES / "apply", tmp_path], capture_output=True, text=True)
    assert "no hooks for Xen 4.3.1" in done.stderr and "4.17" in done.stderr


@pytest.mark.skipif(not os.environ.get("PMLKIT_XEN_SOURCE"), reason="set PMLKIT_XEN_SOURCE=DIR")
def test_it_applies_to_the_tree_that_is_named():
    tree = os.environ["PMLKIT_XEN_SOURCE"]
    done = subprocess.run([PATCHES / "apply", "--check", tree], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
