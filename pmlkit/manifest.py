# SPDX-License-Identifier: Apache-2.0
"""``trace.json``: what a trace says of itself, sealed so that any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from pmlkit.errors import NotATrace, TraceDamaged, TraceNotFound, TraceVersionError, read_error
from pmlkit.schema import FORMAT, VERSION

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from pmlkit.types import Json, PathLike


NAME = "trace.json"
PML_FILE = "pml.trace/trace.json"  # nested in an access trace
SAMPLE_FILE = "sample.trace/trace.json"  # nested in a PML log
_FILES = re.compile(
    r"entries/part-\d{5}\.parquet|(rounds|batches|guest|regions|tables|disk)\.parquet"
)
_NEEDED = ("rounds.parquet", "batches.parquet", "entries/part-00000.parquet")


def digest(document: Json) -> str:
    """Give the digest of a document (a dict): blake2b over its canonical JSON, hexadecimal."""
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def seal(document: Json) -> bytes:
    """Make the bytes of ``trace.json`` out of its document (a dict without its digest)."""
    document = {"format": FORMAT, "version": VERSION, **document}
    return _text({**document, "digest": digest(document)})


def _text(document: Json) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def load(path: Path) -> Json:
    """Read the manifest of the trace at a path, and refuse whatever is not one.

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
    # Byte for byte: a flipped bit can leave the meaning alone (1e-5, 1E-5), yet is damage.
    found = document.pop("digest", None)
    if found != digest(document) or data != _text({**document, "digest": found}):
        raise _damaged(path, "has been changed since it was written (its digest differs)")
    _check_files(path, document.get("files"))
    return document


def check_folder(path: Path) -> None:
    """Refuse a path that is nothing, or not a folder."""
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # a name too long, or one with a NUL
        missing = True
    if missing:
        raise TraceNotFound(path)
    if not path.is_dir():
        raise NotATrace(path, "it is a file, and a trace is a folder", _advice(path))


def _advice(path: Path) -> str:
    for folder in list(path.absolute().parents)[:2]:
        if (folder / NAME).is_file():
            return f"give the folder {folder}"
    if path.suffix == ".spool":
        return f"make a trace of it with `pmlkit ingest {path} -o NAME.trace`"
    return "give the folder NAME.trace that pmlkit has written"


def _read(path: Path) -> bytes:
    try:
        return (path / NAME).read_bytes()
    except FileNotFoundError as error:
        if _looks_like_a_trace(path):
            raise _damaged(path, "is missing") from error
        raise NotATrace(path, f"the folder has no {NAME}") from error
    except OSError as error:
        raise read_error(path, NAME, error) from error


def may_be_replaced(path: Path) -> bool:
    """Say whether what is at a path is a trace, even a damaged one: only that is overwritten."""
    return (path / NAME).is_file() and _looks_like_a_trace(path)


def _looks_like_a_trace(path: Path) -> bool:
    return (path / "rounds.parquet").exists() or (path / "entries").is_dir()


def _parse(path: Path, data: bytes) -> Json:
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if _looks_like_a_trace(path):
            raise _damaged(path, "is not valid JSON any more") from error
        raise NotATrace(path, f"its {NAME} is not JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        if _looks_like_a_trace(path):
            raise _damaged(path, f"does not say that it is a {FORMAT}")
        raise NotATrace(path, f"its {NAME} is of another program")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities are no JSON


def _check_format(path: PathLike, document: Json) -> None:
    # A version is said before damage: another version may seal its files in another way.
    if document.get("version") != VERSION:
        raise TraceVersionError(path, document.get("version"), VERSION)


def _check_files(path: PathLike, files: Any) -> None:
    valid = isinstance(files, dict) and all(name in files for name in _NEEDED)
    if not valid or not all(_FILES.fullmatch(f) or f in (PML_FILE, SAMPLE_FILE) for f in files):
        raise _damaged(path, "does not list the files of a trace")


def _damaged(path: PathLike, why: str) -> TraceDamaged:
    return TraceDamaged(path, NAME, why)
