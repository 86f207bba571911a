# SPDX-License-Identifier: Apache-2.0
"""trace.json is held against one schema, field by field; what a stranger sealed is no exception."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_meta, make_trace, reseal
from hypothesis import given, settings
from hypothesis import strategies as st
from resealed_traces import tables, use_with_description, use_with_table

from pmlkit import cli
from pmlkit.errors import NotATrace, PmlkitError, TraceDamaged, TraceVersionError, UsageError
from pmlkit.trace import consistency, manifest
from pmlkit.trace.description import DESCRIPTION, LIMIT_VALUES, foreign_json, values_fault
from pmlkit.trace.parquet import to_table
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import ENTRIES, REGIONS, ROUNDS, TraceMeta

PART = "entries/part-00000.parquet"


@pytest.fixture
def path(tmp_path):
    regions, phases = [("buf", 1, 3)], [("a", 0), ("b", 1)]
    return make_trace(
        tmp_path / "x.trace", 3, pages=16, guest=True, regions=regions, phases=phases, pml=False
    )


def refused(path, words, file="trace.json"):
    with pytest.raises(TraceDamaged) as caught:
        Trace.open(path).check()
    assert caught.value.file == file
    assert words in str(caught.value), str(caught.value)
    assert str(caught.value).isprintable()


def with_field(path, where, value):
    """Seal the trace anew with a field changed: names and numbers on the way to it."""
    document = manifest.load(path)
    for key in ("format", "version"):
        document.pop(key)
    *way, last = where
    place = document
    for key in way:
        place = place[key]
    place[last] = value
    (path / "trace.json").write_bytes(manifest.encode(document))


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("phases", 0, "round"), "x", "phases[0].round is 'x': it must be a whole number"),
        (("phases", 0, "round"), -1, "phases[0].round is -1"),
        (("phases", 1, "round"), 1.5, "phases[1].round is 1.5"),
        (("phases", 1, "round"), 1.0, "phases[1].round is 1.0"),
        (("phases", 1, "round"), 4, "phases[1].round is 4, and the trace has 3 rounds"),
        (("phases", 1, "round"), 2**63 - 1, "phases[1].round is 9223372036854775807"),
        (("phases", 0, "round"), 2, "phases[1].round is 1, and the previous one has 2"),
        (("phases", 0, "t_ns"), None, "phases[0].t_ns is None"),
        (("phases", 0, "insn"), "x", "phases[0].insn is 'x'"),
        (("phases", 0, "name"), 7, "phases[0].name is 7: it must be text"),
        (("phases",), {}, "phases is {}: it must be a list"),
        (("phases",), [3], "phases[0] is 3: it must be a mapping"),
        (("known",), [{}], "known[0].phase is None"),
        (
            ("known",),
            [{"phase": "a", "region": "r", "kind": "written", "pages": "x"}],
            "known[0].pages is 'x'",
        ),
        (
            ("known",),
            [{"phase": "a", "region": "r", "kind": "written", "pages": 4097}],
            "known[0].pages is 4097: it must be at most the memory's 4096",
        ),
        (
            ("known",),
            [{"phase": "a", "region": "r", "kind": "eaten", "pages": 1}],
            "known[0].kind is 'eaten': it must be read or written or touched",
        ),
        (("options",), [], "options is []"),
        (("options", "sampled_one_in"), 0, "options.sampled_one_in is 0"),
        (("options", "composed"), {"program": 3}, "options.composed.program is 3"),
        (("overheads",), None, "overheads is None"),
        (("overheads", "tsc_khz"), "x", "overheads.tsc_khz is 'x'"),
        (("overheads", "rounds"), [{"walk_tsc": []}], "overheads.rounds[0].walk_tsc is []"),
        (("notes",), "x", "notes is 'x'"),
        (("notes",), [None], "notes[0] is None"),
        (("provenance", "versions"), [], "provenance.versions is []"),
        (("clock", "ns_per_insn"), -1, "clock.ns_per_insn is -1"),
        (
            ("clock", "ns_per_insn"),
            0,
            "ns_per_insn is 0: it must be a number, 0.001 to 1e+09",
        ),
        (("clock", "ns_per_insn"), 1e300, "clock.ns_per_insn is 1e+300"),
        (("clock", "ns_per_insn"), 1e-300, "clock.ns_per_insn is 1e-300"),
        (("clock", "ns_per_insn"), [], "clock.ns_per_insn is []"),
        (("clock", "base_ns"), "x", "clock.base_ns is 'x'"),
        (("clock",), 3, "clock is 3"),
        (("period", "ns"), 0, "period.ns is 0"),
        (("memory_map", 0, "start"), -1, "memory_map[0].start is -1"),
        (("memory_map", 0, "end"), "x", "memory_map[0].end is 'x'"),
        (("memory_map", 0, "start"), 1 << 40, "it must be at most its end"),
        (("domain", "memory_bytes"), 4095, "domain.memory_bytes is 4095"),
        (("domain", "memory_bytes"), True, "domain.memory_bytes is True"),
        (("domain", "vcpus"), -3, "domain.vcpus is -3"),
        (("domain", "address"), "x", "domain.address is 'x': it must be guest-physical or"),
        (("losses",), "none", "losses is 'none': it must be counted or not counted"),
        (("complete",), 1, "complete is 1: it must be True or False or None"),
        (("complete",), "yes", "complete is 'yes'"),
        (("created",), "soon", "created is 'soon'"),
        (("lost",), -1, "lost is -1"),
        (("entries",), 1.5, "states entries 1.5"),
        (("kind",), "x", "kind is 'x': it must be access or pml"),
        (("source",), "", "source is ''"),
        (("files",), [], "does not list the files"),
        (("files", PART, "bytes"), "x", f"files.{PART}.bytes is 'x'"),
        (("files", PART, "bytes"), True, f"files.{PART}.bytes is True"),
        (("files", PART, "blake2b"), None, f"files.{PART}.blake2b is None"),
        (("files", PART, "blake2b"), "AB", "it must be a digest"),
        (("files", PART, "rows"), "x", f"files.{PART}.rows is 'x'"),
        (("files", PART, "rows"), -1, f"files.{PART}.rows is -1"),
        (("files", PART, "rows"), 0, f"files.{PART}.rounds is [0, 2]: it must be null"),
        (("files", PART, "rounds"), [2, 0], f"files.{PART}.rounds is [2, 0]"),
        (("files", PART, "rounds"), None, f"files.{PART}.rounds is None"),
        (("files", PART), 5, f"files.{PART} is 5: it must be a mapping"),
    ],
)
def test_a_sealed_field_that_is_wrong_is_named(path, where, value, words):
    with_field(path, where, value)
    refused(path, words)


@pytest.mark.parametrize("name", ["rows", "rounds"])
def test_a_seal_without_its_counts(path, name):
    files = copy.deepcopy(manifest.load(path)["files"])
    del files[PART][name]
    reseal(path, files=files)
    refused(path, f"files.{PART}.{name} is None")


def test_parts_are_counted(path):
    files = manifest.load(path)["files"]
    reseal(path, files=files | {"entries/part-00002.parquet": files[PART]})
    refused(path, "part 1: the parts are counted from 0")


def test_the_agreed_additions_are_taken(path):
    with_field(path, ("complete",), None)
    with_field(path, ("losses",), "not counted")
    with_field(path, ("clock", "base_ns"), 1_700_000_000_000_000_000)
    with_field(path, ("domain", "address"), "virtual")
    assert Trace.open(path).check()


@pytest.mark.parametrize("version", [True, 1.0, "1", None, 2])
def test_a_version_is_a_whole_number(path, version):
    with_field(path, ("version",), version)
    with pytest.raises(TraceVersionError):
        Trace.open(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"x": 1e400', "x is inf: it must be a finite number"),
        ('"x": {"y": [1, NaN]}', "x.y[1] is nan: it must be a finite number"),
        ('"x": [-Infinity]', "x[0] is -inf"),
        (r'"x": "\ud800"', "x is '?': it must be text that can be written as UTF-8"),
        (r'"x": {"\udfff": 1}', "a name in .x is"),
        ('"x": 1, "x": 2', "contains 'x' twice"),
        ('"x": ' + "[" * 40 + "]" * 40, "nested at most 32 deep"),
        ('"x": ' + "[" * 10**6, "trace.json is nested more than 32 deep"),
        ('"x": ' + "9" * 5000, "limit (4300 digits)"),
        ('"x": ' + "9" * 50, "of 64 bits"),
        ('"x": [' + "[]," * (1 << 20) + "1]", "values, and at most 1,048,576 are read"),
        ('"x": ', "is not valid JSON (line 1: "),
        ('"x": "' + "y" * (17 << 20) + '"', "is too large (at most 16,777,216 bytes are read)"),
    ],
)
def test_json_that_no_one_could_use_is_refused_in_one_line(path, text, words):
    head = '{"format": "pmlkit-trace", "version": 1, '
    (path / "trace.json").write_text(f'{head}{text}, "digest": "0"}}')
    with pytest.raises(TraceDamaged) as caught:
        Trace.open(path)
    message = str(caught.value).replace("\\ud800", "?")
    assert words in message, message
    assert caught.value.file == "trace.json"
    assert len(message) < 600


def test_json_of_others_in_a_folder_that_is_no_trace(tmp_path):
    for text in ("[" * 10**6, "{", '{"traceEvents": []}'):
        (tmp_path / "trace.json").write_text(text)
        with pytest.raises(NotATrace):
            Trace.open(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(document=JSON)
def test_any_document_is_taken_or_refused_by_every_rule(document):
    values_fault(document)
    fault = DESCRIPTION(document)
    assert fault is None or str(fault)
    text = json.dumps(document)
    with_counts = sum(text.count(sign) for sign in ",[{")
    if with_counts <= LIMIT_VALUES:
        foreign_json(text.encode())


def test_whoever_writes_is_held_against_the_same_schema():
    for fields, words in (
        ({"phases": [{"name": "a", "round": "x", "t_ns": 0, "insn": 0}]}, r"phases\[0\].round"),
        ({"known": [{"phase": "a", "region": "b", "kind": "written"}]}, r"known\[0\].pages"),
        ({"notes": [3]}, r"notes\[0\]"),
    ):
        with pytest.raises(UsageError, match=words):
            make_meta(**fields)
    assert TraceMeta.from_json(make_meta().to_json()) == make_meta()


# Parquet


def seal_table(path, name, table, **options):
    """Replace a file by one that Arrow writes as it is told, and seal the trace anew."""
    import hashlib

    (path / name).unlink()
    pq.write_table(table, path / name, **options)
    data = (path / name).read_bytes()
    files = manifest.load(path)["files"]
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    files[name] |= {"bytes": len(data), "blake2b": digest}
    reseal(path, files=files)


def test_entries_without_statistics_or_rows(path):
    table = Trace.open(path).entries()
    seal_table(path, PART, table, write_statistics=False)
    refused(path, "does not state the rounds of its row group 0", PART)
    seal_table(path, PART, ENTRIES.empty_table())
    refused(path, f"has 0 rows instead of {len(table)}", PART)


def test_entries_of_other_rounds_than_the_manifest_says(path):
    table = Trace.open(path).entries()
    rounds = pa.array([2] * len(table), pa.uint32())
    seal_table(path, PART, table.set_column(0, ENTRIES.field("round"), rounds))
    refused(path, "has rounds 2 to 2, not [0, 2]", PART)


def constant(schema, rows):
    columns = [pa.repeat(pa.scalar(0, field.type), rows) for field in schema]
    return pa.table(columns, schema=schema)


@pytest.mark.parametrize(
    ("name", "schema", "rows", "words"),
    [
        (PART, ENTRIES, (1 << 22) + 1, "4,194,305 rows"),
        ("rounds.parquet", ROUNDS, 3_000_000, "would unpack to 263 MiB, and at most 128 are read"),
    ],
)
def test_a_file_that_would_unpack_to_too_much(path, name, schema, rows, words):
    # Nothing is unpacked to find that out.
    seal_table(path, name, constant(schema, rows), row_group_size=rows, compression="zstd")
    before = pa.default_memory_pool().bytes_allocated()
    pa.default_memory_pool().release_unused()
    refused(path, words, name)
    assert pa.default_memory_pool().bytes_allocated() <= before + (1 << 20)


def test_a_text_that_stands_for_many(path):
    names = pa.array(["x" * 100_000] * 1000)
    table = pa.table([names, pa.repeat(1, 1000), pa.repeat(1, 1000)], names=REGIONS.names)
    seal_table(path, "regions.parquet", table.cast(REGIONS))
    refused(path, "has a name of 100,000 bytes, and at most 4,096 are read", "regions.parquet")


def test_a_text_that_is_no_utf8(path):
    names = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    table = pa.table([names, pa.array([1]), pa.array([1])], names=REGIONS.names)
    seal_table(path, "regions.parquet", table.cast(REGIONS))
    refused(path, "cannot be read as Parquet", "regions.parquet")


@pytest.mark.parametrize(
    ("gfn", "pages", "words"),
    [
        (0, 1 << 62, "region 0 has 4611686018427387904 pages, and the memory 4096"),
        (1 << 63, 4097, "region 0 has 4097 pages"),
        ((1 << 64) - 1, 10, "region 0 ends beyond the last address"),
    ],
)
def test_regions_larger_than_the_memory(path, tmp_path, gfn, pages, words):
    rows = [{"name": "buf", "gfn": gfn, "pages": pages}]
    reseal(path, {"regions.parquet": to_table("regions", rows)})
    refused(path, words, "regions.parquet")
    with pytest.raises(UsageError, match=words):
        make_trace(tmp_path / "new.trace", 1, regions=[("buf", gfn, pages)])


@pytest.mark.parametrize("round_", [3, 4])
def test_a_batch_of_the_round_after_the_last_is_refused(path, round_):
    batches = Trace.open(path).table("batches")
    changed = batches.column("round").to_pylist()[:-1] + [round_]
    table = batches.set_column(1, batches.field(1), pa.array(changed, pa.uint32()))
    assert "belongs to a round that does not exist (of 3)" in consistency.batches_fault(table, 3)
    assert consistency.batches_fault(table, round_ + 1) is None
    reseal(path, {"batches.parquet": table})
    with pytest.raises(TraceDamaged, match=r"batches\.parquet is wrong: .* \(of 3\)"):
        _ = Trace.open(path).batches


# Files that are none


@pytest.mark.parametrize("name", ["trace.json", "rounds.parquet", PART])
@pytest.mark.parametrize("kind", ["fifo", "device", "out", "folder"])
def test_a_file_of_a_trace_is_a_regular_file_in_it(path, tmp_path, name, kind):
    data = (path / name).read_bytes()
    (path / name).unlink()
    if kind == "fifo":
        os.mkfifo(path / name)
    elif kind == "folder":
        (path / name).mkdir()
    elif kind == "device":
        (path / name).symlink_to("/dev/zero")
    else:
        (tmp_path / "elsewhere").write_bytes(data)
        (path / name).symlink_to(tmp_path / "elsewhere")
    words = {"fifo": "it is a FIFO", "folder": "it is a folder"}.get(kind, "leads out of the trace")
    with pytest.raises(PmlkitError, match=words) as caught:
        Trace.open(path)
    assert name in str(caught.value)


def test_a_link_within_the_trace_is_fine(path):
    (path / "rounds.parquet").rename(path / "r")
    (path / "rounds.parquet").symlink_to("r")
    assert Trace.open(path).n_rounds == 3


def test_a_path_that_is_no_utf8(path):
    other = os.path.join(path.parent, os.fsdecode(b"\xff\xfe.trace"))
    os.rename(path, other)
    assert Trace.open(other).check()
    assert len(Trace.open(other).entries()) > 0


# By chance


@given(data=st.data())
@settings(max_examples=40)
def test_a_mutated_description_is_taken_or_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    document = json.loads((make_trace(folder / "a.trace", 3, pages=16) / "trace.json").read_text())
    place, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        names = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(names))
    place[key] = data.draw(JSON)
    try:
        use_with_description(json.dumps(document).encode(), folder)
    except PmlkitError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(
    number=st.integers(0, 4), place=st.integers(0), bit=st.integers(0, 7), cut=st.integers(0, 40)
)
@settings(max_examples=40)
def test_a_mutated_table_is_taken_or_refused(number, place, bit, cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    data = bytearray(tables(folder)[number])
    place = 1 + place % (len(data) - 1)
    data[place] ^= 1 << bit
    del data[place + 1 : place + 1 + max(cut - 20, 0)]
    try:
        use_with_table(bytes(data), folder)
    except PmlkitError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_hostile_trace_takes_little_memory(path):
    """A row group of 16 million rows, in a process of its own; 512 MiB are promised."""
    seal_table(path, PART, constant(ENTRIES, 1 << 24), row_group_size=1 << 24, compression="zstd")
    code = (
        "import sys; from pmlkit.cli.app import main; code = main(['info', sys.argv[1]]);"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert int(done.stdout) < 512 << 10


def test_what_a_trace_says_does_not_command_the_terminal(tmp_path, capsys):
    evil = "a\x1b]0;owned\x07\x9b31mb"
    path = make_trace(tmp_path / "x.trace", 2, regions=[(evil, 1, 3)], phases=[(evil, 0)])
    reseal(path, notes=[evil], domain={"name": evil, "memory_bytes": 16 << 20})
    assert cli.main(["info", str(path)]) == 0
    output = capsys.readouterr().out
    assert "owned" in output
    assert not set("\x1b\x07\x9b") & set(output)


def test_a_long_column_of_one_number_is_held_in_little_memory(path):
    table = constant(ROUNDS, 1_000_000)
    numbers = pa.array(np.arange(1_000_000, dtype=np.uint32))
    table = table.set_column(0, ROUNDS.field("round"), numbers)
    seal_table(path, "rounds.parquet", table)
    read = Trace.open(path).table("rounds")
    assert read.equals(table) and read.to_pandas().equals(table.to_pandas())
    before = pa.default_memory_pool().bytes_allocated()
    read = Trace.open(path).table("rounds")
    assert pa.default_memory_pool().bytes_allocated() - before < 16 << 20
