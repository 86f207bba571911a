# SPDX-License-Identifier: Apache-2.0
"""A dom0 that is not ours: what it sends is kept, counted, and never runs a terminal."""

import os
import signal
import struct
import subprocess
import sys
import time

import pytest
from factories import peak_kb
from rich.text import Text
from spool_fuzz import SPOOL_HEADER, good_frames, sealed
from waiting import HANG_S, until

from pmlkit import cli
from pmlkit.cli import console, live
from pmlkit.cli.sheets import make_table
from pmlkit.errors import PmlkitError
from pmlkit.sources.host.collection import CollectError, Collection, CollectOptions
from pmlkit.sources.host.launch import KeptLines
from pmlkit.sources.ingest import finish, ingest
from pmlkit.spool import SpoolWriter
from pmlkit.spool_reader import holds_frames, make_way, read_spool
from pmlkit.trace.reader import Trace
from pmlkit.xen import frames
from pmlkit.xen.frames import Frame

GOOD, _ = good_frames(3)
MEMORY_KB = 512 << 10


@pytest.fixture
def dom0(tmp_path, monkeypatch):
    """A function that makes an SSH client which plays some bytes, says others, and ends."""

    def make(data=b"", messages=b"", status=0):
        (tmp_path / "out").write_bytes(data)
        (tmp_path / "err").write_bytes(messages)
        script = tmp_path / "ssh"
        script.write_text(f"#!/bin/sh\ncat {tmp_path}/err >&2\ncat {tmp_path}/out\nexit {status}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PMLKIT_SSH", str(script))
        return Collection("web", tmp_path / "x.trace", CollectOptions(), "dom0")

    return make


def spool_of(tmp_path):
    return tmp_path / "x.trace.spool" / "frames.spool"


def test_a_whole_stream_becomes_a_trace_and_its_spool_goes(dom0, tmp_path):
    trace = dom0(sealed(SPOOL_HEADER, GOOD)).run()
    assert (trace.n_rounds, trace.meta.complete) == (3, True)
    assert not spool_of(tmp_path).parent.exists()


@pytest.mark.parametrize("wrong", [(77, b""), (Frame.ROUND, b"{"), (Frame.RECORDS, b"1")])
def test_what_came_before_a_frame_that_is_not_understood_is_kept(dom0, tmp_path, wrong):
    data = sealed(SPOOL_HEADER, [*GOOD[:-2], wrong, *GOOD[-2:]])
    heard = []
    run = dom0(data)
    run.heard = heard.append
    with pytest.raises(CollectError) as caught:
        run.run()
    assert len(run.seen) == run.trace.n_rounds == 3
    assert not run.trace.meta.complete
    assert (
        f"the collector on dom0 sent data that this pmlkit does not accept: frame {len(GOOD) - 2}, "
        in (str(caught.value))
    )
    assert "the spool is kept: after an update of pmlkit, `pmlkit ingest " in str(caught.value)
    assert "defect" not in str(caught.value)
    assert spool_of(tmp_path).read_bytes() == data
    assert "no rounds are shown from here on" in heard[0]


def test_a_stream_that_makes_no_trace_is_kept(dom0, tmp_path):
    data = sealed(SPOOL_HEADER, [(77, b"")])
    with pytest.raises(CollectError, match="frame 0, .* makes no trace, and is kept in "):
        dom0(data).run()
    assert spool_of(tmp_path).read_bytes() == data


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (SPOOL_HEADER | {"source": "recorder"}, "source is 'recorder', and must be 'xen'"),
        (SPOOL_HEADER | {"source": "lab"}, "source is 'lab', and must be 'xen'"),
        (SPOOL_HEADER | {"tsc_khz": "x"}, "tsc_khz is 'x'"),
        (SPOOL_HEADER | {"options": {"x": "y" * (1 << 20)}}, "has 1[0-9]* bytes"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_header_that_is_not_understood_is_said_in_words(dom0, tmp_path, header, says):
    data = sealed(header, GOOD)
    with pytest.raises(CollectError, match=says):
        dom0(data).run()
    assert spool_of(tmp_path).read_bytes() == data


def test_without_a_frame_nothing_stays(dom0, tmp_path):
    for data in (b"", b"PMLSPOOL", sealed(SPOOL_HEADER, [])):
        with pytest.raises(CollectError, match="nothing was collected of "):
            dom0(data, status=1).run()
        assert not spool_of(tmp_path).parent.exists()


# The terminal

ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b1m\u202e"


def is_shown(text):
    return not set(text) & set("\x1b\x07\x9b\u202e\r")


def test_what_the_agent_says_does_not_run_the_terminal(dom0, tmp_path, capfd):
    messages = f"agent: {ESCAPES}\r\nagent: error: \x1b[1mbad\x07\n".encode()
    dom0(messages=messages, status=1)
    call = ["collect", "web", "--host", "dom0", "-o", str(tmp_path / "x.trace")]
    assert cli.main(call) == 1
    err = capfd.readouterr().err
    assert is_shown(err)
    assert err.splitlines()[0].startswith(r"\x1b]0;owned\x07\x1b[31mred")
    assert err.splitlines()[1].endswith(r"nothing was collected of web: \x1b[1mbad\x07")


def test_a_table_and_a_bar_show_foreign_text_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    page = console.console()
    table = make_table(f"[red]{ESCAPES}")
    table.add_row(f"[link=file:///etc/passwd]{ESCAPES}")
    page.print(table)
    page.print(Text(f"bold {ESCAPES}", style="bold"))
    page.print(live._view(f"[blink]{ESCAPES}", []))
    out = capsys.readouterr().out
    assert "[red]" in out and "[blink]" in out and "[link=file:///etc/passwd]" in out
    assert out.count(r"\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b1m\u202e") == 3
    assert r"bold \x1b]0;owned" in out
    for own in ("\x1b[0m", "\x1b[1m", "\x1b[3m", "\x1b[1;3m"):  # the styles of the page itself
        out = out.replace(own, "")
    assert is_shown(out)


def test_a_trace_of_anybody_is_shown_without_its_control_characters(tmp_path, capsys):
    made = [*GOOD[:-2], (Frame.EVENT, frames.pack_json(what=ESCAPES)), GOOD[-1]]
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    header = SPOOL_HEADER | {"domain": {"name": ESCAPES, "memory_bytes": 64 << 20}}
    (folder / "frames.spool").write_bytes(sealed(header, made))
    for call in (
        ["ingest", str(folder), "-o", f"{tmp_path}/x.trace"],
        ["info", f"{tmp_path}/x.trace"],
    ):
        assert cli.main(call) == 0
        out, err = capsys.readouterr()
        assert is_shown(out + err)
        assert out.count(r"\x1b]0;owned\x07") == 2


# Floods


def test_a_flood_of_words_is_counted():
    kept = KeptLines()
    block = b"agent: again\n" * 5000
    fresh = sum((kept.take(block) for _ in range(600)), [])  # three millions
    assert len(fresh) == 50 and kept.count == 3_000_000
    assert kept.finish() == []
    kept.take(b"agent: error: the last")
    kept.finish()
    lines = kept.lines()
    assert len(lines) == 101 and lines[-1] == "the last"
    assert lines[50] == "... 2,999,901 more lines ..."
    endless = KeptLines()
    for _ in range(100):
        endless.take(bytes(1 << 16))
    assert len(endless.finish()[0]) <= 4 * (1 << 12)


@pytest.mark.parametrize("kind", [Frame.DIRTY, Frame.RECORDS, Frame.ROUND])
def test_a_frame_of_256_mib_is_refused_in_bounded_memory(dom0, tmp_path, kind):
    run = dom0()
    with SpoolWriter(tmp_path / "out.spool", SPOOL_HEADER) as writer:
        for each in GOOD[:-2]:
            writer.append(*each)
        writer.append(kind, frames.BITMAP_HEAD.pack(3, 1 << 31, 0) + b"\xff" * (1 << 28))
    (tmp_path / "out.spool").replace(tmp_path / "out")
    call = ["collect", "web", "--host", "dom0", "-o", str(run.out)]
    code, peak, messages = peak_kb(*call)
    assert code == 1 and peak < MEMORY_KB
    assert "none has more than" in messages[-1]
    assert ingest(spool_of(tmp_path).parent, tmp_path / "y.trace").n_rounds == 3


def test_a_length_of_4_gib_and_a_header_of_100_mb(dom0, tmp_path):
    data = sealed(SPOOL_HEADER, GOOD[:-2])[:-24] + struct.pack(
        "<4sHHII", b"PMLF", 4, 0, 9, 0xFFFFFFF0
    )
    with pytest.raises(CollectError, match="the part before it is in"):
        dom0(data + bytes(1000)).run()
    assert ingest(spool_of(tmp_path).parent, tmp_path / "y.trace").n_rounds == 3
    make_way(spool_of(tmp_path).parent)
    (tmp_path / "x.trace").rename(tmp_path / "z.trace")
    with pytest.raises(CollectError, match="its header has 104857600 bytes"):
        dom0(b"PMLSPOOL" + struct.pack("<II", 2, 100 << 20) + bytes(1000)).run()


def test_many_small_frames_take_little(tmp_path):
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    with SpoolWriter(folder / "frames.spool", SPOOL_HEADER) as writer:
        for each in GOOD[:-2]:
            writer.append(*each)
        for _ in range(100_000):
            writer.append(Frame.EVENT, frames.pack_json(what="again"))
        writer.append(*GOOD[-1])
    code, peak, _ = peak_kb("ingest", str(folder), "-o", str(tmp_path / "x.trace"))
    assert code == 0 and peak < MEMORY_KB
    import pmlkit

    notes = pmlkit.open(tmp_path / "x.trace").meta.notes
    assert (
        notes.count("again") == 100 and "99900 more events were omitted from these notes" in notes
    )


# Spools that stay


def test_an_older_spool_is_not_deleted_to_make_way(dom0, tmp_path):
    data = sealed(SPOOL_HEADER, [(77, b"")])
    for number in range(3):
        run = dom0(data)
        run.overwrite = True
        with pytest.raises(CollectError):
            run.run()
        kept = sorted(path.name for path in tmp_path.glob("*.spool"))
        assert kept == sorted(["x.trace.spool", *(f"x.trace-{n + 1}.spool" for n in range(number))])


def test_which_spools_hold_frames(tmp_path):
    path = tmp_path / "frames.spool"
    assert not holds_frames(path)
    for data, held in [
        (b"", False),
        (sealed(SPOOL_HEADER, []), False),
        (sealed(SPOOL_HEADER, [(77, b"")]), True),
        (sealed(b"no JSON", [(77, b"")]), True),
        (sealed(SPOOL_HEADER, GOOD)[:-30], True),
    ]:
        path.write_bytes(data)
        assert holds_frames(path) == held
    path.write_bytes(sealed(SPOOL_HEADER, [(64, b"")]))
    assert not holds_frames(path, frozenset({64}))


COMMAND = [sys.executable, "-m", "pmlkit", "collect", "guest", "--period", "20ms"]
KILLS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("number", range(10))
def test_a_collection_that_is_killed_leaves_what_came_and_no_agent(here, tmp_path, number):
    """At a moment after the first round; later ones later."""
    out, spool = tmp_path / "x.trace", spool_of(tmp_path)
    kill = KILLS[number % len(KILLS)]
    words = ["-o", str(out), "--state", str(here.folder / "run"), "--json"]
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until(lambda: rounds_in(spool) > number % 4)
    time.sleep(0.007 * number)
    agents = agents_of(process.pid)
    assert agents
    process.send_signal(kill)
    _, err = process.communicate(timeout=HANG_S)
    gone = lambda: not any(os.path.exists(f"/proc/{pid}") for pid in agents)  # noqa: E731
    until(gone, "the agent stays")
    if kill is signal.SIGKILL:
        assert not out.exists()
        assert holds_frames(spool)
        trace = ingest(spool.parent, out)
    else:
        assert process.returncode == 0, err
        import pmlkit

        trace = pmlkit.open(out)
    assert trace.n_rounds > number % 4
    trace.check()


def rounds_in(path):
    """Count the rounds of a spool that are whole."""
    try:
        with read_spool(path) as spool:
            return sum(kind == Frame.ROUND for kind, _ in spool)
    except PmlkitError:  # not even the header, as yet
        return 0


def agents_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def spooled(tmp_path, frames_of_it):
    spool = tmp_path / "y.trace.spool"
    spool.mkdir()
    (spool / "frames.spool").write_bytes(sealed(SPOOL_HEADER, frames_of_it))
    return spool


def test_a_spool_that_is_whole_goes_when_its_trace_is_there(tmp_path):
    spool, out = spooled(tmp_path, GOOD), tmp_path / "y.trace"
    assert finish(spool, out, keep=True).n_rounds == 3 and spool.exists()
    assert finish(spool, out, overwrite=True).n_rounds == 3 and not spool.exists()


def test_a_spool_that_is_not_understood_is_told_of_and_kept(tmp_path):
    spool, out = spooled(tmp_path, [*GOOD[:-1], (77, b""), GOOD[-1]]), tmp_path / "y.trace"
    with pytest.raises(
        PmlkitError, match="the part before it is in .*, but .*frame .*77"
    ) as caught:
        finish(spool, out)
    assert "the spool is kept" in str(caught.value) and Trace.open(out).n_rounds == 3
    heard = []
    assert finish(spool, out, overwrite=True, heard=heard.append).n_rounds == 3
    assert len(heard) == 1 and "77" in heard[0] and spool.exists()
