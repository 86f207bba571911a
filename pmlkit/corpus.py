# SPDX-License-Identifier: Apache-2.0
"""WSS-Bench: 24 recorded programs, half of them for development and half held out.

The programs are folders of ``experiments/workloads/wssbench/``. The split is fixed by a rule
without a choice: in the order of the SHA-256 of their names, the first half is for development.
``experiments/corpus.csv`` holds a digest of each recording: recordings are reproducible to the bit.
``experiments/protocol.md`` states what each half is used for.

A folder of recordings holds ``development/NAME.trace`` and ``held-out/NAME.trace``. The first two
programs of each half, in that order, are also recorded with four other seeds, to tell programs
apart from runs of a program: ``development/repeats/NAME-2.trace`` and so on. Some programs are also
recorded in other guests, which belong to no half: three in larger guests, of which they use half
(``large/NAME.trace``), and three with more files on a disk than they have memory
(``disk/NAME.trace``). Repeats and these are scored only on request.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import recordings
from pmlkit.errors import PmlkitError, UnknownName
from pmlkit.files import whole
from pmlkit.trace.reader import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pmlkit.sources.guest.workload import Workload
    from pmlkit.sources.recorder.recording import Progress
    from pmlkit.types import Json, PathLike

__all__ = [
    "DEVELOPMENT",
    "DISK",
    "GROUPS",
    "HALVES",
    "HELD_OUT",
    "LARGE",
    "Program",
    "Verdict",
    "check",
    "content_digest",
    "names",
    "programs",
    "record",
    "register",
    "split",
    "traces",
]

DEVELOPMENT, HELD_OUT = HALVES = ("development", "held-out")
LARGE, DISK = "large", "disk"
GROUPS = (*HALVES, LARGE, DISK)  # of recordings; the last two belong to no half
WINDOW = "25ms"  # length of a round: a quarter of the shortest T of the protocol, 0.1 s
REGISTRY = recordings.ROOT / "experiments" / "corpus.csv"
_FOLDER = recordings.ROOT / "experiments" / "workloads" / "wssbench"
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Program:
    """A program of the corpus, and the facts of its recording.

    Attributes
    ----------
    name, half : str
        The half is one of `GROUPS`.
    seed : int
        Seed of the program's random numbers: sizes, orders, pauses.
    seconds : int
        Guest time.
    rounds, entries : int
        Size of the recording; 0 before it is registered.
    digest : str
        `content_digest` of the recording; empty before it is registered.
    versions : str
        Digest of the versions of the kernel, of the packages and of QEMU.
    repeat : int
        Number of the recording of this program, from 1.
    """

    name: str
    half: str
    seed: int
    seconds: int
    rounds: int = 0
    entries: int = 0
    digest: str = ""
    versions: str = ""
    repeat: int = 1

    @property
    def label(self) -> str:
        """The name of the recording: ``redis``, ``redis-2``."""
        return self.name if self.repeat == 1 else f"{self.name}-{self.repeat}"

    def command(self, folder: PathLike = "corpus") -> str:
        """Return the command that reproduces the recording in a folder of recordings."""
        repeats = " --repeats" * (self.repeat > 1)
        half = "" if self.half in HALVES else f" --half {self.half}"
        return f"pmlkit corpus record {self.name}{repeats}{half} -o {shlex.quote(str(folder))}"

    def path(self, folder: PathLike) -> Path:
        """Return where the recording is in a folder of recordings."""
        below = "" if self.repeat == 1 else "repeats"
        return Path(folder) / self.half / below / f"{self.label}.trace"


@dataclass(frozen=True)
class Verdict:
    """A recording's state as of `check`: ``equal``, ``differs``, ``missing``, ``unregistered``."""

    program: Program
    state: str
    why: str = ""


def split(names: Iterable[str]) -> dict[str, str]:
    """Return the half of each name: by the order of their SHA-256, the first half is development.

    Examples
    --------
    >>> split(["redis", "gcc", "zstd", "xz"])
    {'zstd': 'development', 'redis': 'development', 'xz': 'held-out', 'gcc': 'held-out'}
    """
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    first = len(ordered) // 2
    return {name: HALVES[place >= first] for place, name in enumerate(ordered)}


def names() -> list[str]:
    """Return the names of the programs, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/workload.yaml"))


def programs(
    names: Sequence[str] = (), half: str | None = None, repeats: bool = False
) -> list[Program]:
    """Return the programs of both halves as they are registered, in the order of the registry.

    Parameters
    ----------
    names : sequence of str
        Only these; empty: all.
    half : {"development", "held-out", "large", "disk"}, optional
        Only this half, or these guests, which belong to neither.
    repeats : bool
        Their recordings with other seeds, too.

    Raises
    ------
    UnknownName
        If there is no such program or half.
    PmlkitError
        If the registry cannot be read.
    """
    known = _read(REGISTRY)
    if half is not None and half not in GROUPS:
        raise UnknownName("half", half, GROUPS)
    for name in names:
        if name not in (program.name for program in known):
            raise UnknownName(
                "program of the corpus", name, list(dict.fromkeys(p.name for p in known))
            )
    chosen = [p for p in known if not names or p.name in names]
    wanted = HALVES if half is None else (half,)
    return [p for p in chosen if p.half in wanted and (repeats or p.repeat == 1)]


def _read(path: Path) -> list[Program]:
    try:
        with open(path, newline="") as file:
            return [_program(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise PmlkitError(f"{path} cannot be read as the corpus", "restore it from git") from error


def _program(row: dict[str, Any]) -> Program:
    whole_numbers = {field.name for field in fields(Program) if field.type == "int"}
    values: Json = {field.name: row[field.name] for field in fields(Program)}
    return Program(**values | {name: int(values[name]) for name in whole_numbers})


def _write(known: Sequence[Program], path: Path) -> None:
    with whole(path, overwrite=True) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(
            file, [field.name for field in fields(Program)], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(asdict(program) for program in known)


def workload(program: Program) -> Workload:
    """Return the workload that a program's guest runs."""
    from pmlkit.sources.guest.workload import load

    parameters = {"seconds": str(program.seconds), "seed": str(program.seed)}
    group = "wssbench" if program.half in HALVES else f"wssbench-{program.half}"
    return load(_FOLDER.with_name(group) / program.name).with_parameters(parameters)


def record(
    program: Program, folder: PathLike, progress: Callable[[Progress], object] | None = None
) -> Trace | None:
    """Record a program to a folder of recordings, unless it has a complete recording already.

    Returns
    -------
    Trace or None
        None if it was there. It is incomplete if Ctrl-C ended it.

    Raises
    ------
    MissingTool, GuestError, OutputError
    """
    from pmlkit.sources.recorder.record import record as record_workload
    from pmlkit.sources.recorder.recording import RecordOptions

    path = program.path(folder)
    if is_whole(path):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    limit_s = 60.0 * program.seconds  # a busy machine takes some seconds for a second of the guest
    options = RecordOptions(window=WINDOW, overwrite=True, time_limit_s=limit_s)
    return record_workload(workload(program), path, options, progress)


def is_whole(path: Path) -> bool:
    """Return whether a recording exists, is readable and is complete."""
    try:
        return bool(Trace.open(path).meta.complete)
    except PmlkitError:
        return False


def content_digest(path: PathLike) -> str:
    """Return a digest of all tables of a trace, including those of its PML log.

    It leaves out ``trace.json``, which holds when and how fast it was recorded. Equal recordings
    have an equal digest if the same release of Arrow wrote them.
    """
    path, total = Path(path), hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for file in sorted(path.rglob("*.parquet")):
        with open(file, "rb") as stream:
            file_digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(path).as_posix()} {file_digest}\n".encode())
    return total.hexdigest()


def _versions(trace: Trace) -> str:
    """Return a digest of the versions of the guest's and its machine's software."""
    document = json.loads((trace.path / "trace.json").read_text())
    named_versions = {k: v for k, v in document["provenance"]["versions"].items() if k != "python"}
    return hashlib.sha256(json.dumps(named_versions, sort_keys=True).encode()).hexdigest()[:12]


def _measured(program: Program, path: Path) -> Program:
    """Return the program with the facts of a recording."""
    trace = Trace.open(path)
    return replace(
        program,
        rounds=trace.n_rounds,
        entries=int(trace.meta.entries),
        digest=content_digest(path),
        versions=_versions(trace),
    )


def register(folder: PathLike, chosen: Sequence[Program] | None = None) -> list[Program]:
    """Add the facts of complete recordings that are not registered yet to the registry.

    Returns
    -------
    list of Program
        The programs that were added.
    """
    chosen = programs() if chosen is None else chosen
    wanted = {(program.half, program.label) for program in chosen}
    known, added = _read(REGISTRY), []
    for place, program in enumerate(known):
        path = program.path(folder)
        new = (program.half, program.label) in wanted and not program.digest
        if new and is_whole(path):
            known[place] = _measured(program, path)
            added.append(known[place])
    if added:
        _write(known, REGISTRY)
    return added


def check(program: Program, folder: PathLike) -> Verdict:
    """Compare a recording with its registered facts."""
    path = program.path(folder)
    if not is_whole(path):
        return Verdict(program, "missing", f"record it: `{program.command(folder)}`")
    if not program.digest:
        command = f"pmlkit corpus check {shlex.quote(str(folder))} --register"
        return Verdict(program, "unregistered", f"add it with `{command}`")
    measured = _measured(program, path)
    if measured.digest == program.digest:
        return Verdict(program, "equal")
    if measured.versions != program.versions:
        return Verdict(program, "differs", "other versions of the kernel, of packages or of QEMU")
    return Verdict(program, "differs", "the versions are the same")


def traces(folder: PathLike, half: str = DEVELOPMENT) -> list[Path]:
    """Return the complete recordings of a half in a folder.

    Raises
    ------
    PmlkitError
        If there is none.
    """
    paths = [program.path(folder) for program in programs(half=half)]
    complete = [path for path in paths if is_whole(path)]
    if not complete:
        command = f"pmlkit corpus record --half {half} -o {shlex.quote(str(folder))}"
        hint = f"make them with `{command}`, or give the folder that it wrote"
        raise PmlkitError(f"{folder} has no recording of the half {half}", hint)
    return complete
