# SPDX-License-Identifier: Apache-2.0
"""WSS-Bench: the split that nobody chose, what is registered, and how recordings are held to it."""

import hashlib
import json
import re
import shlex

import pyarrow.parquet as pq
import pytest
from factories import make_trace
from tree import ROOT

from pmlkit import cli, corpus, workingset
from pmlkit.errors import PmlkitError, UnknownName
from pmlkit.sources.guest import image, workload

NAMES = corpus.names()


def test_the_split_is_the_order_of_the_digests():
    by_digest = {hashlib.sha256(name.encode()).hexdigest(): name for name in "abcdef"}
    first = [by_digest[digest] for digest in sorted(by_digest)][:3]
    halves = corpus.split("fedcba")
    assert [name for name, half in halves.items() if half == "development"] == first
    assert list(halves.values()).count("held-out") == 3


def test_the_registry_has_every_program_in_its_half():
    registered = corpus.programs()
    assert sorted(program.name for program in registered) == NAMES and len(NAMES) == 24
    assert {program.name: program.half for program in registered} == corpus.split(NAMES)
    assert len(corpus.programs(half="held-out")) == 12
    assert len({program.seed for program in registered}) == 24


def test_scripts_are_those_that_were_recorded():
    """A script is in the guest's memory: one with another comment gives another recording.

    After a change, record and register its programs again, then update ``corpus.sha256``.
    """
    workloads = ROOT / "experiments" / "workloads"
    scripts = [path for path in workloads.glob("wssbench*/**/*") if path.is_file()]
    digests = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in scripts
        if path.name != "workload.yaml"
    }
    recorded = (ROOT / "experiments" / "corpus.sha256").read_text().splitlines()
    assert digests == {name: digest for digest, name in map(str.split, recorded)}


def test_repeats_are_of_the_first_two_of_each_half():
    halves = corpus.split(NAMES)
    first = [
        name for half in corpus.HALVES for name in [n for n in halves if halves[n] == half][:2]
    ]
    every = corpus.programs(repeats=True)
    assert {p.name for p in every if p.repeat > 1} == set(first)
    assert len(every) == 24 + 4 * 4 and len({p.seed for p in every}) == len(every)
    for p in every:
        assert p.seed == corpus.programs([p.name])[0].seed + 1000 * (p.repeat - 1)
    two = next(p for p in every if p.repeat == 2)
    assert two.path("x").as_posix() == f"x/{two.half}/repeats/{two.name}-2.trace"
    assert corpus.workload(two).parameters["seed"].default == two.seed


def folder_of(program):
    group = "wssbench" if program.half in corpus.HALVES else f"wssbench-{program.half}"
    return ROOT / "experiments" / "workloads" / group / program.name


EVERY = [program for half in corpus.GROUPS for program in corpus.programs(half=half)]
each = pytest.mark.parametrize("program", EVERY, ids=lambda p: f"{p.name}-{p.half}")


@pytest.mark.parametrize("group", [corpus.LARGE, corpus.DISK])
def test_other_guests_belong_to_no_half(group):
    chosen = corpus.programs(half=group)
    assert len(chosen) == 3 and not set(chosen) & set(corpus.programs(repeats=True))
    assert all(f" --half {group} " in program.command() for program in chosen)


def test_large_guests_are_large_and_disks_are_larger_than_the_memory():
    for program in corpus.programs(half="large"):
        assert corpus.workload(program).memory_mib >= 1024
    for program in corpus.programs(half="disk"):
        assert corpus.workload(program).disk_mib > corpus.workload(program).memory_mib


@each
def test_each_program_is_what_is_registered(program):
    loaded = corpus.workload(program)
    folder = folder_of(program)
    plain = workload.load(folder)
    assert loaded == plain  # the registered seed and length are the defaults
    assert plain.release == "bookworm" and plain.packages
    assert plain.phases[-1] == "done" and len(plain.summary) <= 100
    assert all(parameter.help for parameter in plain.parameters.values())


@each
def test_the_phases_that_a_program_marks_are_described(program):
    folder = folder_of(program)
    texts = [path.read_text() for path in folder.iterdir() if path.suffix not in (".yaml", ".conf")]
    marks = re.compile(r"""\bphase(?: |[ ]?\(?["'])([a-z0-9]+)\b""")
    marked = {name for text in texts for name in marks.findall(text)}
    assert marked <= set(workload.load(folder).phases)


def test_the_protocol_names_both_halves_and_leaves_room_for_the_analysis():
    text = (ROOT / "experiments" / "protocol.md").read_text()
    for program in corpus.programs():
        assert f"| {program.half} | {program.name} |" in text
    for heading in ("## Techniques", "## Forecasts", "## What counts as a result"):
        assert f"\n{heading}\n" in text


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of two programs, and a folder with a recording of one of them."""
    two = [corpus.Program("redis", "development", 1, 2), corpus.Program("xz", "held-out", 2, 2)]
    monkeypatch.setattr(corpus, "REGISTRY", tmp_path / "corpus.csv")
    corpus._write(two, corpus.REGISTRY)
    folder = tmp_path / "recordings"
    (folder / "development").mkdir(parents=True)
    record_fake(folder / "development" / "redis.trace")
    return folder


def record_fake(path, seed=0, qemu="7.2"):
    versions = {"qemu": qemu, "python": f"3.{seed}"}
    make_trace(path, seed=seed, overwrite=True, provenance={"versions": versions})


def states(folder):
    return {v.program.name: v.state for v in (corpus.check(p, folder) for p in corpus.programs())}


def test_a_recording_is_registered_once_and_then_held_to_it(registry):
    assert states(registry) == {"redis": "unregistered", "xz": "missing"}
    (added,) = corpus.register(registry)
    assert (added.name, added.rounds) == ("redis", 5) and added.entries > 0
    assert corpus.register(registry) == [] and corpus.programs()[0] == added
    assert states(registry)["redis"] == "equal"


def test_a_remedy_is_a_command_for_the_folder_that_was_checked(registry):
    folder = registry.rename(registry.with_name("my recordings"))
    for verdict in (corpus.check(program, folder) for program in corpus.programs()):
        command = shlex.split(re.search("`(.*)`", verdict.why)[1])
        assert str(folder) in command


def test_a_folder_without_any_recording_is_refused(registry, capsys):
    assert cli.main(["corpus", "check", str(registry)]) == 0
    assert cli.main(["corpus", "check", str(registry / "development")]) == 1
    assert "has none of these recordings: give the folder" in capsys.readouterr().err


def test_the_same_run_at_another_time_is_equal_and_another_run_differs(registry):
    path = registry / "development" / "redis.trace"
    corpus.register(registry)
    before = json.loads((path / "trace.json").read_text())
    make_trace(
        path, overwrite=True, provenance=before["provenance"], created="2030-01-01T00:00:00Z"
    )
    assert states(registry)["redis"] == "equal"
    record_fake(path, seed=1)
    verdict = corpus.check(corpus.programs()[0], registry)
    assert (verdict.state, verdict.why) == ("differs", "the versions are the same")
    record_fake(path, seed=1, qemu="8.0")
    assert "other versions" in corpus.check(corpus.programs()[0], registry).why


def test_one_changed_byte_differs(registry):
    path = registry / "development" / "redis.trace"
    before = corpus.content_digest(path)
    table = path / "rounds.parquet"
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(data)
    assert corpus.content_digest(path) != before


def test_what_is_whole_is_not_recorded_again(registry, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "pmlkit.sources.recorder.record.record", lambda *args: calls.append(args) or "trace"
    )
    redis, xz = corpus.programs()
    assert corpus.record(redis, registry) is None and not calls
    assert corpus.record(xz, registry) == "trace"
    recorded, path, options, _ = calls[0]
    assert path == registry / "held-out" / "xz.trace"
    assert options.window == "25ms" and options.icount
    assert recorded.parameters["seed"].default == 2 and recorded.parameters["seconds"].default == 2


def test_what_there_is_not_is_said(registry, tmp_path):
    with pytest.raises(UnknownName, match="program of the corpus"):
        corpus.programs(["nothing"])
    with pytest.raises(UnknownName, match="half"):
        corpus.programs(half="third")
    with pytest.raises(PmlkitError, match="no recording of the half held-out"):
        corpus.traces(registry, "held-out")
    corpus.REGISTRY.write_text("name,half\nredis,development\n")
    with pytest.raises(PmlkitError, match="cannot be read as the corpus"):
        corpus.programs()


def test_a_pattern_to_keep_wins_over_what_guests_go_without():
    drop = image._drop(["usr/lib/*"], ["usr/bin/perl*", "usr/lib/one"])
    assert [drop(path) for path in ("usr/bin/perl5", "usr/lib/one", "usr/lib/two")] == [0, 0, 1]
    assert image._drop([])("usr/bin/perl5")


def test_preparations_and_the_release_are_of_a_workload(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "workload.yaml").write_text("command: x\nprepare: y z\nrelease: trixie\n")
    mine = workload.load(folder)
    assert (mine.prepare, mine.release) == ("y z", "trixie")
    assert "export PMLKIT_PREPARE='y z'\n" in image._shell_variables(mine)
    (folder / "workload.yaml").write_text("command: x\nrelease: ../x\n")
    with pytest.raises(PmlkitError, match="not a release of Debian"):
        workload.load(folder)


BUNDLED = ROOT / "data" / "corpus"


def test_the_bundled_recording_is_the_registered_one():
    (program,) = corpus.programs(["sqlite"], corpus.DEVELOPMENT)
    assert corpus.check(program, BUNDLED).state == "equal"


@pytest.mark.parametrize("window_s", [1, 5])
def test_w_of_the_bundled_recording_is_what_brute_force_counts(window_s):
    """W(t, T): the distinct frames of the rounds that end in (t - T, t]; here of 20 s."""
    folder = BUNDLED / corpus.DEVELOPMENT / "sqlite.trace"
    ends = pq.read_table(folder / "rounds.parquet")["t_end_ns"].to_numpy()
    entries = pq.read_table(folder / "entries", columns=["round", "gfn"])
    ends, frames = ends[entries["round"].to_numpy()], entries["gfn"].to_numpy()
    window_ns = window_s * 10**9

    def count(t_ns):
        return len(set(frames[(t_ns - window_ns < ends) & (ends <= t_ns)].tolist()))

    table = workingset.estimate(folder, f"{window_s}s", start="40s", end="60s")
    full = table[table["full"]]
    assert len(full) == 20 // window_s
    assert full["pages"].tolist() == [count(t_ns) for t_ns in full["t_ns"]]
