# SPDX-License-Identifier: Apache-2.0
"""A trace that is damaged, foreign or of another version is refused by name, never half read."""

import contextlib
import json
import os
import random

import pytest
from factories import make_trace, reseal

from pmlkit.errors import NotATrace, PmlkitError, TraceDamaged, TraceNotFound, TraceVersionError
from pmlkit.trace.reader import Trace

EVENTS = [[(1, 1), (2, 2), (3, 2)], [(2, 1), (9, 2), (9, 4)]]


@pytest.fixture
def path(tmp_path):
    regions = [("buf", 1, 3)]
    return make_trace(tmp_path / "x.trace", events=EVENTS, guest=True, regions=regions)


def use(path, name, trace=None):
    """Read what the file of this name holds, as little as possible of the rest."""
    trace = trace or Trace.open(path)
    if name.startswith("entries/"):
        trace.entries(["round"])
    elif name.startswith("pml.trace/"):
        trace.pml.check()
    elif name != "trace.json":
        trace.table(name.removesuffix(".parquet"))


def refusal(path, action, *args):
    """Do something that has to be refused in one line that names the trace; give the error."""
    with pytest.raises(PmlkitError) as caught:
        action(*args)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)
    return caught.value


def flip(file, place, bit):
    """Flip a bit of a file, in place."""
    with open(file, "r+b") as stream:
        stream.seek(place)
        (byte,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ 1 << bit]))


@contextlib.contextmanager
def flipped(file, place, bit):
    """The same for a while."""
    flip(file, place, bit)
    yield
    flip(file, place, bit)


def size_of(path, name):
    return (path / name).stat().st_size


def own_files(path):
    return ["trace.json", *Trace.open(path).files]


def all_files(path):
    return [f.relative_to(path).as_posix() for f in sorted(path.rglob("*")) if f.is_file()]


def test_the_trace_of_these_tests_is_whole(path):
    assert len(all_files(path)) == 11
    for name in all_files(path):
        use(path, name)
    Trace.open(path).check()


def assert_damaged(path, name, error):
    # A flip within the version number reads as another version: refused all the same.
    assert isinstance(error, TraceDamaged if name != "trace.json" else PmlkitError)
    if isinstance(error, TraceDamaged):
        assert error.path == str(path)
        assert error.file == name


def test_a_flipped_bit_at_every_byte_of_every_file(path):
    rng = random.Random(0)
    for name in own_files(path):
        trace = None if name == "trace.json" else Trace.open(path)
        for place in range(size_of(path, name)):
            with flipped(path / name, place, rng.randrange(8)):
                assert_damaged(path, name, refusal(path, use, path, name, trace))
        use(path, name, trace)


def test_every_bit_of_the_description(path):
    kinds = set()
    for place in range(size_of(path, "trace.json")):
        for bit in range(8):
            with flipped(path / "trace.json", place, bit):
                kinds.add(type(refusal(path, Trace.open, path)))
    assert kinds == {TraceDamaged, TraceVersionError}


def test_a_flipped_bit_anywhere_is_found_by_check(path):
    rng = random.Random(1)
    for name in all_files(path):
        for _ in range(6):
            with flipped(path / name, rng.randrange(size_of(path, name)), rng.randrange(8)):
                error = refusal(path, lambda: Trace.open(path).check())
            if isinstance(error, TraceDamaged):
                assert name.endswith(error.file)


def test_a_flipped_bit_in_a_large_file(tmp_path):
    path = make_trace(tmp_path / "x", rounds=60, pages=4000, row_group_rows=1000, pml=False)
    rng = random.Random(2)
    for name in ("entries/part-00000.parquet", "entries/part-00003.parquet"):
        for _ in range(25):
            with flipped(path / name, rng.randrange(size_of(path, name)), rng.randrange(8)):
                assert_damaged(path, name, refusal(path, use, path, name))


def test_damage_elsewhere_does_not_matter_until_it_is_read(tmp_path):
    path = make_trace(tmp_path / "x", rounds=60, pages=400, row_group_rows=200, pml=False)
    flip(path / "entries" / "part-00001.parquet", 100, 0)
    trace = Trace.open(path)
    assert len(trace.entries(end_ns=10_000_000)) > 0
    with pytest.raises(TraceDamaged, match="part-00001"):
        trace.entries()


def test_truncation_at_every_byte_of_the_description(path):
    for size in reversed(range(size_of(path, "trace.json"))):
        os.truncate(path / "trace.json", size)
        assert_damaged(path, "trace.json", refusal(path, Trace.open, path))


def test_truncated_and_lengthened_files_are_refused_at_open(path):
    for name in own_files(path)[1:]:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data + b"\n")
        assert "too long" in refusal(path, Trace.open, path).why
        for size in [len(data) - 1, *range(len(data) - 2, 7, -13), 7, 4, 1, 0]:
            os.truncate(path / name, size)
            error = refusal(path, Trace.open, path)
            assert_damaged(path, name, error)
            assert f"({size} of {len(data)} bytes" in error.why
        (path / name).write_bytes(data)


def test_missing_files(path):
    for name in own_files(path):
        data = (path / name).read_bytes()
        (path / name).unlink()
        error = refusal(path, Trace.open, path)
        assert (type(error), error.file) == (TraceDamaged, name)
        assert "is missing" in str(error)
        (path / name).write_bytes(data)


def test_a_file_that_goes_away_after_opening(path):
    trace = Trace.open(path)
    for name in ("rounds.parquet", "entries/part-00000.parquet"):
        (path / name).unlink()
    with pytest.raises(TraceDamaged, match=r"rounds\.parquet is missing"):
        _ = trace.rounds
    trace = Trace.open(make_trace(path.with_name("y.trace")))
    (trace.path / "entries/part-00000.parquet").unlink()
    with pytest.raises(TraceDamaged, match=r"part-00000\.parquet is missing"):
        trace.entries()


def test_a_file_that_changes_after_it_was_checked(path):
    trace = Trace.open(path)
    trace.entries()
    (path / "entries/part-00000.parquet").write_bytes(b"PAR1" * 300)
    with pytest.raises(TraceDamaged, match="cannot be read as Parquet") as caught:
        trace.entries()
    assert str(caught.value).isprintable()


def test_files_of_another_trace(path, tmp_path):
    other = make_trace(tmp_path / "y.trace", events=[EVENTS[1], EVENTS[0]], guest=True)
    for name in own_files(path)[1:]:
        data = (path / name).read_bytes()
        content = (other / name).read_bytes()
        (path / name).write_bytes(content)
        if content != data:
            assert_damaged(path, name, refusal(path, use, path, name))
        (path / name).write_bytes(data)


def test_paths_that_are_nothing(tmp_path):
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    for path in (tmp_path / "no.trace", dangling, "x" * 5000, "a\0b"):
        with pytest.raises(TraceNotFound, match="there is no trace at") as caught:
            Trace.open(path)
        assert caught.value.path == str(path)


def test_foreign_folders_and_files(tmp_path):
    assert "no trace.json" in refusal(tmp_path, Trace.open, tmp_path).why
    for content in ("{}", "[]", "null", '{"traceEvents": []}', "what?", "", '{"format": "other"}'):
        (tmp_path / "trace.json").write_text(content)
        assert isinstance(refusal(tmp_path, Trace.open, tmp_path), NotATrace)
    (tmp_path / "file.csv").write_text("a,b")
    assert "a trace is a folder" in refusal("file.csv", Trace.open, tmp_path / "file.csv").why


def test_a_file_of_the_trace_in_place_of_its_folder(path):
    for name in ("rounds.parquet", "entries/part-00000.parquet", "trace.json"):
        error = refusal(path / name, Trace.open, path / name)
        assert isinstance(error, NotATrace)
        assert error.hint == f"give the folder {path}"


def test_a_spool_in_place_of_a_trace(tmp_path):
    (tmp_path / "x.spool").write_bytes(b"PMLSPOOL")
    assert "pmlkit ingest" in refusal("x.spool", Trace.open, tmp_path / "x.spool").hint


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.5, True])
def test_another_version(path, version):
    document = json.loads((path / "trace.json").read_text())
    document["version"] = version
    # Whoever wrote it may seal it in another way.
    for stated in (document["digest"], "another", None):
        (path / "trace.json").write_text(json.dumps({**document, "digest": stated}))
        error = refusal(path, Trace.open, path)
        assert isinstance(error, TraceVersionError)


def test_an_edited_description(path):
    text = (path / "trace.json").read_text()
    for edited in (
        text.replace('"lost": 0', '"lost": 5'),
        text.replace("  ", "   ", 1),
        text + "\n",
        text.replace('"complete": true', '"complete": NaN'),
        "[" * 100_000,
    ):
        assert edited != text
        (path / "trace.json").write_text(edited)
        assert_damaged(path, "trace.json", refusal(path, Trace.open, path))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": None},
        {"files": {"rounds.parquet": {"bytes": 1, "blake2b": ""}}},
        {"domain": {"memory_bytes": -1}},
        {"domain": "large"},
        {"kind": "other"},
        {"phases": [{"name": "a"}]},
        {"phases": 5},
        {"created": "yesterday"},
        {"period": {"ns": "long"}},
    ],
)
def test_a_description_that_is_sealed_but_makes_no_sense(path, changes):
    reseal(path, **changes)
    assert_damaged(path, "trace.json", refusal(path, Trace.open, path))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "notes.txt", "pml.trace/x"])
def test_files_outside_the_trace_are_not_opened(path, name):
    files = Trace.open(path).files
    reseal(path, files={**files, name: {"bytes": 1, "blake2b": ""}})
    assert "does not list" in refusal(path, Trace.open, path).why


def test_folders_in_place_of_files(path):
    for name in ("rounds.parquet", "trace.json"):
        (path / name).rename(path / "old")
        (path / name).mkdir()
        refusal(path, use, path, name)
        (path / name).rmdir()
        (path / "old").rename(path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(path):
    (path / "rounds.parquet").chmod(0)
    assert "check its permissions" in str(refusal(path, use, path, "rounds.parquet"))


def test_a_disk_that_does_not_read(path, monkeypatch):
    def fail(handle, mode):
        raise OSError(5, "Input/output error")

    trace = Trace.open(path)
    monkeypatch.setattr("os.fdopen", fail)
    assert "Input/output error" in str(refusal(path, trace.table, "rounds"))
    assert "Input/output error" in str(refusal(path, Trace.open, path))


def test_a_recording_that_was_killed_leads_to_ingest(tmp_path):
    spool = tmp_path / "x.trace.spool"
    spool.mkdir()
    with pytest.raises(TraceNotFound, match=f"pmlkit ingest {spool} -o {tmp_path}/x.trace"):
        Trace.open(tmp_path / "x.trace")
    with pytest.raises(NotATrace, match=f"pmlkit ingest {spool} -o NAME.trace"):
        Trace.open(spool)
