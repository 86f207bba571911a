# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import subprocess

import pytest

from pmlkit import recordings
from pmlkit.errors import NotATrace, OutputError, PmlkitError

META = {
    "created": "2026-01-02T03:04:05+00:00",
    "provenance": {
        "command": "pmlkit record hotcold -o data/h.trace",
        "versions": {"qemu": "7.2.22", "linux": "6.1"},
    },
}


@pytest.fixture
def data(tmp_path):
    """A folder with two recordings, as far as a manifest sees them."""
    for name in ("h", "other"):
        (tmp_path / f"{name}.trace" / "entries").mkdir(parents=True)
        (tmp_path / f"{name}.trace" / "trace.json").write_text(json.dumps(META))
        (tmp_path / f"{name}.trace" / "entries" / "part-00000.parquet").write_bytes(b"PAR1 x PAR1")
    recordings.write(tmp_path)
    return tmp_path


def test_what_was_written_is_read_back(data):
    read = recordings.read(data)
    assert len(read.sha256) == 4
    assert read.commands["h.trace"] == "pmlkit record hotcold -o data/h.trace"
    assert recordings.problems(data) == []


def test_writing_twice_gives_the_same_bytes(data):
    before = (data / "MANIFEST").read_bytes()
    recordings.write(data)
    assert (data / "MANIFEST").read_bytes() == before


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_sha256sum_understands_it(data):
    command = ["sha256sum", "--strict", "-c", "MANIFEST"]
    assert subprocess.run(command, cwd=data, capture_output=True).returncode == 0
    (data / "h.trace" / "trace.json").write_text("{}")
    assert subprocess.run(command, cwd=data, capture_output=True).returncode == 1


def test_each_kind_of_difference_is_named(data):
    (data / "h.trace" / "trace.json").write_text("{}")
    (data / "h.trace" / "new.parquet").write_bytes(b"")
    (data / "other.trace" / "trace.json").unlink()
    assert recordings.problems(data) == [
        "other.trace/trace.json is missing",
        "h.trace/new.parquet is not in the MANIFEST",
        "h.trace/trace.json has changed",
    ]


def test_no_manifest_is_refused(tmp_path):
    with pytest.raises(PmlkitError, match="cannot be read"):
        recordings.read(tmp_path)


def test_a_damaged_line_is_refused_by_its_number(data):
    text = (data / "MANIFEST").read_text()
    (data / "MANIFEST").write_text(text + "deadbeef  h.trace/trace.json\n")
    with pytest.raises(
        PmlkitError, match=f"line {len(text.splitlines()) + 1} of .* is not a checksum"
    ):
        recordings.problems(data)


def test_what_is_no_trace_gets_no_manifest(data):
    (data / "notes.txt").write_text("stray")
    with pytest.raises(NotATrace, match="notes.txt"):
        recordings.write(data)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(OutputError):
        recordings.write(tmp_path / "nowhere")


def test_tables_are_described_by_a_file_of_their_own(data):
    (data / "tables").mkdir()
    (data / "tables" / "errors.csv").write_text("a,b\n")
    with pytest.raises(NotATrace, match=r"no trace\.json and no made\.json"):
        recordings.write(data)
    (data / "tables" / "made.json").write_text(json.dumps(META))
    recordings.write(data)
    assert recordings.read(data).commands["tables"] == "pmlkit record hotcold -o data/h.trace"
    assert recordings.problems(data) == []
