# SPDX-License-Identifier: Apache-2.0
"""The two disks of a lab run: dom0's job and its results.

The results' disk begins with an archive of small files, which is written last. The spool is at a
fixed place after it, and grows while the guest is logged, so it survives the emulator's end.
"""

from __future__ import annotations

import contextlib
import json
import os
import py_compile
import sys
import tarfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError, output_error
from pmlkit.files import scratch_folder
from pmlkit.sources.lab import qemu
from pmlkit.sources.lab.bochs import DISK_UNIT
from pmlkit.sources.lab.boot import JOB_UNITS, OUT_UNITS
from pmlkit.sources.lab.image import LAB
from pmlkit.spool import END_KIND, FRAME, FRAMES_FILE, HEADER, MAGIC, MARKER, SUM_BYTES, checksum
from pmlkit.spool_reader import LONGEST_FRAME
from pmlkit.xen import shipping

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from pmlkit.sources.lab.guests import LabGuest
    from pmlkit.types import Json, PathLike


SPOOL_AT = 16 << 20  # bytes
# dom0's script. Linux writes changed pages to the disk after 0.2 s, not 30: so that the spool can
# be read while it grows.
RUN = """\
mkdir -p /out
set -o pipefail
echo 20 >/proc/sys/vm/dirty_writeback_centisecs
echo 20 >/proc/sys/vm/dirty_expire_centisecs
xl create -p guest.cfg >/out/xl.txt 2>&1 || {{
    echo "LAB agent: xl cannot create the guest: $(tail -n 1 /out/xl.txt)"
    exit 3
}}
echo LAB domain built
domid=$(xl domid g)
export PYTHONPATH=/job
{body}
status=$?
xl destroy g
cp /var/log/xen/console/guest-g.log /out/guest.txt 2>/dev/null
echo $status >/out/status
tar -c -C /out . | dd of=/dev/sdb bs=64k 2>/dev/null
exit $status
"""
_PVH = 'type="pvh"\nkernel="/job/kernel"\n'
# An HVM domain needs a device model. This one has no devices; libxl requires of this kind
# ("traditional") only a message that it runs.
_HVM = """type="hvm"
firmware_override="/job/kernel"
device_model_version="qemu-xen-traditional"
device_model_override="/job/device_model"
vga="none"
"""
AGENT = (
    "python3 -m pmlkit.xen.agent job.json $domid - | "
    f"dd of=/dev/sdb bs=64k seek={SPOOL_AT >> 16} 2>/dev/null"
)


def write_disks(
    folder: Path, guest: LabGuest, job: Json, run: str, out: Path | None = None
) -> None:
    """Write the job's disk, and an empty disk for the results.

    Parameters
    ----------
    job : dict
        The agent's job; its header describes the guest.
    run : str
        The shell script that dom0 runs in ``/job``.
    out : Path, optional
        The file of the results' disk; ``folder / "out.img"`` is a link to it.
    """
    header = job["header"]
    kind = _PVH if not job["hvm"] else qemu.CONFIG if job["qemu"] else _HVM
    config = 'name="g"\non_crash="preserve"\n' + kind
    memory_mib = (header["memory_bytes"] >> 20) + (qemu.VIDEO_MIB if job["qemu"] else 0)
    config += f"vcpus={header['guest_vcpus']}\nmemory={memory_mib}\n"
    files = {"kernel": guest.kernel.read_bytes(), "job.json": json.dumps(job).encode()}
    if guest.ramdisk is not None:
        files["ramdisk"] = guest.ramdisk
        config += 'ramdisk="/job/ramdisk"\n'
    if guest.cmdline:
        config += f"extra={json.dumps(guest.cmdline)}\n"
    files["guest.cfg"] = config.encode()
    files["run"] = run.encode()
    files |= with_caches(shipping.files())
    files |= {path.name: path.read_bytes() for path in (LAB / "dom0").glob("*.py")}  # for tests
    files |= qemu.files() if job["qemu"] else {}
    files["device_model"] = (LAB / "dom0" / "device_model").read_bytes()
    write_job(folder, guest.name, files, out)


def write_job(
    folder: Path, guest_name: str, files: Mapping[str, bytes], out: Path | None = None
) -> None:
    """Write the job's disk with files for ``/job``, and an empty disk for the results.

    Raises
    ------
    UsageError, OutputError
    """
    data = _tar(files)
    if len(data) + 4096 > JOB_UNITS * DISK_UNIT:
        raise UsageError(f"the guest {guest_name} is too large for the lab's disk")
    try:
        # dom0 reads the first block, which states the number of blocks of the archive.
        blocks = b"%d\n" % -(-len(data) // 4096)
        (folder / "job.img").write_bytes(blocks.ljust(4096, b"\0") + data)
        os.truncate(folder / "job.img", JOB_UNITS * DISK_UNIT)
        if out:
            (folder / "out.img").symlink_to(out.absolute())
        with open(folder / "out.img", "wb") as disk:
            disk.truncate(OUT_UNITS * DISK_UNIT)
    except OSError as error:
        raise output_error(folder, error) from error


def with_caches(modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Add the byte code of this Python to modules of Python (source, by path).

    The emulator takes seconds to compile them. Python compares the source's hash, which the byte
    code contains. Another version of Python, whose name differs, compiles the source.
    """
    return {**modules, **dict(_compiled(name, source) for name, source in modules.items())}


@cache
def _compiled(name: str, source: bytes) -> tuple[str, bytes]:
    """Return the path and the content of a module's cache."""
    kept = (
        Path(name).parent / "__pycache__" / f"{Path(name).stem}.{sys.implementation.cache_tag}.pyc"
    )
    hashed = py_compile.PycInvalidationMode.CHECKED_HASH
    with scratch_folder() as scratch:
        path, out = Path(scratch) / "source", Path(scratch) / "compiled"
        path.write_bytes(source)
        py_compile.compile(str(path), str(out), f"/job/{name}", True, 0, hashed)
        return str(kept), out.read_bytes()


def _tar(files: Mapping[str, bytes]) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, BytesIO(data))
    return stream.getvalue()


class Growing:
    """The spool on the disk `image`, copied to the file `path` while dom0 writes it.

    The file does not exist until the spool's header is on the disk.
    """

    def __init__(self, image: Path, path: Path) -> None:
        self._image, self._path, self._at = image, path, 0

    def copy(self) -> None:
        """Append the complete frames, up to the first incomplete one.

        dom0 writes the disk's blocks in any order, so only a frame's checksum shows that it is
        complete.
        """
        try:
            with open(self._image, "rb", buffering=0) as disk:
                while part := self._part(disk):
                    with open(self._path, "ab" if self._at else "wb") as file:
                        file.write(part)
                    self._at += len(part)
        except OSError as error:
            raise output_error(self._path.parent, error) from error

    def _part(self, disk: BinaryIO) -> bytes:
        """Return the header, then one frame per call; b"" while it is incomplete."""
        start, layout = (MARKER, FRAME) if self._at else (MAGIC, HEADER)
        disk.seek(SPOOL_AT + self._at)
        head = disk.read(layout.size + SUM_BYTES)
        if not head.startswith(start):
            return b""
        fields, expected = head[: layout.size], head[layout.size :]
        payload = disk.read(min(layout.unpack(fields)[-1], LONGEST_FRAME))
        return head + payload if expected == checksum(fields, payload) else b""


def take_results(image: Path, spool: Path) -> None:
    """Move dom0's results, complete or not, from the disk to the folder `spool`.

    They are ``frames.spool``, ``status`` and ``guest.txt``. The disk is removed at the end.
    """
    try:
        with open(image, "rb") as stream:
            _take_files(stream, spool)
            _take_spool(stream, spool / FRAMES_FILE)
        image.unlink()
    except OSError as error:
        raise output_error(spool, error) from error


def _take_files(stream: BinaryIO, spool: Path) -> None:
    if not stream.read(1).strip(b"\0"):
        return
    stream.seek(0)
    with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if member.isfile() else None
            if content and name:
                (spool / name).write_bytes(content.read())


def _take_spool(stream: BinaryIO, path: PathLike) -> None:
    """Copy the spool; its frames show where it ends, because zeroes of the disk follow."""
    stream.seek(SPOOL_AT)
    head = stream.read(HEADER.size)
    if not head.startswith(MAGIC):
        return
    left = _frames_end(stream, HEADER.unpack(head)[2])
    stream.seek(SPOOL_AT)
    # The file is not emptied first: a reader may have it open, and its beginning is the same.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as copy:
        while left and (data := stream.read(min(left, 1 << 20))):
            copy.write(data)
            left -= len(data)


def _frames_end(stream: BinaryIO, header_bytes: int) -> int:
    """Return the length of the header and all frames, bytes."""
    at = HEADER.size + SUM_BYTES + header_bytes
    while True:
        stream.seek(SPOOL_AT + at)
        head = stream.read(FRAME.size)
        if not head.startswith(MARKER) or len(head) < FRAME.size:
            return at
        _, kind, _, _, length = FRAME.unpack(head)
        at += FRAME.size + SUM_BYTES + length
        if kind == END_KIND:
            return at
