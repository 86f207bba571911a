# SPDX-License-Identifier: Apache-2.0
"""Break the code on purpose, and see that a test notices: ``python tests/mutants.py``.

Each mutant changes a few characters of one file in a copy of the tree, and the tests named with it
run. A mutant that they let pass says that nothing holds that line. Prints a table; exit code 1 if
fewer than 95 in 100 are killed. Takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from tree import ROOT, tracked  # noqa: E402

WANTED = 0.95
LIMIT_S = 240
NO_TEST = (4, 5)  # pytest's: wrong use, nothing was collected


class Mutant(NamedTuple):
    """A change of a file, and the tests that have to notice it (pytest's words)."""

    file: str
    name: str
    old: str
    new: str
    tests: str


def mutants(file, tests, *changes):
    """Return mutants of one file, (name, old, new[, tests]) each."""
    return [Mutant(f"pmlkit/{file}", *change[:3], (*change, tests)[3]) for change in changes]


MUTANTS = [
    *mutants(
        "kernels/frames.py",
        "kernels/test_by_time.py test_workingset.py",
        ("a page is numbered from 1", "ids[i] = number - 1", "ids[i] = number", "test_streams.py"),
        (
            "a full table is not seen",
            "if state[1] == room:\n                state[0]",
            "if state[1] == room + 1:\n                state[0]",
            "test_streams.py kernels/test_by_time.py",
        ),
        (
            "pages that stayed are those of two windows ago",
            "(before ^ (now - uint64(1)))",
            "(before ^ (now - uint64(2)))",
        ),
        ("no page is new twice", "now = uint64(window + 2)", "now = uint64(2)"),
    ),
    *mutants(
        "kernels/loops.py",
        "kernels/test_by_time.py",
        (
            "a page is once a trace, not once a round",
            "uint64(uint32(last[page]) ^ uint32(now)) + uint64(ONES)",
            "uint64(uint32(last[page]) ^ uint32(now * 0)) + uint64(ONES)",
            "test_workingset.py missratio/test_missratio.py",
        ),
        (
            "a new page of a round has no marks",
            "bits = marks[page] & (uint64(0) - new)",
            "bits = marks[page] & (uint64(1) - new)",
            "kernels/test_by_time.py test_workingset.py",
        ),
        (
            "a window is left one round late",
            "shorter(at[now] - at[before], sizes",
            "shorter(at[now] - at[before] - 1, sizes",
        ),
        (
            "pages leave at their use",
            "left[before, out] += 1",
            "left[now, out] += 1",
        ),
        (
            "a use counts one round less",
            "hold = at[now] - at[last]",
            "hold = at[now] - at[last] - 1",
        ),
        (
            "the gap's time is of the wrong end",
            "gap_sums[place] += hold",
            "gap_sums[place] += at[now]",
            "test_workingset.py kernels/test_by_time.py",
        ),
        (
            "the threshold is one use late",
            "reached[j, now] += had + 1 == counts[j]",
            "reached[j, now] += had == counts[j]",
        ),
        (
            "the last use ends one round early",
            "bend_sums[j, place] -= span + end - last",
            "bend_sums[j, place] -= span + end - last - 1",
        ),
        (
            "a sliding window is one use short",
            "        if had >= m:\n            last",
            "        if had > m:\n            last",
            "kernels/test_by_time.py test_workingset.py",
        ),
        (
            "a window reaches one round too far",
            "end = min(leave[ring[page, (had - m) & mask]], enter[now])",
            "end = min(leave[ring[page, (had - m) & mask]] + 1, enter[now])",
            "kernels/test_by_time.py test_workingset.py",
        ),
    ),
    *mutants(
        "kernels/lru.py",
        "missratio/test_missratio.py",
        (
            "a page counts itself",
            "out[i] = live - earlier - parts[part] - 1",
            "out[i] = live - earlier - parts[part]",
        ),
        (
            "a bit stays",
            "            bits[word] = marks ^ bit\n",
            "            bits[word] = marks\n",
        ),
        (
            "bits of the own position count as earlier",
            "popcount(marks & (bit - uint64(1)))",
            "popcount(marks & (bit | (bit - uint64(1))))",
        ),
        ("the first distance is not counted", "if distances[i] >= 0", "if distances[i] > 0"),
        (
            "the rest after whole words is left out",
            "for i in range(words * 64, len(gfns)):",
            "for i in range(len(gfns), len(gfns)):",
        ),
        ("a time is one too long", "time = now + i - before", "time = now + i - before + 1"),
    ),
    *mutants(
        "kernels/loops.py",
        "notebook/test_explorer.py",
        (
            "a page stays a window longer",
            "last = min(leave[rounds[i - back] - first], until)",
            "last = min(leave[rounds[i - back] - first] + 1, until)",
        ),
        (
            "the threshold by page is one use more",
            "for i in range(a + back, b):\n            at = enter",
            "for i in range(a + back + 1, b):\n            at = enter",
        ),
    ),
    *mutants(
        "kernels/by_page.py",
        "kernels/test_by_page.py",
        (
            "repetitions in a round count",
            "order[is_first]",
            "order[is_first | ~is_first]",
        ),
        (
            "a page leaves when its threshold is one use less",
            "leave[kept - back]",
            "leave[kept - back + 1]",
        ),
        ("the threshold is one use more", "earlier >= back", "earlier > back"),
        ("the last use of a page ends with it", "= len(windows)  # the last", "= 0  # the last"),
        ("the sort has a bit too few", ".bit_length(), 16)", ".bit_length() - 1, 16)"),
        (
            "a plateau is one round early",
            'at - stable, "right") - 1',
            'at - stable + 1, "right") - 1',
            "kernels/test_by_page.py test_workingset.py",
        ),
    ),
    *mutants(
        "selection.py",
        "test_streams.py test_workingset.py",
        (
            "rounds are not counted from the selection's first",
            "rounds -= self.first",
            "rounds -= 0",
        ),
        (
            "an access trace counts kinds as uses",
            'distinct = expand or trace.meta.kind == "access"',
            'distinct = expand or trace.meta.kind == "pml"',
        ),
        (
            "reads can be asked of a log",
            "and not mask & _LOGGED",
            "and not mask",
        ),
        ("shares of frames overlap", "% np.uint64(parts) == part", "% np.uint64(parts) <= part"),
    ),
    *mutants(
        "trace/reader.py",
        "trace/test_trace.py",
        (
            "a round that ends at the start belongs to the range",
            'np.searchsorted(ends, start_ns, "right")',
            'np.searchsorted(ends, start_ns, "left")',
        ),
        (
            "a round without length is nowhere",
            'min(np.searchsorted(ends, start_ns, "right"), np.searchsorted(starts, start_ns))',
            'np.searchsorted(ends, start_ns, "right")',
        ),
        (
            "a phase starts a round late",
            'np.arange(self.n_rounds), "right")',
            'np.arange(self.n_rounds), "left")',
        ),
    ),
    *mutants(
        "trace/entries.py",
        "trace/test_trace.py trace/test_writer.py",
        (
            "a group that ends where a range starts is left out",
            "rounds[1] >= first",
            "rounds[1] > first",
        ),
        ("entries may fall", "if values[0] < last or (values[1:]", "if (values[1:]"),
        (
            "entries may fall within a call",
            "or (values[1:] < values[:-1]).any()",
            "or (values[1:] < values[:-1]).all() and len(values) > 3",
        ),
        ("any kind goes into any trace", "if not allowed.all():", "if not allowed.any():"),
        ("a number too large is cut", "<= np.iinfo(dtype).max:", "<= 2 ** 70:"),
        (
            "columns of two lengths are taken",
            "if len(lengths) != 1 or",
            "if len(lengths) > 2 or",
            "trace/test_writer.py",
        ),
    ),
    *mutants(
        "trace/parquet.py",
        "trace/test_damage.py trace/test_audit.py trace/test_writer.py",
        ("a longer file is taken", "if size > expected:", "if size > expected + 64:"),
        ("a digest is not looked at", 'if digest.hexdigest() != checksum["blake2b"]:', "if False:"),
        ("other columns are taken", "if not parquet.schema_arrow.equals(schema):", "if False:"),
        ("empty cells are taken", "    if column.null_count:\n", "    if column.null_count > 9:\n"),
    ),
    *mutants(
        "trace/writer.py",
        "trace/test_writer.py",
        (
            "phases may fall",
            "if values != sorted(values):",
            "if len(values) != len(sorted(values)):",
        ),
        (
            "a trace changes its kind",
            "!= self.meta.kind:\n            raise",
            "== 5:\n            raise",
        ),
        (
            "an error leaves the partial folder",
            "        except BaseException:\n            self.abort()\n            raise",
            "        except BaseException:\n            raise",
        ),
        ("a log holds a log", "or self.meta.kind == kind or", "or"),
    ),
    *mutants(
        "trace/writer.py",
        "trace/test_writer_tables.py trace/test_writer.py",
        (
            "contradictions are written",
            "        if fault:\n",
            "        if fault and len(fault) > 900:\n",
        ),
        (
            "counts are not filled in",
            "uncounted = set(self._uncounted)",
            "uncounted = set()",
        ),
    ),
    *mutants(
        "trace/consistency.py",
        "trace/test_audit.py trace/test_writer.py trace/test_writer_tables.py "
        "trace/test_description.py",
        ("a batch of the round after the last", "rounds >= n_rounds, f", "rounds > n_rounds, f"),
        ("gaps between rounds", "start[1:] != end[:-1]", "start[1:] < end[:-1]"),
        ("batches out of order", "rounds[1:] < rounds[:-1]", "rounds[1:] + 1 < rounds[:-1]"),
        (
            "counts differ",
            "wrong = np.flatnonzero(stated != counted)",
            "wrong = np.flatnonzero(stated < counted)",
        ),
        ("lost entries differ", "if by_round != by_batch:", "if by_round < by_batch:"),
        ("snapshots of the round after the last", "if last >= n_rounds:", "if last > n_rounds:"),
        (
            "a span ends before it starts",
            "arrow.values(table[start]) > arrow.values(table[end])",
            "arrow.values(table[start]) > arrow.values(table[end]) + 5",
        ),
    ),
    *mutants(
        "files.py",
        "trace/test_writer.py",
        ("a link is cleared through", "O_DIRECTORY | os.O_NOFOLLOW", "O_DIRECTORY"),
        ("two write one name", "handle, fcntl.LOCK_EX", "handle, fcntl.LOCK_SH"),
        (
            "somebody's files are cleared",
            "if not all(_LEFTOVERS",
            "if leftovers and not any(_LEFTOVERS",
        ),
        (
            "a name taken meanwhile is replaced",
            "            self._check_free()\n            with self._old",
            "            with self._old",
        ),
        ("the old one is gone if the new fails", "            os.rename(old, self.final)\n", ""),
    ),
    *mutants(
        "spool_reader.py",
        "test_spool.py",
        (
            "a frame that is cut off is taken",
            "if length > left - len(head):",
            "if length > left:",
        ),
        (
            "a frame's sum is not looked at",
            "if not frame.is_valid:",
            "if not (frame.is_valid or frame.payload):",
        ),
        ("frames may be missing", "!= (MARKER, 0, sequence):", "!= (MARKER, 0, number):"),
        (
            "bytes after the end are not said",
            "if self.offset != self._size:",
            "if self.offset > self._size:",
        ),
    ),
    *mutants(
        "spool.py",
        "test_spool.py",
        ("half a frame stays", "            self._file.truncate(self.bytes)\n", ""),
        (
            "a broken spool is closed as whole",
            "if whole and not self._broken:",
            "if not self._broken:",
        ),
    ),
    *mutants(
        "xen/collector.py",
        "xen/test_agent.py",
        (
            "a lost connection is complete",
            'and self.stop.kind != "lost"',
            'and self.stop.kind != "nothing"',
        ),
        (
            "a migration is not looked for",
            "self.stop.look_for_migration()  #",
            "pass  #",
        ),
        (
            "lateness is never caught up",
            "now > self._due + self.period_s else",
            "now > self._due else",
            "xen/test_collector.py",
        ),
        (
            "one round more",
            "self.closed == self.job.rounds:",
            "self.closed > self.job.rounds:",
        ),
        (
            "the spool grows beyond its limit",
            "writer.bytes >= most:",
            "writer.bytes >= 2 * most:",
        ),
        (
            "what a killed one left on stays on",
            "cleaned = list(marks.clean(self.job.state))",
            "cleaned = []",
        ),
    ),
    *mutants(
        "timeline.py",
        "test_timeline.py",
        (
            "a window has what ended at its start",
            "np.searchsorted(ends, at + min(size, 1 << 62))",
            'np.searchsorted(ends, at + min(size, 1 << 62), "right")',
        ),
        (
            "a round is in the window after",
            "enter = np.searchsorted(ends, at)",
            'enter = np.searchsorted(ends, at, "right")',
        ),
        ("a cut window is full", "full=(ends - starts == size)", "full=(ends - starts <= size)"),
        ("a window without its uses is full", "ns >= COVERED * size", "ns >= 0 * size"),
        ("a gap is not known", "| ~self.used[around]", "| self.used[around]"),
        ("T may be any", "if ns < resolution or", "if ns < 0 or"),
        ("T may be longer than the part", "if longest and self.n_rounds", "if self.n_rounds < 0"),
    ),
    *mutants(
        "kernels/loops.py",
        "interop/test_imported.py",
        ("a page that returns is merged", "if how == MERGE:", "if how >= 0:"),
        ("another kind is another use", "last_kinds[page] & kind", "last_kinds[page] >= 0"),
        ("a gap is no round", "starts[i] > state[END]:  #", "starts[i] < state[END]:  #"),
        ("rows may go back", "starts[i] < state[END]):", "starts[i] < state[START]):"),
    ),
    *mutants(
        "interop/rounds.py",
        "interop/test_imported.py",
        (
            "times are not moved to 0",
            "return spans - start, dataclasses",
            "return spans, dataclasses",
        ),
        ("nearly all are regular", "REGULAR_SHARE = 0.9", "REGULAR_SHARE = 0.5"),
        ("losses are of the round before", "np.searchsorted(spans[:, 1], time_ns)", "0 * time_ns"),
    ),
    *mutants(
        "interop/rates.py",
        "interop/test_interop_rates.py",
        ("not measured is a rate", "if rate is None or rate == -1:", "if rate is None:"),
    ),
    *mutants(
        "sources/host/stream.py",
        "sources/test_xen_stream.py",
        ("a record may be longer", "WORDS = 512", "WORDS = 1 << 20"),
        (
            "a record may be cut",
            "if start + 8 * words != len(payload):",
            "if start + 8 * words > len(payload):",
        ),
    ),
    *mutants(
        "sources/ingest.py",
        "sources/test_hostile_dom0.py sources/test_recorder_ingest.py",
        ("what is not understood is not told", "    if faults:\n", "    if not faults:\n"),
    ),
    *mutants(
        "sources/host/collection.py",
        "sources/test_hostile_dom0.py",
        (
            "a spool that is not understood is deleted",
            "kept = holds_frames(self.folder / FRAMES_FILE)",
            "kept = False",
        ),
    ),
    *mutants(
        "costs.py",
        "test_costs.py",
        ("any two clocks divide", "cost.clock.machine == self.machine", "True"),
        ("a cost is of a faster machine", "cost.insn * self.ns_per_insn", "cost.insn"),
        ("an exit has no transition", "if self.leaves else 0.0", "if False else 0.0"),
        (
            "a trace's own clock is overridden",
            "self.ns_per_insn or ns_per_insn",
            "ns_per_insn or self.ns_per_insn",
        ),
    ),
    *mutants(
        "techniques/channels.py",
        "techniques/test_technique_answers.py",
        (
            "only the tables are logged",
            "len(np.unique(recorded.log.between(first, stop))) + tables",
            "tables",
        ),
    ),
    *mutants(
        "techniques/host_channels.py",
        "techniques/test_host_techniques.py",
        ("blind aging sees a page again", "young &= gone_by < 0", "young &= gone_by < 9"),
        ("reads cost nothing", "len(np.unique(used)) - len(written)", "0"),
        ("the phase is lost between looks", "(phase - first) % one_in", "phase"),
    ),
    *mutants(
        "techniques/channels.py",
        "techniques/test_host_techniques.py",
        (
            "a pruned look forgets no use",
            "found, pruned_at = flags.take_all(), setting.clock.rounds()",
            "found = flags.take_all()",
        ),
        (
            "a stall is the emulator's time",
            "time.ns(wait) if time.ns_per_insn else wait.amount",
            "wait.amount",
        ),
    ),
    *mutants(
        "techniques/vmware.py",
        "techniques/test_technique_answers.py",
        ("a finished period counts twice", "share = fast  #", "pass  #"),
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--only", metavar="WORD", default="", help="mutants with it in file or name"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one in N of them")
    told = parser.parse_args()
    chosen = [m for m in MUTANTS if told.only in f"{m.file}: {m.name}"][:: told.every]
    if wrong := [f"{m.file}: {m.name}" for m in MUTANTS if occurs(m) != 1]:
        print("the old text is not there once:", *wrong, sep="\n  ")
        return 2
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(told.jobs) as pool:
        trees = SimpleQueue()
        for number in range(told.jobs):
            trees.put(copy(Path(folder) / str(number)))
        began = time.monotonic()
        killed = list(pool.map(lambda mutant: try_one(mutant, trees), chosen))
    cpu_s = sum(os.times()[2:4])
    share = f"{sum(killed)} of {len(chosen)} mutants killed"
    print(f"{share}; {time.monotonic() - began:.0f} s, {cpu_s:.0f} s of CPU")
    print(f"{sum(killed)} passed, {len(chosen) - sum(killed)} failed")
    return 1 if sum(killed) < WANTED * len(chosen) else 0


def occurs(mutant):
    return (ROOT / mutant.file).read_text().count(mutant.old)


def copy(folder):
    """Copy the project; returns the folder."""
    for path in tracked():
        there = folder / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    return folder


def try_one(mutant, trees):
    """Return whether the tests notice a mutant; prints its line."""
    tree = trees.get()
    file = tree / mutant.file
    text = file.read_text()
    try:
        file.write_text(text.replace(mutant.old, mutant.new))
        verdict = run(tree, mutant.tests)
    finally:
        file.write_text(text)
        trees.put(tree)
    print(f"{verdict:10} {mutant.file.removeprefix('pmlkit/')}: {mutant.name}", flush=True)
    return verdict != "SURVIVED"


def run(tree, tests):
    words = [f"tests/{word}" if word.endswith(".py") else word for word in tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words]
    # The bytecode of a mutant may be as old, and as long, as that of the next.
    variables = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=os.environ | variables, capture_output=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return "hung"
    if done.returncode in NO_TEST:
        raise SystemExit(f"no test was run: {' '.join(command)}\n{done.stdout.decode()[-2000:]}")
    return "killed" if done.returncode else "SURVIVED"


if __name__ == "__main__":
    sys.exit(main())
