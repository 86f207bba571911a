# SPDX-License-Identifier: Apache-2.0
"""A kernel's payload is found and unpacked, however it was compressed."""

import bz2
import gzip
import lzma
import struct

import pyarrow
import pytest
from needs import REQUIRED, needs_apt

from pmlkit.errors import GuestError
from pmlkit.sources.guest import debian
from pmlkit.sources.guest.kernel import kernel, unpack

IMAGE = b"\x7fELF" + bytes(9 << 20) + b"end"  # more than one block of lz4's


def bzimage(payload):
    """A bzImage of four sectors of set-up, and the payload 100 bytes into the rest."""
    head = bytearray(5 * 512)
    head[0x1F1], head[0x202:0x206] = 4, b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + bytes(100) + payload + b"what follows"


def lz4(data):
    codec, size = pyarrow.Codec("lz4_raw"), 8 << 20
    blocks = [codec.compress(data[i : i + size], asbytes=True) for i in range(0, len(data), size)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(b)) + b for b in blocks)


@pytest.mark.parametrize(
    "compress",
    [
        lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
        gzip.compress,
        bz2.compress,
        lz4,
    ],
    ids=["xz", "gzip", "bzip2", "lz4"],
)
def test_every_known_compression_is_unpacked(compress):
    payload = compress(IMAGE) + struct.pack("<I", len(IMAGE))
    assert unpack(bzimage(payload)) == IMAGE


def test_an_unknown_compression_is_named():
    with pytest.raises(GuestError, match=r"unknown method \(deadbeef\)"):
        unpack(bzimage(b"\xde\xad\xbe\xef and so on"))


def test_what_is_no_kernel_is_refused():
    with pytest.raises(GuestError, match="not a bzImage"):
        unpack(bytes(4096))


@needs_apt
def test_debians_kernel_has_an_entry_for_qemu():
    try:
        fetched = kernel()
    except debian.PackageError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))
    assert fetched.path.name.startswith("vmlinux-")
    assert fetched.path.read_bytes()[:4] == b"\x7fELF"
    assert fetched.release.endswith("-cloud-amd64")
