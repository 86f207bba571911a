# SPDX-License-Identifier: Apache-2.0
"""Workloads of a guest: bundled ones, and the user's own program, C file or folder."""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import recordings
from pmlkit.errors import FileRefused, WorkloadError, closest
from pmlkit.files import read_regular
from pmlkit.foreign import foreign_yaml
from pmlkit.sources.guest import programs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import NoReturn, TypeVar

    from pmlkit.types import Json, PathLike

    T = TypeVar("T")


FOLDER = recordings.ROOT / "experiments" / "workloads"
DESCRIPTION = "workload.yaml"
MEMORY_MIB = 256  # default of a workload
DISK_MIB = (16, 4096)  # a smaller one has no room for Linux' records about it
_DESCRIPTION_BYTES = 1 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RELEASE = re.compile(r"[a-z]+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy, 5.6.7
_NO_NAME = "give a name in the folder, not absolute, without .., that begins with neither - nor @"


@dataclass(frozen=True)
class Parameter:
    """A number or word that is a parameter of a workload.

    Attributes
    ----------
    default : str, int or float
        Its value, unless `Workload.with_parameters` changes it.
    help : str
        One line.
    """

    default: str | int | float
    help: str = ""


@dataclass(frozen=True)
class Workload:
    """A workload, and the requirements of its guest.

    Attributes
    ----------
    name, summary : str
    command : str
        Runs in the guest's shell, in ``/work``; parameters are shell variables, ``$hot``.
    sources : tuple of Path
        C files, each compiled to a static program ``/work/STEM``.
    packages : tuple of str
        Debian packages whose files (and dependencies') the guest has.
    files : tuple of Path
        Files and folders that are copied to ``/work``.
    parameters : dict of str to Parameter
    memory_mib : int
        The guest's memory, unless the user overrides it.
    seconds : float
        Approximate guest time of a run.
    phases : tuple of str
        The phases that it marks, in order.
    prune : tuple of str
        Patterns of package files that the guest does not need, such as ``usr/share/perl/*``.
    keep : tuple of str
        Patterns of package files that it needs although guests usually omit them,
        ``usr/bin/perl*``.
    prepare : str
        Runs in the guest's shell before the recording begins: inputs that are not part of the run.
    release : str
        Debian's release of the packages, ``"bookworm"``; default: the system's sources.
    disk_mib : int
        Size of the disk that is mounted at ``/disk``; 0: none.
    """

    name: str
    summary: str
    command: str
    sources: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    parameters: dict[str, Parameter] = field(default_factory=dict)
    memory_mib: int = MEMORY_MIB
    seconds: float = 0
    phases: tuple[str, ...] = ()
    prune: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    prepare: str = ""
    release: str = ""
    disk_mib: int = 0

    def with_parameters(self, values: Mapping[str, str]) -> Workload:
        """Return the same workload with other parameters.

        Raises
        ------
        WorkloadError
            If it has no such parameter, or the value is not of the default's type.
        """
        changed = {name: self._parameter(name, text) for name, text in values.items()}
        return replace(self, parameters={**self.parameters, **changed})

    def _parameter(self, name: str, text: str) -> Parameter:
        if name not in self.parameters:
            raise WorkloadError(self.name, f"it has no parameter {name}", _among(self.parameters))
        old = self.parameters[name]
        kind = type(old.default)
        try:
            value = kind(text)
        except ValueError:
            hint = f"give {'a whole number' if kind is int else 'a number'}, such as {old.default}"
            raise WorkloadError(self.name, f"{name} cannot be {text!r}", hint) from None
        return replace(old, default=value)


def list_workloads() -> list[Workload]:
    """Return the workloads that come with pmlkit, sorted by name."""
    return [_from_folder(path.parent) for path in sorted(FOLDER.glob(f"*/{DESCRIPTION}"))]


def load(spec: PathLike) -> Workload:
    """Find a workload.

    Parameters
    ----------
    spec : str or path-like
        The name of a shipped workload, or the path of a static executable, of a C file, or of a
        folder with a ``workload.yaml``.

    Raises
    ------
    WorkloadError
        If it does not exist, or cannot run in a guest.
    MissingTool
        If it must be compiled and there is no gcc.
    """
    name, path = os.fspath(spec), Path(spec)
    if re.fullmatch(r"[\w-]+", name) and (FOLDER / name / DESCRIPTION).is_file():
        return _from_folder(FOLDER / name)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_source(path) if path.suffix == ".c" else _from_program(path)
    raise WorkloadError(name, "there is no such workload or file", _suggestion(name))


def names() -> list[str]:
    """Return the names of the shipped workloads."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{DESCRIPTION}"))


def _suggestion(name: str) -> str:
    if near := closest(name, names()):
        return f"did you mean {near}? `pmlkit record --list` lists all of them"
    elsewhere = "" if recordings.PATCHES.is_dir() else f"; for the lab's guests, {recordings.CLONE}"
    return f"`pmlkit record --list` lists the workloads{elsewhere}"


def _from_source(path: Path) -> Workload:
    programs.compile_static(path)  # fail early
    path = path.resolve()
    command = shlex.quote(f"./{path.stem}")
    return Workload(path.stem, f"{path.name}, compiled", command, sources=(path,))


def _from_program(path: Path) -> Workload:
    programs.check_static(path)
    path = path.resolve()
    return Workload(path.name, path.name, shlex.quote(f"./{path.name}"), files=(path,))


def _from_folder(folder: Path) -> Workload:
    """Read a folder's workload.yaml."""
    folder = folder.resolve()
    fields = _Fields(folder.name, _read(folder))
    parameters: Json = fields.take("parameters", dict, {})
    workload = Workload(
        name=folder.name,
        summary=fields.take("summary", str, folder.name),
        command=fields.take("command", str),
        sources=fields.paths("sources", folder),
        packages=fields.packages("packages"),
        files=fields.paths("files", folder),
        parameters={name: fields.parameter(name, p) for name, p in parameters.items()},
        memory_mib=fields.take("memory_mib", int, MEMORY_MIB),
        seconds=fields.take("seconds", (int, float), 0),
        phases=fields.strings("phases"),
        prune=fields.strings("prune"),
        keep=fields.strings("keep"),
        prepare=fields.take("prepare", str, ""),
        release=fields.release("release"),
        disk_mib=fields.disk("disk_mib"),
    )
    fields.check_all_taken()
    return workload


def _read(folder: Path) -> Json:
    """Parse the description; a syntax error names its line."""
    import yaml

    path = folder / DESCRIPTION
    try:
        description = foreign_yaml(read_regular(path, _DESCRIPTION_BYTES).decode())
    except FileNotFoundError:
        hint = "write one with summary and command, see experiments/workloads/"
        raise WorkloadError(folder.name, f"the folder has no {DESCRIPTION}", hint) from None
    except (yaml.YAMLError, ValueError, OSError, FileRefused, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        why = getattr(error, "problem", None) or str(error)
        raise WorkloadError(folder.name, f"{path}, {line}{why}", "fix the file") from error
    if not isinstance(description, dict):
        raise WorkloadError(folder.name, f"{path} is not `key: value` lines", "fix the file")
    return description


class _Fields:
    """The fields of a description: each is removed and checked."""

    def __init__(self, name: str, values: Json) -> None:
        self.name, self.values = name, dict(values)
        self.known: list[str] = []

    def take(self, key: str, kind: type[T] | tuple[type[T], ...], *default: T) -> T:
        """Remove and return a value of type `kind`."""
        self.known.append(key)
        if key not in self.values and default:
            return default[0]
        value = self.values.pop(key, None)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        expected = getattr(kind, "__name__", "number")
        self._refuse(f"`{key}` should be a {expected}" if value is not None else f"no `{key}`")

    def strings(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, [])
        if not all(isinstance(value, str) for value in values):
            self._refuse(f"`{key}` should be a list of words")
        return tuple(values)

    def packages(self, key: str) -> tuple[str, ...]:
        """Read names of Debian packages."""
        names = self.strings(key)
        for name in names:
            if not _PACKAGE.fullmatch(name):
                self._refuse(f"`{key}` names {name!r}, which is not a name of a Debian package")
        return names

    def release(self, key: str) -> str:
        """Read the name of a Debian release, or nothing."""
        name = self.take(key, str, "")
        if name and not _RELEASE.fullmatch(name):
            self._refuse(f"`{key}` is {name!r}, which is not a release of Debian, such as bookworm")
        return name

    def disk(self, key: str) -> int:
        """Read the size of a disk, or 0."""
        size = self.take(key, int, 0)
        low, high = DISK_MIB
        if size and not low <= size <= high:
            self._refuse(f"`{key}` is {size}, and a disk has {low} to {high} MiB")
        return size

    def paths(self, key: str, folder: Path) -> tuple[Path, ...]:
        """Read names of files, relative to the folder; a user's folder names only its own."""
        return tuple(self._path(key, folder, name) for name in self.strings(key))

    def _path(self, key: str, folder: Path, name: str) -> Path:
        home = FOLDER if FOLDER in folder.parents else folder  # shipped workloads share sources
        leads_up = ".." in Path(name).parts and home == folder
        if name.startswith(("-", "@", "/")) or leads_up or "\0" in name:
            self._refuse(f"`{key}` names {name!r}: {_NO_NAME}")
        path = folder / name
        if not path.exists():
            self._refuse(f"`{key}` names {path.name}, which does not exist")
        for member in _walk(path):
            if fault := _fault(member, home):
                self._refuse(f"`{key}` names {name}: {os.path.relpath(member, folder)} {fault}")
        return path

    def parameter(self, name: object, value: object) -> Parameter:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._refuse(f"the parameter {name} is not a lower-case shell variable")
        description = value if isinstance(value, dict) else {"default": value}
        default = description.get("default")
        if not isinstance(default, str | int | float) or isinstance(default, bool):
            self._refuse(f"the parameter {name} has no `default`, a number or a word")
        return Parameter(default, str(description.get("help", "")))

    def check_all_taken(self) -> None:
        for key in self.values:
            self._refuse(f"`{key}` is not a known field", _among(self.known, str(key)))

    def _refuse(self, why: str, hint: str = "fix the file") -> NoReturn:
        raise WorkloadError(self.name, f"{DESCRIPTION}: {why}", hint)


def _walk(path: Path) -> Iterator[Path]:
    """Yield a file or folder and all that is in it; links are not followed."""
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in [*folders, *files])


def _fault(path: Path, home: Path) -> str | None:
    """Return why a file must not go to a guest: it is elsewhere, or not a plain file."""
    if not path.resolve().is_relative_to(home):
        return f"is a link out of the folder, to {path.resolve()}"
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        return "is a FIFO, device or socket"
    return None


def _among(names: Iterable[str], near: str = "") -> str:
    """Return a hint: the name closest to `near`, or else all."""
    if like := closest(near, names):
        return f"did you mean {like}?"
    return f"it has {', '.join(names)}" if names else "it has none"
