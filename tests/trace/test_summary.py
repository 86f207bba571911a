# SPDX-License-Identifier: Apache-2.0
"""A trace in words: its facts, its phases, and the HTML that a notebook shows."""

from html.parser import HTMLParser

import pytest
from factories import make_trace

import pmlkit
from pmlkit.trace import summary
from pmlkit.trace.reader import Trace

HOSTILE = '<script>alert("x")</script> & \x1b[2J'


class Tables(HTMLParser):
    """Collects the text before the tables, the rows of all tables, and the names of all tags."""

    def __init__(self, text):
        super().__init__()
        self.answer, self.rows, self.tags = "", [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert attrs in ([], [("style", "text-align:left")])
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][-1] += data
        else:
            self.answer += data


def tables_of(trace):
    return Tables(trace._repr_html_())


def test_a_recording_shows_its_facts_and_phases():
    tables = tables_of(pmlkit.open("hotcold"))
    sentence = "hotcold is a complete recording of 6.26 s in 630 rounds, no entries lost."
    assert tables.answer == sentence  # nothing was checked, and no known answer measured
    assert ["origin", "real guest, emulated by QEMU"] in tables.rows
    assert ["domain", "hotcold, 256 MiB"] in tables.rows
    assert ["length", "6.26 s in 630 rounds"] in tables.rows
    assert ["period", "10 ms"] in tables.rows
    assert ["clock", "guest instructions (icount)"] in tables.rows
    assert ["entries", "345,769, 0 lost"] in tables.rows
    assert ["complete", "yes"] in tables.rows
    assert ["phase", "start (s)", "length (s)", "rounds"] in tables.rows
    assert ["hotcold", "0.114", "4.041", "405"] in tables.rows


@pytest.mark.parametrize(
    "source, complete, text",
    [
        ("recorder", False, "NO: it is shorter than requested"),
        ("import:pinatrace", False, "NO: its input ended early"),
        ("import:pinatrace", True, "yes"),
        ("import:pinatrace", None, "not known"),
    ],
)
def test_a_trace_says_why_it_is_not_complete(tmp_path, source, complete, text):
    trace = Trace.open(make_trace(tmp_path / "x.trace", source=source, complete=complete))
    assert ["complete", text] in tables_of(trace).rows


def test_no_entries_are_read(tmp_path, monkeypatch):
    path = make_trace(tmp_path / "x.trace")
    for part in (path / "entries").iterdir():
        part.write_bytes(bytes(part.stat().st_size))
    assert "access, by" in Trace.open(path)._repr_html_()


@pytest.mark.parametrize("kind", ["access", "pml"])
def test_hostile_texts_are_escaped(tmp_path, kind):
    path = make_trace(
        tmp_path / "<b>x&amp;.trace",
        kind=kind,
        phases=[(HOSTILE, 1)],
        source=HOSTILE,
        notes=[HOSTILE, "</table>"],
        domain={"name": HOSTILE, "memory_bytes": 1 << 20},
        clock={"kind": HOSTILE},
    )
    tables = tables_of(Trace.open(path))
    assert tables.tags == {"p", "table", "tr", "td", "th"}
    visible = HOSTILE.replace("\x1b", r"\x1b")
    assert ["note", visible] in tables.rows
    assert ["trace", str(path)] in tables.rows
    assert ["domain", f"{visible}, 1 MiB"] in tables.rows
    assert tables.rows[-1][0] == visible
    assert "\x1b" not in Trace.open(path)._repr_html_()


def test_what_a_trace_tells(tmp_path):
    access = Trace.open(make_trace(tmp_path / "a.trace"))
    assert summary.contents_text(access).startswith("reads and writes of each round")
    assert "order of first write since the last re-arm" in summary.contents_text(access.pml)
    bitmap = make_trace(tmp_path / "b.trace", kind="pml", overheads={"write_faults": 7})
    assert "writes only, in no order" in summary.contents_text(Trace.open(bitmap))
    imported = make_trace(tmp_path / "c.trace", source="import:damon")
    assert "imported file" in summary.contents_text(Trace.open(imported))
    harvested = pmlkit.open("touch-lab")
    assert "in no order" in summary.contents_text(harvested)


def test_a_trace_without_rounds_has_no_times_and_no_phases(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "x.trace", events=[]))
    assert summary.contents_text(trace).endswith("no times")
    assert summary.phases(trace) == []
    assert ["phase", "start (s)", "length (s)", "rounds"] not in tables_of(trace).rows


def test_the_period_is_the_requested_one_or_as_given(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "x.trace", period={"insn": 10_000}))
    assert dict(summary.facts(trace))["period"] == "10,000 instructions"
    assert dict(summary.facts(trace, "1 s to 2 s"))["period"] == "1 s to 2 s"
    unknown = Trace.open(make_trace(tmp_path / "y.trace", period={}))
    assert dict(summary.facts(unknown))["period"] == "not stated"
