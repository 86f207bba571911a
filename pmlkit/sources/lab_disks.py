# SPDX-License-Identifier: Apache-2.0
"""The two disks of a lab run: the job that dom0 takes, and the results that it leaves."""

import json
import os
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from pmlkit.errors import UsageError, output_error
from pmlkit.sources.bochs import DISK_UNIT
from pmlkit.sources.lab_boot import JOB_UNITS, OUT_UNITS
from pmlkit.sources.lab_image import LAB

RUN = """\
mkdir -p /out
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
AGENT = "python3 -m pmlkit.xen.agent job.json $domid /out/frames.spool"


def write_disks(folder, guest, job, run):
    """Write the job's disk, and an empty one for the results.

    Parameters
    ----------
    folder : Path
        The run's folder.
    guest : LabGuest
    job : dict
        For the agent; its header describes the guest.
    run : str
        The shell script that dom0 runs in ``/job``.
    """
    head = {"vcpus": job["header"]["guest_vcpus"], "memory": job["header"]["memory_bytes"] >> 20}
    config = 'name="g"\ntype="pvh"\nkernel="/job/kernel"\non_crash="preserve"\n' + "".join(
        f"{name}={value}\n" for name, value in head.items()
    )
    files = {"kernel": guest.kernel.read_bytes(), "job.json": json.dumps(job).encode()}
    if guest.ramdisk is not None:
        files["ramdisk"] = guest.ramdisk
        config += 'ramdisk="/job/ramdisk"\n'
    if guest.cmdline:
        config += f"extra={json.dumps(guest.cmdline)}\n"
    files["guest.cfg"] = config.encode()
    files["run"] = run.encode()
    files |= _agent_files()
    data = _tar(files)
    if len(data) + 4096 > JOB_UNITS * DISK_UNIT:
        raise UsageError(f"the guest {guest.name} is too large for the lab's disk")
    try:
        head = b"%d\n" % -(-len(data) // 4096)
        (folder / "job.img").write_bytes(head.ljust(4096, b"\0") + data)
        os.truncate(folder / "job.img", JOB_UNITS * DISK_UNIT)
        with open(folder / "out.img", "wb") as out:
            out.truncate(OUT_UNITS * DISK_UNIT)
    except OSError as error:
        raise output_error(folder, error) from error


def _agent_files():
    """The agent and what it imports, its declarations ready made, and programs for tests."""
    from pmlkit.xen.binding import emit

    package = Path(__file__).parents[1]
    names = ["errors.py", "spool.py", *(f"xen/{p.name}" for p in (package / "xen").glob("*.py"))]
    files = {f"pmlkit/{name}": (package / name).read_bytes() for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        emit(Path(scratch) / "d.py")
        files["pmlkit/xen/_declarations.py"] = (Path(scratch) / "d.py").read_bytes()
    programs = {path.name: path.read_bytes() for path in (LAB / "dom0").glob("*.py")}
    return files | programs | {"pmlkit/__init__.py": b""}


def _tar(files):
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return stream.getvalue()


def take_results(image, spool):
    """Unpack what dom0 wrote: nothing at all if it did not come that far."""
    with open(image, "rb") as stream:
        if not stream.read(1).strip(b"\0"):
            return
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name:
                    (spool / name).write_bytes(tar.extractfile(member).read())
