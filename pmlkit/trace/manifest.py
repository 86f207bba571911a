# SPDX-License-Identifier: Apache-2.0
"""``trace.json``: the description of a trace, with a digest that detects any changed byte."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
from typing import TYPE_CHECKING

from pmlkit.errors import (
    FileRefused,
    NotATrace,
    TraceDamaged,
    TraceNotFound,
    TraceVersionError,
    read_error,
)
from pmlkit.files import open_regular
from pmlkit.spool import folder_of
from pmlkit.trace.description import (
    COUNTED,
    DESCRIPTION,
    FILES,
    LIMIT_BYTES,
    Fault,
    foreign_json,
    values_fault,
)
from pmlkit.trace.schema import FORMAT, VERSION

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from pmlkit.types import Json, PathLike


NAME = "trace.json"
PML_FILE = "pml.trace/trace.json"  # manifest of the log in an access trace
SAMPLE_FILE = "sample.trace/trace.json"  # manifest of the sample in a PML log
_FILES = re.compile(
    r"entries/part-\d{5}\.parquet|(rounds|batches|guest|regions|tables|disk)\.parquet"
)
_BY_ROUND = ("tables.parquet",)  # read by round as entries are
_NEEDED = ("rounds.parquet", "batches.parquet", "entries/part-00000.parquet")


def digest(document: Json) -> str:
    """Return the hexadecimal BLAKE2b of a document's canonical JSON."""
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def encode(document: Json) -> bytes:
    """Return the bytes of ``trace.json`` for a document without format, version and digest."""
    document = {"format": FORMAT, "version": VERSION, **document}
    return json_bytes({**document, "digest": digest(document)})


def json_bytes(document: Json) -> bytes:
    """Return the bytes of a document in ``trace.json``."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def load(path: Path) -> Json:
    """Read and check the manifest of the trace at a path.

    Parameters
    ----------
    path : Path
        The trace's folder.

    Returns
    -------
    dict
        The document, without its digest.

    Raises
    ------
    TraceNotFound, NotATrace, TraceVersionError, TraceDamaged
    """
    check_folder(path)
    data = _read(path)
    document = _parse(path, data)
    _check_format(path, document)
    if fault := values_fault(document):
        raise _damaged(path, f"cannot be: {fault}")
    # Compared byte for byte: damage need not change the meaning (1e-5, 1E-5).
    stated = document.pop("digest", None)
    if stated != digest(document) or data != json_bytes({**document, "digest": stated}):
        raise _damaged(path, "has been changed since it was written (its digest differs)")
    _check_files(path, document)
    if fault := DESCRIPTION(document):
        raise _damaged(path, f"contradicts the format: {fault}")
    return document


def check_folder(path: Path) -> None:
    """Refuse a path that does not exist or is not a folder."""
    hint = ""
    try:
        missing = not path.exists()
        if missing and path.name and (spool := folder_of(path)).is_dir():
            hint = f"its recording has not ended: {_ingested(spool, path)}"
    except (OSError, ValueError):  # a name that is too long or has a NUL
        missing = True
    if missing:
        raise TraceNotFound(path, hint)
    if not path.is_dir():
        raise NotATrace(path, "it is a file, and a trace is a folder", _advice(path))


def _advice(path: Path) -> str:
    for folder in list(path.absolute().parents)[:2]:
        if (folder / NAME).is_file():
            return f"give the folder {folder}"
    if path.suffix == ".spool":
        return _ingested(path, "NAME.trace")
    return "give the folder NAME.trace that pmlkit wrote"


def _ingested(spool: Path, out: Path | str) -> str:
    return f"convert it with `pmlkit ingest {spool} -o {out}`"


def _read(path: Path) -> bytes:
    try:
        with open_member(path, NAME) as file:
            data = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        if _looks_like_a_trace(path):
            raise _damaged(path, "is missing") from error
        raise NotATrace(path, f"the folder has no {NAME}", _advice(path)) from error
    except OSError as error:
        raise read_error(path, NAME, error) from error
    if len(data) > LIMIT_BYTES:
        raise _damaged(path, f"is too large (at most {LIMIT_BYTES:,} bytes are read)")
    return data


def open_member(path: PathLike, name: str) -> BinaryIO:
    """Open a file of the trace `path`.

    Raises
    ------
    TraceDamaged
        If it is not a regular file, or a link that leads out of the trace.
    OSError
        If it cannot be opened.
    """
    _refuse_link_out(path, name)
    try:
        return open_regular(os.path.join(path, name))
    except FileRefused as error:
        raise TraceDamaged(path, name, f"cannot be read ({error.why})") from error


def size_of_member(path: PathLike, name: str) -> int:
    """Return the size of a file of the trace `path`, bytes; errors as of `open_member`."""
    _refuse_link_out(path, name)
    status = os.stat(os.path.join(path, name))
    if not stat.S_ISREG(status.st_mode):
        open_member(path, name).close()  # raises the error that names the type of file
    return status.st_size


def _refuse_link_out(path: PathLike, name: str) -> None:
    home, place = os.path.realpath(path), os.path.realpath(os.path.join(path, name))
    if not place.startswith(os.path.join(home, "")):
        raise TraceDamaged(path, name, f"leads out of the trace, to {place}")


def may_be_replaced(path: Path) -> bool:
    """Whether a path is a trace, even a damaged one. Only traces are overwritten."""
    return (path / NAME).is_file() and _looks_like_a_trace(path)


def _looks_like_a_trace(path: Path) -> bool:
    return (path / "rounds.parquet").exists() or (path / "entries").is_dir()


def _parse(path: Path, data: bytes) -> Json:
    try:
        document = foreign_json(data)
    except ValueError as error:
        if _looks_like_a_trace(path):
            raise _damaged(path, str(error)) from error
        raise NotATrace(path, f"its {NAME} is not JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        if _looks_like_a_trace(path):
            raise _damaged(path, f"does not state that it is a {FORMAT}")
        raise NotATrace(path, f"its {NAME} is of another program")
    return document


def _check_format(path: PathLike, document: Json) -> None:
    # Before the check for damage: another version may compute its digest in another way.
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise TraceVersionError(path, version, VERSION)


def _check_files(path: PathLike, document: Json) -> None:
    files = document.get("files")
    if not isinstance(files, dict) or not all(name in files for name in _NEEDED):
        raise _damaged(path, "does not list the files of a trace")
    if not all(_FILES.fullmatch(f) or f in (PML_FILE, SAMPLE_FILE) for f in files):
        raise _damaged(path, "does not list the files of a trace")
    if fault := FILES(files) or _counted_fault(files):
        fault = fault._replace(where=f"files{fault.where}")
        raise _damaged(path, f"contradicts the format: {fault}")
    rows = sum(part["rows"] for part in _parts(files).values())
    stated = document.get("entries")
    if rows != stated:
        raise _damaged(path, f"states entries {stated}, and its files have {rows} rows")


def _parts(files: Json) -> Json:
    return {name: files[name] for name in sorted(files) if name.startswith("entries/")}


def _counted_fault(files: Json) -> Fault | None:
    """Check `rows` and `rounds` of the files that are read by round."""
    parts = _parts(files)
    for name, checksum in (parts | {n: files[n] for n in _BY_ROUND if n in files}).items():
        fault = COUNTED(checksum)
        if not fault and (checksum["rows"] == 0) != (checksum["rounds"] is None):
            fault = Fault(".rounds", checksum["rounds"], "null if and only if there are no rows")
        if fault:
            return fault._replace(where=f".{name}{fault.where}")
    for number, name in enumerate(parts):
        if name != f"entries/part-{number:05d}.parquet":
            return Fault("", name, f"part {number}: the parts are counted from 0")
    spans = [part["rounds"] for part in parts.values() if part["rows"]]
    if any(first[1] > second[0] for first, second in itertools.pairwise(spans)):
        return Fault("", spans, "in order of rounds")
    return None


def _damaged(path: PathLike, why: str) -> TraceDamaged:
    return TraceDamaged(path, NAME, why)
