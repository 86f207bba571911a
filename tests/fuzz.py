# SPDX-License-Identifier: Apache-2.0
"""Hostile input for every reader: ``python tests/fuzz.py [TARGET...] --seconds 60``.

Each case changes a good input and gives it to the command line, in this process. Whatever it is,
the command does it or refuses it in one line that names the file: no traceback, no "defect of
pmlkit", no control character, no warning of a library, at most 10 s of the processor and 512 MiB.
The cases of a target run in a process of their own, which is ended when it hangs or grows. What
breaks is a find: its input is kept, and the command that repeats it is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from fuzz_inputs import TARGETS  # noqa: E402

from pmlkit import cli  # noqa: E402

HANG_S = 10  # of its own processor time: a machine may be busy
WAIT_S = 300  # of any time: what waits for ever uses no processor
MOST_BYTES = 512 << 20
KEPT = Path("fuzz-finds")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_KIB = 1024


class Find(Exception):
    """A case that was not held."""


def main():
    told = arguments()
    if told.list:
        print("\n".join(TARGETS))
        return 0
    names = told.targets or list(TARGETS)
    if told.worker is not None:
        return work(TARGETS[names[0]], told)
    if told.case is not None:
        return repeat(TARGETS[names[0]], told)
    with ThreadPoolExecutor(told.jobs) as pool:
        finds = sum(pool.map(lambda name: supervise(name, told), names))
    print(f"{len(names) - finds} passed, {finds} failed")
    return 1 if finds else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of the processor, for each target"
    )
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="of each target, at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--case", type=int, help="repeat this one, and show its traceback")
    parser.add_argument("--worker", type=int, metavar="CASE", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if (told.case, told.worker) != (None, None) and len(told.targets) != 1:
        parser.error("name one TARGET")
    return told


# One case


def try_case(target, seed, number, folder):
    """Make a case and use it; raises a `Find`."""
    rng = random.Random(f"{target.name} {seed} {number}")
    target.make(rng, folder)
    for at, words in enumerate(target.commands(rng, folder)):
        code, out, err = call(words)
        if "PMLKIT_DEBUG" in os.environ:
            print(out, err, sep="")
        judge(words, code, out + err, err, target.named(folder) if at == 0 else "")
        if code:
            return
    target.after(folder)


def call(words):
    """Run a command; returns its exit code, standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def judge(words, code, text, err, name):
    last = err.rstrip("\n").rpartition("\n")[2]
    debugging = "PMLKIT_DEBUG" in os.environ
    for wrong, why in (
        ("Traceback (most" in text and not debugging, "a traceback"),
        ("defect in pmlkit" in text, "called a defect"),
        ("Warning:" in err, "a warning of a library"),
        (code not in (0, 1, 2), f"exit code {code}"),
        (code and not last.startswith("pmlkit: ") and (err or not text), "no line that says why"),
        (code and not last.isprintable(), "a control character"),
        (code == 1 and err and name not in err, "the file is not named"),
    ):
        if wrong:
            raise Find(f"{why}: `pmlkit {' '.join(map(str, words[:2]))}`: {last[:300]}")


def repeat(target, told):
    os.environ["PMLKIT_DEBUG"] = "1"
    folder = KEPT.absolute() / f"{target.name}-{told.seed}-{told.case}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target.prepare(folder)
    try:
        try_case(target, told.seed, told.case, folder)
    except Find as find:
        print(f"{find}\nthe input is in {folder}")
        return 1
    print("held")
    return 0


# All cases of a target, in a process of their own


def work(target, told):
    """Run cases from the one given on; say of each on the pipe that it begins, and each find."""
    pipe = os.dup(1)
    os.dup2(2, 1)  # nothing but what is said here may be on it

    def say(*words):
        os.write(pipe, (" ".join(map(str, words)).replace("\n", " | ") + "\n").encode())

    os.fsync = lambda handle: None
    folder = Path(tempfile.mkdtemp())
    try:
        target.prepare(folder)
        refused = warm_up(target, folder)
        base = peak_bytes()
        say("ready", base)
        for text in refused:
            say("find", told.worker, "good input is refused:", text)
        for number in range(told.worker, told.worker + told.cases):
            say("case", number)
            try:
                try_case(target, told.seed, number, folder)
            except Find as find:
                say("find", number, find)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                say("find", number, f"{type(error).__name__} in {place.name}: {str(error)[:200]}")
            if peak_bytes() - base > MOST_BYTES:
                say("find", number, f"memory: {(peak_bytes() - base) >> 20} MiB")
                return 0  # the peak of a process never falls: another one goes on
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def warm_up(target, folder):
    """Use each good input; returns what is said of those that are refused."""
    refused = []
    for data in target.good:
        for seed in range(8):  # what is compiled at its first use is compiled here
            target.write(data, folder)
            for at, words in enumerate(target.commands(random.Random(seed), folder)):
                code, _, err = call(words)
                if code and err:
                    refused += [err] * (at == seed == 0)
                    break
    return refused


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


class Worker:
    """A process that works; ended when it hangs or grows."""

    def __init__(self, name, told, first, folder):
        cases = told.cases - first
        command = [sys.executable, __file__, name, "--worker", first, "--cases", cases]
        command += ["--seed", told.seed]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.base, self.number = None, first - 1
        self.began = time.monotonic()
        self.cpu_s = self.began_cpu_s = self.ready_cpu_s = 0.0
        self._left = b""

    def events(self, seconds):
        """Yield (case, why) of each find, until the cases used so many seconds of the processor.

        Ends earlier if the process does.
        """
        while self.base is None or self.worked_s() < seconds:
            ready, _, _ = select.select([self.process.stdout], [], [], 0.1)
            if ready:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    yield from self._ended()
                    return
                *lines, self._left = (self._left + data).split(b"\n")
                yield from filter(None, map(self._hear, lines))
            elif why := self._too_much():
                yield self.number, why
                return

    def _hear(self, line):
        what, number, *why = line.decode().split(" ", 2)
        self.began, self.began_cpu_s = time.monotonic(), self._cpu_s()
        if what == "ready":
            self.base, self.ready_cpu_s = int(number), self.began_cpu_s
        elif what == "find":
            return int(number), why[0]
        else:
            self.number = int(number)
        return None

    def _cpu_s(self):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            self.cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self.cpu_s

    def worked_s(self):
        """Return the seconds of the processor that its cases have taken; no load changes them."""
        return self._cpu_s() - self.ready_cpu_s

    def _ended(self):
        status = self.process.wait()
        if self.base is None:
            raise SystemExit(self.process.stderr.read().decode().strip())
        if status:
            yield self.number, f"the process died, status {status}"

    def _too_much(self):
        if self.base is None:
            return None
        if self._cpu_s() - self.began_cpu_s > HANG_S:
            return f"hangs for {HANG_S} s"
        if time.monotonic() - self.began > WAIT_S:
            return f"waits for {WAIT_S} s"
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            if pages * resource.getpagesize() - self.base > MOST_BYTES:
                return f"memory: more than {MOST_BYTES >> 20} MiB"
        return None

    def end(self):
        self.process.kill()
        self.process.communicate()


def supervise(name, told):
    """Run a target's cases; returns whether there was a find."""
    left_s, done, found = told.seconds, 0, Counter()
    while left_s > 0 and done < told.cases:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            worker = Worker(name, told, done, folder)
            try:
                for number, why in worker.events(left_s):
                    kind = re.sub(r"\d+", "N", why)
                    found[kind] += 1
                    if found[kind] == 1:
                        again = f"python tests/fuzz.py {name} --seed {told.seed} --case {number}"
                        print(f"{name}: {why}\n    {again}", flush=True)
            finally:
                worker.end()
        done = worker.number + 1
        left_s -= worker.worked_s()
    print(f"{name}: {done} cases, {sum(found.values())} finds of {len(found)} kinds", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
