# SPDX-License-Identifier: Apache-2.0
"""A trace of which one file is replaced by any bytes and sealed anew, and then used.

Using it succeeds, or raises a `PmlkitError`; anything else is a defect.
"""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

from factories import make_trace

from pmlkit import workingset
from pmlkit.errors import PmlkitError
from pmlkit.trace import known, manifest
from pmlkit.trace.reader import Trace

TABLES = ("rounds", "batches", "guest", "regions", "entries/part-00000")


def _seed_trace(folder):
    path = Path(folder) / "seed.trace"
    if not path.exists():
        regions, phases = [("buf", 1, 3)], [("a", 0), ("b", 1)]
        make_trace(path, rounds=3, pages=16, guest=True, regions=regions, phases=phases)
    return path


def _copy(folder):
    path = Path(folder) / "x.trace"
    shutil.rmtree(path, ignore_errors=True)
    return Path(shutil.copytree(_seed_trace(folder), path))


def _use(path):
    """Do what `info`, `wss` and `plot` do."""
    trace = Trace.open(path)
    trace.check()
    known.measure(trace)
    _ = trace.phases, trace.duration_ns, trace.bytes_per_entry, trace.phase_of_rounds()
    workingset.estimate(trace, window="1r")
    for region in dict.fromkeys(trace.regions["name"]):
        trace.frames(region)


def use_with_description(data: bytes, folder) -> None:
    """Use a trace with this ``trace.json``: as it is, and sealed anew if it is an object."""
    path = _copy(folder)
    (path / "trace.json").write_bytes(data)
    try:
        _use(path)
    except PmlkitError as error:
        if (document := _object(data)) is None:
            raise
        first = error
    else:
        return
    document.pop("digest", None)
    try:
        sealed = manifest.json_bytes({**document, "digest": manifest.digest(document)})
    except (ValueError, UnicodeEncodeError, RecursionError):
        raise first from None  # nobody could seal that
    (path / "trace.json").write_bytes(sealed)
    _use(path)


def _object(data):
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(data)
        return document if isinstance(document, dict) else None
    return None


def use_with_table(data: bytes, folder) -> None:
    """Use a trace in which these bytes are a Parquet file, sealed; the first says which one."""
    path = _copy(folder)
    name = f"{TABLES[data[0] % len(TABLES)] if data else TABLES[0]}.parquet"
    (path / name).write_bytes(data[1:])
    document = manifest.load(path)
    digest = hashlib.blake2b(data[1:], digest_size=32).hexdigest()
    document["files"][name] |= {"bytes": len(data) - 1 if data else 0, "blake2b": digest}
    for key in ("format", "version"):
        document.pop(key)
    (path / "trace.json").write_bytes(manifest.encode(document))
    _use(path)


def tables(folder) -> list[bytes]:
    """Return good input for `use_with_table`, one of each table."""
    path = _seed_trace(folder)
    read = [(path / f"{name}.parquet").read_bytes() for name in TABLES]
    return [bytes([number]) + data for number, data in enumerate(read)]
