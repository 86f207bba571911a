# SPDX-License-Identifier: Apache-2.0
"""What a fuzz loop may feed with hostile bytes: each reads them as a command of ours does.

A target returns, or raises a `PmlkitError`; anything else is a defect. `SEEDS` has, for each, how
to make valid input to mutate.
"""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from factories import make_trace

from pmlkit import workingset
from pmlkit.batch import schema
from pmlkit.errors import PmlkitError
from pmlkit.sources.guest import workload
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


def target_trace_json(data: bytes, folder) -> None:
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
        found = json.loads(data)
        return found if isinstance(found, dict) else None
    return None


def target_parquet(data: bytes, folder) -> None:
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


def target_yaml(data: bytes, folder) -> None:
    """Read these bytes as an experiment."""
    path = Path(folder) / "x.yaml"
    path.write_bytes(data)
    schema.load(path)


def target_workload(data: bytes, folder) -> None:
    """Read these bytes as the ``workload.yaml`` of a stranger's folder."""
    home = Path(folder) / "stranger"
    home.mkdir(exist_ok=True)
    (home / "run.sh").write_text("")
    (home / "workload.yaml").write_bytes(data)
    workload.load(home)


def seed_trace_json(folder) -> list[bytes]:
    return [(_seed_trace(folder) / "trace.json").read_bytes()]


def seed_parquet(folder) -> list[bytes]:
    path = _seed_trace(folder)
    read = [(path / f"{name}.parquet").read_bytes() for name in TABLES]
    return [bytes([number]) + data for number, data in enumerate(read)]


def seed_yaml(folder) -> list[bytes]:
    return [
        b"title: a\nabout: b\ntraces: [x, {trace: b, made_by: c}]\nruns:\n  - notebook: one\n"
        b"    parameters: {columns: 2}\n    grid: {window: [1s, 2s], m: [1, 2]}\n"
        b"  - notebook: two\n    together: true\n    traces: &t [c]\n    grid: [{a: [1]}]\n"
        b"summary:\n  - notebook: three\n",
    ]


def seed_workload(folder) -> list[bytes]:
    return [
        b"summary: x\ncommand: ./run.sh $size\nfiles: [run.sh]\npackages: [xz-utils]\n"
        b"parameters:\n  size: {default: 4, help: y}\nmemory_mib: 128\nphases: [one]\nprune: [a]\n"
    ]


TARGETS = {
    "trace_json": (target_trace_json, seed_trace_json),
    "parquet": (target_parquet, seed_parquet),
    "yaml": (target_yaml, seed_yaml),
    "workload": (target_workload, seed_workload),
}


if __name__ == "__main__":  # one input: NAME FILE FOLDER
    import sys

    name, file, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    TARGETS[name][0](Path(file).read_bytes(), folder)
