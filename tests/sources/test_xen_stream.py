# SPDX-License-Identifier: Apache-2.0
"""A collector's stream that says what cannot be: live and later it ends at the same frame."""

import contextlib
import copy
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spool_fuzz import (
    FIELDS,
    HEAD,
    NASTY,
    RECORDER_HEADER,
    SPOOL_HEADER,
    good_frames,
    recorded_frames,
    sealed,
    watched,
)

from pmlkit import cli
from pmlkit.errors import NotATrace, NotUnderstood, PmlkitError, SpoolDamaged
from pmlkit.sources.host.spool import XenSpool
from pmlkit.sources.host.stream import XenStream, ns_of
from pmlkit.sources.ingest import finish, ingest
from pmlkit.sources.watch import Follower, Watcher
from pmlkit.xen import frames
from pmlkit.xen.frames import Frame

GOOD, ENTRIES = good_frames(4)
STOCK = SPOOL_HEADER | {"clock": "dom0"}


def record(words=(), **more):
    fields = dict.fromkeys(FIELDS, 0) | {"type": 1, "reason": 2, "count": len(words), **more}
    data = struct.pack(f"<{len(words)}Q", *words)
    return Frame.RECORDS, frames.RECORDS_HEAD.pack(1) + HEAD.pack(*fields.values()) + data


def closed(number=0, **more):
    fields = {"round": number, "tsc_pause": 2000, "tsc_resume": 3000 + 1000 * number}
    return Frame.ROUND, frames.pack_json(**{**fields, "vcpus": [{"exits": 0}], **more})


def spool(folder, made, header=SPOOL_HEADER):
    folder = folder / "x.trace.spool"
    folder.mkdir(exist_ok=True)
    (folder / "frames.spool").write_bytes(sealed(header, made))
    return folder


def dirty(number=0, bits=65536, first=0, piece=b"\x01"):
    return Frame.DIRTY, frames.BITMAP_HEAD.pack(number, bits, first) + piece


WRONG = {
    "a frame of kind 3": (3, b""),
    "a record of type 3": record(type=3),
    "a record of reason 9": record(reason=9),
    "a record of vCPU 2, of 2": record(vcpu=2),
    "a record of 513 words": record([1] * 513),
    "a record of round 2, and 0 were closed": record(round=2),
    "a record whose tsc_end is": record(tsc_end=1 << 62),
    "a record that lost": record(lost_entries=1 << 60),
    "a page table in records that do not name the table": record([1], type=2),
    "an entry of kind 0xff in a log": record([5 << 12 | 0xFF]),
    "its records have 0 words, and it holds 8 bytes": (record()[0], record()[1] + bytes(8)),
    "2 records, more than it can contain": (Frame.RECORDS, frames.RECORDS_HEAD.pack(2) + bytes(90)),
    "shorter than their count": (Frame.RECORDS, b"\0"),
    "shorter than its head": (Frame.DIRTY, b"\0" * 19),
    "a bitmap of round 1, and 0": dirty(1),
    "more than the domain has": dirty(bits=1 << 40),
    "beyond its 64 bits": dirty(bits=64, first=8),
    "does not consist of whole words": (Frame.TOUCHED, frames.TOUCHED_HEAD.pack(0) + b"abc"),
    "it closes round 1, and round 0 is the next": closed(1),
    "vcpus is missing": (Frame.ROUND, b'{"round": 0, "tsc_resume": 9, "tsc_pause": 9}'),
    "vcpus[0].exits is 'x'": closed(vcpus=[{"exits": "x"}]),
    "a list of 1 to 2 objects": closed(vcpus=[{"exits": 1}] * 3),
    "tsc_pause is 4000": closed(tsc_pause=4000),
    "rearmed is -1": closed(rearmed=-1),
    "rearmed is True": closed(rearmed=True),
    "seen.fill is": closed(seen={"fill": "full"}),
    "more than 64 bits": (Frame.ROUND, b'{"round": %s}' % (b"9" * 5000)),
    "NaN is not a number": (Frame.ROUND, b'{"round": NaN}'),
    "1e999 is not a number": (Frame.ROUND, b'{"round": 1e999}'),
    "nested too deep": (Frame.ROUND, b'{"round":' + b"[" * 100_000),
    "a line is not JSON (": (Frame.ROUND, b"\xff\xfe"),
    "its JSON is not an object": (Frame.EVENT, b"[1]"),
    "what is 5": (Frame.EVENT, b'{"what": 5}'),
    "a text of at most": (Frame.EVENT, frames.pack_json(what="x" * 5000)),
    "surrogates not allowed": (Frame.EVENT, b'{"what": "\\ud800"}'),
    "ns is": (Frame.CONSOLE, b'{"line": "x", "ns": 1e3}'),
    "it ends after 7 rounds, and 0": (Frame.END, b'{"rounds": 7}'),
    "complete is 1": (Frame.END, b'{"complete": 1}'),
    "and no frame has more than": (Frame.DIRTY, bytes((1 << 24) + 1)),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_frame_that_is_not_understood_is_said_in_words(says):
    stream = XenStream(SPOOL_HEADER)
    with pytest.raises(NotUnderstood) as caught:
        stream.take(*WRONG[says])
    assert says in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("before", "wrong", "says"),
    [
        (
            [closed()],
            closed(1, tsc_resume=2500),
            "round 1 ends at 1500 ns, the previous one at 2000",
        ),
        ([closed(vcpus=[{"exits": 5}])], closed(1), "0 exits, and 5 before them"),
        ([dirty(first=4)], dirty(first=4), "goes back to byte 4"),
        ([(Frame.END, b"{}")], closed(), "it comes after the last frame"),
        (
            [(Frame.CONSOLE, b'{"line": "x", "ns": 9}')],
            (Frame.CONSOLE, b'{"line":"y","ns":8}'),
            "ns",
        ),
    ],
)
def test_what_goes_back_is_not_understood(before, wrong, says):
    stream = XenStream(SPOOL_HEADER)
    for each in before:
        stream.take(*each)
    with pytest.raises(NotUnderstood, match=says):
        stream.take(*wrong)


def test_stock_log_dirty_has_no_records_and_no_harvest():
    for wrong in (record(), (Frame.ACCESSED, dirty()[1]), (Frame.TOUCHED, bytes(4))):
        with pytest.raises(NotUnderstood, match="stock log-dirty has none"):
            XenStream(STOCK).take(*wrong)


RECORD = SPOOL_HEADER["record"]
HEADERS = {
    "source": "recorder",
    "clock": None,
    "tsc_khz": 0,
    "epoch_tsc": -1,
    "pages": "many",
    "vcpus": 1 << 20,
    "record": [*RECORD, ["late", 80, 8]],
    "head_bytes": 8,
    "job": {"period_s": -1},
    "domain": {"memory_bytes": "x"},
    "created": "yesterday",
    "options": 5,
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_is_refused_and_the_spool_stays(tmp_path, name):
    folder = spool(tmp_path, GOOD, SPOOL_HEADER | {name: HEADERS[name]})
    assert watched(folder / "frames.spool") == [] or name == "source"
    with pytest.raises((SpoolDamaged, NotATrace)):
        ingest(folder, tmp_path / "x.trace", source="xen")
    assert (folder / "frames.spool").exists()


LAB_HEADER = SPOOL_HEADER | {
    "source": "lab",
    "guest": "g",
    "guest_vcpus": 1,
    "memory_bytes": 64 << 20,
    "ns_per_insn": 20.0,
    "regions": [{"name": "r", "gfn": 16, "pages": 2}],
}
ANY = [None, True, 0, 1, -1, 0.5, 2**63, "", "x", [], [1], {}, {"x": None}]


ADDED = ("memory_bytes", "domain", "regions", "pages", "created", "host")


def changed(header, path, value):
    """Return a copy of a header with another value at a path, or (for ...) without it."""
    made = place = copy.deepcopy(header)
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = value
    return made


def with_each(header, here, path=()):
    """Yield headers in which one value, at any depth, is another or is not there."""
    keys = [*here, *ADDED] if isinstance(here, dict) else range(len(here))
    for key in dict.fromkeys(keys):
        values = [*ANY, ...] if isinstance(here, dict) else ANY
        yield from (changed(header, (*path, key), value) for value in values)
        inner = here[key] if isinstance(here, list) else here.get(key)
        if isinstance(inner, dict | list):
            yield from with_each(header, inner, (*path, key))


@pytest.mark.parametrize("header", [SPOOL_HEADER, STOCK, LAB_HEADER], ids=["xen", "stock", "lab"])
def test_any_value_of_a_header_is_understood_or_refused(header, tmp_path):
    taken = refused = 0
    for each in with_each(header, header):
        try:
            Watcher(each, ("xen", "lab"))
        except NotUnderstood:
            refused += 1
            continue
        taken += 1
        with contextlib.suppress(PmlkitError):  # a round may not fit a header that is taken
            made = ingest(spool(tmp_path, [closed()], each), tmp_path / "x.trace", overwrite=True)
            assert made.n_rounds == 1
    assert taken > 50 and refused > 100


def test_a_stream_of_a_collector_is_not_taken_for_a_recording(tmp_path):
    folder = spool(tmp_path, recorded_frames(), RECORDER_HEADER)
    with pytest.raises(SpoolDamaged, match="it comes from the recorder, not from xen"):
        ingest(folder, tmp_path / "x.trace", source="xen")


OF_ANY_ROUND = [says for says in WRONG if "and 0" not in says and "round 0" not in says]


@pytest.mark.parametrize(
    ("first", "says"),
    [*((4, says) for says in OF_ANY_ROUND), *((n, OF_ANY_ROUND[n % 3]) for n in range(12))],
)
def test_all_rounds_before_it_are_in_the_trace(tmp_path, first, says):
    """The wrong frame in place of another: what came before is as if nothing had followed."""
    whole = ingest(spool(tmp_path, GOOD), tmp_path / "whole.trace").to_pandas()
    folder = spool(tmp_path, [*GOOD[:first], WRONG[says], *GOOD[first + 1 :]])
    rounds = sum(kind is Frame.ROUND for kind, _ in GOOD[:first])
    assert len(watched(folder / "frames.spool")) == rounds
    faults = []
    if not first:
        with pytest.raises(NotATrace, match="frame 0, from byte "):
            ingest(folder, tmp_path / "x.trace")
        return
    trace = ingest(folder, tmp_path / "x.trace", heard=faults.append)
    assert f"frame {first}, from byte " in faults[0]
    assert not trace.meta.complete
    assert any(faults[0] in note for note in trace.meta.notes)
    mine = trace.to_pandas()
    assert mine[mine["round"] < rounds].equals(whole[whole["round"] < rounds])
    trace.check()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_field_of_any_frame_may_be_anything(data):
    """Live and ingest agree; the rounds before the frame are those of the stream as it was."""
    at = data.draw(st.sampled_from([i for i, (_, p) in enumerate(GOOD) if p.startswith(b"{")]))
    kind, payload = GOOD[at]
    fields = json.loads(payload)
    fields[data.draw(st.sampled_from([*fields, "new"]))] = data.draw(st.sampled_from(NASTY))
    changed = [*GOOD[:at], (kind, json.dumps(fields).encode()), *GOOD[at + 1 :]]
    before = sum(k is Frame.ROUND for k, _ in GOOD[:at])
    with tempfile.TemporaryDirectory() as name:
        folder = spool(Path(name), changed)
        path = folder / "frames.spool"
        seen, size = watched(path), path.stat().st_size
        read = XenSpool(path)
        assert before <= len(seen) == len(read.rounds)
        if seen:
            trace = ingest(folder, Path(name) / "x.trace")
            assert trace.rounds.t_end_ns.tolist()[: len(seen)] == [s.t_ns for s in seen]
            kept = trace.to_pandas()
            truth = [word >> 12 for _, word in ENTRIES]
            rows = kept.gfn[kept["round"] < before].tolist()
            assert rows == truth[: len(rows)]
            assert len(rows) == sum(2 * (3 + number) for number in range(before))
        else:
            with pytest.raises(PmlkitError) if not read.logs.size else tempfile.TemporaryFile():
                ingest(folder, Path(name) / "x.trace")
        assert path.stat().st_size == size


def test_the_command_names_the_frame_and_what_to_do(tmp_path, capsys):
    folder = spool(tmp_path, [*GOOD[:8], WRONG["a record of type 3"]])
    assert cli.main(["ingest", str(folder), "-o", str(tmp_path / "x.trace")]) == 0
    out, err = capsys.readouterr()
    assert "frame 8, from byte " in err and "a record of type 3: keep " in err
    assert "NO: it is shorter than requested" in out


def test_a_spool_of_our_own_is_kept_if_it_is_not_understood(tmp_path):
    made = recorded_frames()
    folder = spool(tmp_path, [*made[:8], (77, b""), *made[8:]], RECORDER_HEADER)
    assert len(watched(folder / "frames.spool")) == 2
    with pytest.raises(PmlkitError, match="frame 8, .* a message of type 77.*the spool is kept"):
        finish(folder, tmp_path / "x.trace")
    assert folder.exists()
    trace = ingest(folder, tmp_path / "x.trace", overwrite=True)
    assert trace.n_rounds == 3 and not trace.meta.complete  # the third was not closed
    finish(spool(tmp_path, made, RECORDER_HEADER), tmp_path / "x.trace", overwrite=True)
    assert not folder.exists()


def test_a_stream_of_many_hours_keeps_its_times(tmp_path):
    """Ticks of an hour, times a million, are more than 63 bits hold."""
    hour = 3600 * 2_500_000_000
    header = SPOOL_HEADER | {"tsc_khz": 2_500_000, "epoch_tsc": 0}
    made = []
    for number in range(3):
        end = (number + 1) * hour
        made += [record([5 << 12], round=number, tsc_end=end - 2500)]
        made += [closed(number, tsc_pause=end - 250, tsc_resume=end)]
    trace = ingest(spool(tmp_path, made, header), tmp_path / "x.trace")
    assert trace.rounds.t_end_ns.tolist() == [n * 3600 * 10**9 for n in (1, 2, 3)]
    assert trace.batches.t_end_ns.tolist() == [n * 3600 * 10**9 - 1000 for n in (1, 2, 3)]
    assert trace.rounds.pause_ns.tolist() == [100] * 3
    assert ns_of(np.array([3 * hour]), 2_500_000).tolist() == [3 * 3600 * 10**9]


def test_two_snapshots_of_one_table_in_a_round(tmp_path):
    layout = [*RECORD, ["table", HEAD.size, 8]]
    header = SPOOL_HEADER | {"record": layout, "head_bytes": HEAD.size + 8}

    def table(word, words):
        fields = dict.fromkeys(FIELDS, 0) | {"type": 2, "count": len(words)}
        head = HEAD.pack(*fields.values()) + struct.pack("<Q", word)
        payload = frames.RECORDS_HEAD.pack(1) + head + struct.pack(f"<{len(words)}Q", *words)
        return Frame.RECORDS, payload

    made = [table(9 << 12 | 1, [5 << 12 | 1]), table(9 << 12 | 1, [6 << 12 | 1]), closed()]
    trace = ingest(spool(tmp_path, made, header), tmp_path / "x.trace")
    trace.check()
    for wrong, says in ((table(9 << 12, [1]), "level 0"), (table(9 << 12 | 1, [2]), "not present")):
        with pytest.raises(NotUnderstood, match=says):
            XenStream(header).take(*wrong)


def test_a_bitmap_is_counted_bit_by_bit_in_bounded_pieces(tmp_path):
    pages = 1 << 21
    piece = np.full(pages // 8, 0xFF, np.uint8)
    piece[7], piece[-1] = 0, 0x7F
    made = [dirty(0, pages, 0, piece.tobytes()), closed()]
    header = STOCK | {"pages": pages, "domain": {"memory_bytes": pages * 4096}}
    made = [made[0], (Frame.ROUND, frames.pack_json(round=0, t_end_ns=9, pause_ns=1, faults=0))]
    folder = spool(tmp_path, made, header)
    assert [seen.distinct for seen in watched(folder / "frames.spool")] == [pages - 9]
    trace = ingest(folder, tmp_path / "x.trace")
    gfns = trace.to_pandas().gfn.to_numpy()
    assert len(gfns) == pages - 9
    np.testing.assert_array_equal(gfns, np.setdiff1d(np.arange(pages - 1), np.arange(56, 64)))


def test_a_follower_stops_where_the_stream_is_not_understood(tmp_path):
    folder = spool(tmp_path, [*GOOD[:8], WRONG["a record of type 3"], *GOOD[8:]])
    follower = Follower(folder / "frames.spool", Watcher)
    assert len(list(follower.poll())) == sum(kind is Frame.ROUND for kind, _ in GOOD[:8])
    assert "frame 8, from byte " in follower.fault and not follower.ended
    assert list(follower.poll()) == []
    follower.close()
