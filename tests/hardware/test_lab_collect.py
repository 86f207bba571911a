# SPDX-License-Identifier: Apache-2.0
"""The collector in a real dom0, told a domain by its name: what `pmlkit collect` runs there."""

import json
import os
import re

import pytest
from lab_case import data, needs_lab, own, rounds

import pmlkit
from pmlkit import cli
from pmlkit.costs import prices
from pmlkit.period import costs as calibrate
from pmlkit.sources.ingest import ingest
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
# Descriptor 9 is a fifo that never ends: whoever gives the orders stays there.
START = """\
mkfifo /tmp/orders
exec 9<>/tmp/orders
# The guest never rests: dom0, which shares its processor, goes first.
xl sched-credit2 -d Domain-0 -w 65535
xl unpause g
python3 -c '
from pmlkit.xen.lab import Mailbox
with Mailbox('$domid') as box:
    box.wait_ready(60)
    box.free_run()
'
# soon NAME COMMAND: run it when three rounds are in the spool NAME.
soon() {
    until [ $(grep -so agent_cpu_ns /out/$1.spool | wc -l) -ge 3 ]; do usleep 200000; done
    shift
    "$@"
}
kill_it() {
    kill -9 $(cat /tmp/pid)
}
collect() {
    echo "$2" >&9
    python3 -m pmlkit.xen.agent <&9 >/out/$1.spool 2>/out/$1.txt
    echo "$?" >/out/$1.status
    echo "LAB collected $1"
}
"""
CALIBRATION = json.dumps(calibrate.rounds(2).job("g"))
SCRIPT = (
    START
    + f"collect calibration '{CALIBRATION}'\n"
    + """\
collect rounds '{"domain": "g", "rounds": 4, "period_s": 0.2}'
collect free '{"domain": "g", "rounds": 3, "period_s": 0.2, "free": true}'
soon killed kill_it &
echo '{"domain": "g", "period_s": 0.2}' >&9
sh -c 'echo $$ >/tmp/pid; exec python3 -m pmlkit.xen.agent' <&9 >/out/killed.spool 2>/dev/null
xl log-dirty-status g >/out/left_on.txt 2>&1
collect next '{"domain": "g", "rounds": 1, "period_s": 0.1}'
xl log-dirty-status g >/out/off.txt 2>&1
soon renamed xl rename g h &
collect renamed '{"domain": "g", "period_s": 0.2}'
xl rename h g
soon gone xl destroy g &
collect gone '{"domain": "'$domid'", "period_s": 0.2}'
true
"""
)
STOCK = (
    START
    + """\
collect rounds '{"domain": "g", "rounds": 4, "period_s": 0.2}'
soon killed kill_it &
echo '{"domain": "g", "period_s": 0.2}' >&9
sh -c 'echo $$ >/tmp/pid; exec python3 -m pmlkit.xen.agent' <&9 >/out/killed.spool 2>/dev/null
collect next '{"domain": "g", "rounds": 2, "period_s": 0.2}'
soon gone xl destroy g &
collect gone '{"domain": "'$domid'", "period_s": 0.2}'
true
"""
)


class Results:
    """What a script left: traces and words by name."""

    def __init__(self, folder, **options):
        self.folder, self.guest = folder, lab_guests.load("known")
        collect(self.guest, folder, LabOptions(fast=True, **options))

    def trace(self, name):
        spool = self.folder / f"{name}.trace.spool"
        if not spool.exists():
            spool.mkdir()
            (self.folder / f"{name}.spool").rename(spool / "frames.spool")
            ingest(spool, self.folder / f"{name}.trace")
        return pmlkit.open(self.folder / f"{name}.trace")

    def said(self, name):
        return (self.folder / f"{name}.txt").read_text()

    def known(self):
        """Return the frames that the guest writes in each of its rounds."""
        return {
            gfn
            for region in self.guest.regions
            if region["kind"] == "written"
            for gfn in range(region["gfn"], region["gfn"] + region["pages"])
        }


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("patched"), script=SCRIPT)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("stock"), script=STOCK, stock=True)


def check_rounds(results, trace):
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == results.known()
        assert own(entries)


def test_rounds_of_a_domain_by_name_are_exact(patched):
    trace = patched.trace("rounds")
    assert (trace.n_rounds, trace.meta.complete, trace.meta.source) == (4, True, "xen")
    assert trace.meta.domain["name"] == "g"
    assert trace.meta.lost == 0
    check_rounds(patched, trace)
    trace.check()


def test_a_free_run_is_never_paused_and_misses_no_page(patched):
    trace = patched.trace("free")
    assert (trace.rounds.pause_ns == 0).all()
    assert patched.known() <= set(trace.to_pandas().gfn)
    trace.check()


def test_a_killed_collector_leaves_its_frames_and_the_next_one_cleans_up(patched):
    trace = patched.trace("killed")
    assert not trace.meta.complete
    assert patched.known() <= set(trace.to_pandas().gfn)
    assert "on" in patched.said("left_on").lower()
    assert "died and left log-dirty mode on: it is off now" in patched.said("next")
    assert any("died and left" in note for note in patched.trace("next").meta.notes)
    assert patched.said("off") != patched.said("left_on")


@pytest.mark.parametrize(
    ("name", "why"),
    [("renamed", "renamed from g to h"), ("gone", "the domain (is gone|was)")],
)
def test_the_end_of_a_domain_ends_it(patched, name, why):
    assert (patched.folder / f"{name}.status").read_text().strip() == "0", patched.said(name)
    trace = patched.trace(name)
    assert any(re.search(why, note) for note in trace.meta.notes), trace.meta.notes
    assert patched.known() <= set(trace.to_pandas().gfn)


def test_what_calibrating_on_that_host_finds(patched, monkeypatch, tmp_path, capsys):
    """The command, but for the way there: the agent's answer to the command's job is kept."""
    ssh, answer = tmp_path / "ssh", patched.folder / "calibration.spool"
    ssh.write_text(f"cat '{answer}'\n")
    monkeypatch.setenv("PMLKIT_SSH", f"sh {ssh}")
    call = ["calibrate", "--domain", "g", "--host", "lab", "--for", "2s", "--json"]
    assert cli.main(call) == 0, patched.said("calibration")
    told = json.loads(capsys.readouterr().out)
    assert {told[name]["kind"] for name in ("exit", "entry", "round", "rearm", "poll")} == {"host"}
    if os.environ.get("PMLKIT_XEN_DEBUG") == "1":
        pytest.skip("a debug build costs more than the prices say")
    # An instruction of this processor's takes 10 ns.
    insn = {name: one["amount"] / 10 for name, one in told.items()}
    lab = {"exit": 802, "rearm": prices()["marked_entries"].price}
    assert 20 < insn["entry"] < 100
    assert 20 < insn["rearm"] < 2 * lab["rearm"]
    assert 1000 < insn["round"] < 210_000
    # Dom0 shares the processor with a guest that never rests: some exits wait for a drain.
    waited = 1024 * insn["entry"]
    assert 0.5 * lab["exit"] < insn["exit"] < lab["exit"] + waited


def test_stock_log_dirty_does_it_at_its_level(stock):
    trace = stock.trace("rounds")
    assert (trace.n_rounds, trace.meta.complete) == (4, True)
    assert trace.meta.options["mode"] == "stock"
    assert any("gives a bitmap" in note for note in trace.meta.notes)
    check_rounds(stock, trace)


def test_stock_log_dirty_is_cleaned_up_too(stock):
    assert "died and left log-dirty mode on: it is off now" in stock.said("next")
    check_rounds(stock, stock.trace("next"))
    assert (stock.folder / "gone.status").read_text().strip() == "0", stock.said("gone")
