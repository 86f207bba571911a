# SPDX-License-Identifier: Apache-2.0
"""One list of dependencies in three files, no strays at the top, licences where they belong."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest
import tree
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tree import ROOT, TOP_LEVEL, tracked

NAMED_BY_THE_ISSUE = {
    "jupyterlab", "pandas", "numpy", "matplotlib", "scikit-learn", "cffi", "papermill",
}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What conda calls by another name than pip.
CONDA_NAMES = {}


def declared(extra=None):
    """Return {name: lowest version} of pyproject.toml's dependencies, or of one extra."""
    project = PROJECT["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return dict(re.match(r"([\w.-]+)>=([\w.]+)(?:$|;)", text).groups() for text in texts)


def everything():
    return declared() | declared("dev")


def conda():
    """Return {name: lowest version} of environment.yml, and what its pip part installs."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    names = [item for item in listed if isinstance(item, str) and item != "pip"]
    return dict(re.fullmatch(r"([\w.-]+) >=([\w.]+)", text).groups() for text in names), pip


def pins():
    """Return the lines of requirements.lock as requirements, with their markers."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]


def locked(python=None):
    """Return {name: version} of requirements.lock; of what one Python takes, if it is named."""
    wanted = [pin for pin in pins() if python is None or applies(pin, python)]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in wanted}


def applies(requirement, python):
    """Return whether one of Linux's Pythons takes a requirement, going by its marker."""
    here = {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(here)


def number(version):
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_the_dependencies_that_the_project_promises_are_declared():
    assert declared().keys() >= NAMED_BY_THE_ISSUE


def test_conda_describes_the_same_dependencies_with_the_same_bounds():
    names, pip = conda()
    assert names.pop("python") == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert {CONDA_NAMES.get(name, name): low for name, low in names.items()} == everything()
    assert pip == ["-e ."], "all else has to come from conda"


def test_the_lock_pins_every_dependency_within_its_bound():
    versions = locked()
    for name, low in everything().items():
        assert name in versions, f"{name} is not in requirements.lock: run `make lock`"
        assert number(versions[name]) >= number(low), f"{name} {versions[name]} is older than {low}"


def test_the_lock_has_the_build_tool_so_that_installing_needs_no_isolation():
    (build,) = PROJECT["build-system"]["requires"]
    name, low = build.split(">=")
    assert number(locked()[name]) >= number(low)


def test_every_pin_of_the_lock_installs_on_the_python_of_debian_12():
    installed = {d.name.lower().replace("_", "-"): d for d in metadata.distributions()}
    told = 0
    for name, version in locked().items():
        there = installed.get(name)
        if there and there.version == version:
            wanted = there.metadata.get("Requires-Python") or ""
            assert SpecifierSet(wanted).contains("3.11.2"), f"{name} needs Python {wanted}"
            told += 1
    assert told > 50, "this environment was not made from the lock"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_has_all_that_its_packages_need_on_each_python(python):
    there = locked(python)
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.name)
        if there.get(name) != distribution.version:
            continue
        for text in distribution.requires or ():
            wanted = Requirement(text)
            if applies(wanted, python):
                version = there.get(canonicalize_name(wanted.name))
                assert version, f"{name} needs {text}: run `make lock`"
                assert wanted.specifier.contains(version, prereleases=True), f"{name} needs {text}"


def test_every_pin_of_the_lock_has_hashes():
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(locked())
    bare = [block.split()[0] for block in blocks if "--hash=sha256:" not in block]
    assert bare == []


def test_the_lock_names_no_place_to_download_from():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert not re.search(r"://|--(index|extra-index|find-links|trusted)|file:/|(^|\s)/", line)


def test_the_version_is_said_once():
    import pmlkit

    assert (
        getattr(pmlkit, "__version__", PROJECT["project"]["version"])
        == (PROJECT["project"]["version"])
    )


def test_the_top_level_is_what_the_architecture_says():
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} == TOP_LEVEL


def test_what_a_user_keeps_in_the_clone_is_not_looked_at(tmp_path, monkeypatch):
    for name in ("own.py", "pmlkit/own.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    assert tracked("*.py") == [tmp_path / "pmlkit/own.py"], "no clone: what has the right place"
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "pmlkit/ours.py").touch()
    subprocess.run(["git", "add", "pmlkit/ours.py"], cwd=tmp_path, check=True)
    (tmp_path / "link").symlink_to("/nowhere")
    assert tracked("*.py") == tracked() == [tmp_path / "pmlkit/ours.py"]


def test_a_wheel_holds_every_file_of_the_package_and_the_command(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        inside = set(wheel.namelist())
        scripts = wheel.read(next(name for name in inside if name.endswith("entry_points.txt")))
    assert {
        str(path.relative_to(ROOT)) for path in tracked() if path.is_relative_to(ROOT / "pmlkit")
    } <= inside
    assert b"pmlkit = pmlkit.__main__:main" in scripts


def is_source(path):
    if path.suffix in {".py", ".c", ".h", ".sh", ".tex", ".toml", ".yaml", ".yml"}:
        return True
    return path.name == "Makefile" or (not path.suffix and path.read_bytes()[:2] == b"#!")


def test_every_source_file_says_its_licence():
    sources = [path for path in tracked() if is_source(path)]
    assert len(sources) > 300
    for path in sources:
        head = path.read_text()[:600]
        if path.is_relative_to(ROOT / "hypervisor-patches" / "common"):
            # As in Xen: its libraries are LGPL-2.1, its public headers MIT, all else GPL-2.0,
            # and its makefiles say nothing.
            licences = r"Identifier: (GPL-2\.0-only|MIT)|GNU Lesser General"
            assert re.search(licences, head) or path.name.startswith("Makefile"), path
            continue
        patches = path.is_relative_to(ROOT / "hypervisor-patches")
        wanted = "GPL-2.0" if patches else "Apache-2.0"
        assert f"SPDX-License-Identifier: {wanted}" in head[:300], path


def test_the_licences_are_whole_and_each_says_where_it_holds():
    apache = (ROOT / "LICENSE").read_text()
    assert apache.startswith("pmlkit: licences")
    assert "hypervisor-patches" in apache.split("Apache License\n")[0]
    assert "END OF TERMS AND CONDITIONS" in apache
    gpl = (ROOT / "hypervisor-patches" / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in gpl
    assert "Version 2, June 1991" in gpl
    assert "END OF TERMS AND CONDITIONS" in gpl


def test_the_readme_names_two_set_up_commands_that_the_makefile_has():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    setup = readme.split("## Set up")[1].split("## ")[0]
    assert re.findall(r"^    make (\w+)", setup, re.MULTILINE) == ["demo", "test"]
    for target in ("demo", "test", "lint", "bench", "lock"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_citation_says_what_tools_that_read_it_need():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)
    assert cited["license"] == PROJECT["project"]["license"]
    assert cited["title"].startswith(PROJECT["project"]["name"])


def test_make_lint_and_pre_commit_have_one_list_of_checks_that_downloads_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    assert all(hook["entry"].startswith("python -m ") for hook in hooks)
    (rule,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "pre_commit run --all-files" in rule and "ruff" not in rule
