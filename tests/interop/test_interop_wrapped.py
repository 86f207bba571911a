# SPDX-License-Identifier: Apache-2.0
"""Files in a wrapping: each is unpacked, or refused by the name of what it is packed with."""

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmlkit import interop
from pmlkit.interop.formats import FORMATS
from pmlkit.interop.oracle import REQUEST
from pmlkit.interop.reading import ForeignFileError


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", data)
    return file.getvalue()


def parquet():
    file = io.BytesIO()
    pq.write_table(pa.table({"obj": [1, 2]}), file)
    return file.getvalue()


FILES = {
    "csv": b"t_start_ns,t_end_ns,gfn\n0,5,7\n",
    "oracle-general": np.array([(1, 7, 4096, -1)] * 3, REQUEST).tobytes(),
    "parquet": parquet(),
    "lackey": b"I  4000,3\n L 5000,8\n",
    "pinatrace": b"0x1: R 0x5000\n#eof\n",
    "kvm-dirty-ring": b" qemu-1 [000] ..... 1.000001: kvm_dirty_ring_push: ring 0: dirty 0x1 "
    b"reset 0x0 slot 1 offset 0x5 (2)\n",
    "query-dirty-rate": b'{"status": "measured", "start-time": 1, "calc-time": 1, "dirty-rate": 2}',
    "damo": b'[{"target_id": 0, "snapshots": [{"start_time": 0, "end_time": 9, "regions": '
    b'[{"start": 0, "end": 4096, "nr_accesses": {"samples": 1}}]}]}]',
}
WRAPPINGS = {
    "gzip": gzip.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "lz4": lambda data: pa.compress(data, "lz4", asbytes=True),
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
}
BINARY = {"oracle-general", "parquet"}


def load(tmp_path, name, data, file="x.bin"):
    (tmp_path / file).write_bytes(data)
    out = tmp_path / ("x.csv" if name == "query-dirty-rate" else "x.trace")
    options = {"columns": "obj=obj"} if name == "parquet" else {}
    return interop.load(name, tmp_path / file, out, overwrite=True, **options)


def frames(made):
    return made["pages"].tolist() if hasattr(made, "columns") else made.to_pandas()["gfn"].tolist()


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", FILES)
def test_a_wrapped_file_is_unpacked_or_named(tmp_path, name, wrapping):
    if wrapping == "UTF-16" and name in BINARY:
        pytest.skip("a binary file is not text")
    plain, data = frames(load(tmp_path, name, FILES[name])), WRAPPINGS[wrapping](FILES[name])
    for file in ("x.bin", "x.gz"):
        try:
            assert frames(load(tmp_path, name, data, file)) == plain
            assert wrapping in FORMATS[name].unwraps
        except ForeignFileError as error:
            short = name == "oracle-general" and wrapping in ("gzip", "zip", "lz4")
            assert short or wrapping in str(error), error
            assert short or error.hint in ("unpack it", "save it as UTF-8")
