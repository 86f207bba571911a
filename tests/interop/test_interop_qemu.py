# SPDX-License-Identifier: Apache-2.0
"""A real QEMU is asked for its dirty rate, and its own answers are imported.

By sampling pages: QEMU 7.2 crashes when it is asked for the mode dirty-bitmap without KVM, and the
mode dirty-ring is KVM's alone.
"""

import json
import socket
import subprocess

import pytest
from needs import needs_qemu
from waiting import HANG_S

from pmlkit import interop

DIRTIED_MIB = 8
# A boot sector that writes 8 MiB from 16 MiB on, other values each time, over and over.
SECTOR = """
.code16
    cli
    lgdt table
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmp $8, $protected
.code32
protected:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    in $0x92, %al
    or $2, %al
    out %al, $0x92
    xor %ebx, %ebx
again:
    inc %ebx
    mov %ebx, %eax
    mov $0x1000000, %edi
    mov $0x200000, %ecx
    cld
    rep stosl
    jmp again
segments: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
table: .word 23
    .long segments
.org 510
    .word 0xaa55
"""


@pytest.fixture
def monitor(tmp_path):
    """A QEMU whose guest dirties 8 MiB; a function that asks it by QMP."""
    (tmp_path / "s.s").write_text(SECTOR)
    for command in (
        ["as", "--32", "s.s", "-o", "s.o"],
        [
            "ld",
            "-e",
            "0x7c00",
            "-m",
            "elf_i386",
            "--oformat=binary",
            "-Ttext=0x7c00",
            "s.o",
            "-o",
            "s.img",
        ],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    ours, theirs = socket.socketpair()
    command = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-m",
        "256",
        "-display",
        "none",
        "-nodefaults",
    ]
    command += [
        "-drive",
        f"format=raw,file={tmp_path / 's.img'}",
        "-mon",
        "chardev=qmp,mode=control",
    ]
    command += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    ours.settimeout(HANG_S)
    with ours, ours.makefile("rw") as lines:

        def ask(command, **arguments):
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            while True:
                answer = json.loads(lines.readline())
                if "return" in answer or "error" in answer:
                    return answer

        json.loads(lines.readline())  # it greets
        ask("qmp_capabilities")
        yield ask
        process.kill()
        process.wait()


@needs_qemu
def test_the_answers_of_a_real_qemu(monitor, tmp_path):
    answers, rounds = [], 0
    # The guest may still boot, or have no processor: a measurement of that says nothing of its own.
    while rounds < 2 or not answers[-1]["return"]["dirty-rate"]:
        rounds += 1
        assert monitor("calc-dirty-rate", **{"calc-time": 1, "sample-pages": 4096}) == {
            "return": {}
        }
        answers.append(monitor("query-dirty-rate"))
        while answers[-1]["return"]["status"] != "measured":
            answers.append(monitor("query-dirty-rate"))
    path = tmp_path / "answers.json"
    path.write_text("\n".join(map(json.dumps, answers)))
    table = interop.load("query-dirty-rate", path, tmp_path / "rates.csv")
    assert table["mode"].tolist() == ["page-sampling"] * rounds
    assert table["asked_ns"].tolist() == [10**9] * rounds
    assert table["vcpu"].tolist() == [-1] * rounds
    assert table["t_ns"].is_monotonic_increasing and table["t_ns"][0] == 10**9
    # It hashes 1024 pages of 256 MiB: 32 of the 8 MiB, give or take what chance does; and it
    # divides by the time that passed, which on a machine in use is more than was asked for.
    assert table["mib_per_s"].between(0, 2 * DIRTIED_MIB).all()
    assert (table["pages"] == table["mib_per_s"] * 256).all()
