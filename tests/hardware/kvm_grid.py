# SPDX-License-Identifier: Apache-2.0
"""Runs on the KVM lab's host: many guests of the kit in one boot, each under our monitor.

``grid.json`` says which: a name, kvm_intel's parameters, the guest's file, the monitor's words, and
the agent's job. The spool and the guest's report of each go to ``/out``.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from pmlkit.kvm import agent
from pmlkit.kvm.job import Job

LIMIT_S = 60


def load(parameters):
    """Load kvm_intel with other parameters."""
    subprocess.run(["rmmod", "kvm_intel"], check=False)
    subprocess.run(["insmod", "/mods/kvm-intel.ko", *parameters.split()], check=True)


def started(folder, words):
    """Start the monitor, and wait until its guest is set up."""
    with open(folder / "vmm.txt", "wb") as out:
        process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=out)
    end = time.monotonic() + LIMIT_S
    while "ready" not in (folder / "vmm.txt").read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError((folder / "vmm.txt").read_text())
        time.sleep(0.01)
    return process


def run(one):
    """Run a guest and log it."""
    folder, go = Path("/tmp") / one["name"], Path("/job/go")
    folder.mkdir()
    go.unlink(missing_ok=True)
    Path("/job/kernel").write_bytes(base64.b64decode(one["guest"]))
    process = started(folder, ["/job/vmm", *one["words"]])
    spool = f"/out/{one['name']}.spool"
    agent.collect(Job.of({**one["job"], "vm": str(process.pid), "spool": spool}))
    if process.wait():
        raise RuntimeError((folder / "vmm.txt").read_text())
    shutil.copy(folder / "report.txt", f"/out/{one['name']}.report")


def main():
    parameters = os.environ["KVM_INTEL"]  # what the host's script has loaded
    for one in json.loads(Path("/job/grid.json").read_text()):
        if one["parameters"] != parameters:
            parameters = one["parameters"]
            load(parameters)
        began = time.monotonic()
        try:
            run(one)
        except Exception as error:
            print(one["name"], repr(error), flush=True)
        else:
            print(one["name"], f"ran in {time.monotonic() - began:.1f} s", flush=True)


main()
