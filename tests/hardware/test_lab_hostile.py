# SPDX-License-Identifier: Apache-2.0
"""Guests, collectors and other callers that do what they can: the host lives, the guest runs on.

Nearly all of it takes place in one boot of dom0, in a debug build of Xen.
"""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
SCRIPT = """\
xl destroy g
for part in hostile collectors between; do python3 $part.py | tee /out/$part.jsonl; done
true
"""
MEMORY_PAGES = 384 * 256
KIT_TABLES = 3 + 192  # its own, for 384 MiB
PARTS = ("tables", "roots", "balloon", "again", "reboot", "triple", "crash")
REUSED = 500  # tables that are written again once they are none


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    options = LabOptions(fast=True, script=SCRIPT, xen_debug=True, xen_cmdline="altp2m=1")
    collect(lab_guests.load("hostile"), folder, options)
    return folder


def answers(said, part):
    rows = (said / f"{part}.jsonl").read_text().splitlines()
    return [json.loads(row.partition(" ")[2]) for row in rows]


# ------------------------------------------------------------------------------
# Guests.


@pytest.fixture(scope="module")
def guests(said):
    return dict(answers(said, "hostile"))


@pytest.mark.parametrize("part", PARTS)
def test_log_and_harvest_of_a_hostile_guest_are_exact(guests, part):
    for told in guests[part]["rounds"]:
        assert [told[name] for name in ("missing", "added", "unseen", "more")] == [0] * 4


@pytest.mark.parametrize("part", [*PARTS, "pod"])
def test_memory_is_back_after_a_hostile_guest(guests, part):
    assert guests[part]["lost_bytes"] == 0


@pytest.mark.parametrize("part", ["tables", "roots", "balloon", "pod", "again"])
def test_a_hostile_guest_runs_on(guests, part):
    assert all(told["running"] for told in guests[part]["rounds"])


def test_page_tables_that_there_is_no_room_for_are_counted(guests):
    limit = MEMORY_PAGES // 64 + 4096
    whole, rest = divmod(limit - KIT_TABLES - 1, 513)  # a directory and its 512 tables each
    dropped = 512 - (rest - 1) + (137 - whole - 1)
    told = [(row["tables"], row["tables_dropped"]) for row in guests["tables"]["rounds"]]
    assert told == [(limit, dropped), (limit - REUSED, 0)] * 2


def test_address_spaces_that_are_forgotten_are_counted(guests):
    for told in guests["roots"]["rounds"]:
        kept = (told["tables"] - 35) / 4
        assert kept == 31
        # One that is known from a round before need not be dropped; one may leave twice.
        assert 150 <= told["roots_dropped"] <= 201


# The guest reads 32 MiB and uses about 10 MiB more, but has 32 MiB: Xen gives and takes pages.
def test_log_is_exact_while_xen_takes_zero_pages_back(guests):
    for told in guests["pod"]["rounds"]:
        assert [told[name] for name in ("missing", "added", "more", "wrong")] == [0] * 4
        assert told["unseen"] > 0  # accessed flags of pages that were taken back


@pytest.mark.parametrize("part", ["reboot", "triple"])
def test_a_guest_that_reboots_is_logged_anew_in_its_new_domain(guests, part):
    first, second = guests[part]["rounds"]
    assert first["ended"] and first["after"] == "ESRCH"
    assert second["running"]


# ------------------------------------------------------------------------------
# Others' calls between two continuations.


@pytest.fixture(scope="module")
def between(said):
    return answers(said, "between")


# What may come of the other call and of the operation, if the call comes in between.
OUTCOMES = {
    "pause": {"0 0"},
    "access": {"0 0"},
    "altp2m": {"EBUSY 0"},
    "migrate": {"EBUSY 0"},
    "shadow off": {"EBUSY 0"},
    "balloon": {"0 0"},
    "enable": {"EBUSY 0"},
    "close": {"EBUSY 0"},
    "disable": {"0 ENOENT"},
}


def pairs(between, other):
    return {told["operation"]: told for what, told in between if what == "pair"
            and told["other"] == other}  # fmt: skip


@pytest.mark.parametrize("other", OUTCOMES)
def test_a_call_between_continuations_is_done_or_refused(between, other):
    found = pairs(between, other)
    assert set(found) == {"enable", "close", "disable"}
    for told in found.values():
        came = {key.removeprefix("between ") for key in told["told"] if key.startswith("between")}
        assert came and came <= OUTCOMES[other]


@pytest.mark.parametrize("other", OUTCOMES)
def test_the_guest_runs_and_is_logged_after_a_call_between_continuations(between, other):
    for told in pairs(between, other).values():
        assert {name: n for name, n in told["wrong"].items() if n} == {}
        assert told["lost_bytes"] == 0


def test_a_log_is_refused_while_log_dirty_mode_is_being_switched_off(between):
    (told,) = [told for what, told in between if what == "switching off"]
    assert told["told"] == {"EBUSY 7 0 runs": 5}
    assert not any(told["wrong"].values())
    assert told["lost_bytes"] == 0


@pytest.mark.parametrize("operation", ["enable", "close", "disable"])
def test_an_operation_that_is_never_continued_lets_the_guest_go(between, operation):
    (told,) = [t for what, t in between if what == "deserted" and t["operation"] == operation]
    assert told["held"] and told["runs"] and told["state"] == 3
    assert told["closed"] == "ETIME" and told["off"] == "0"
    assert not any(told["wrong"].values())


@pytest.mark.parametrize("operation", ["enable", "disable"])
def test_a_domain_can_be_destroyed_between_continuations(between, operation):
    (told,) = [t for what, t in between if what == "destroyed" and t["operation"] == operation]
    assert "between 0 ESRCH" in told["told"]
    assert told["lost_bytes"] == 0


# ------------------------------------------------------------------------------
# Collectors.


@pytest.fixture(scope="module")
def collectors(said):
    return dict(answers(said, "collectors"))


def test_guest_runs_on_wherever_its_collector_is_killed(collectors):
    told = collectors["killed"]
    assert told["told"]["runs"] == told["stops"] > 20
    assert "cut" not in told["told"]


def test_guests_run_on_while_their_collectors_are_stopped(collectors):
    told = collectors["stopped"]
    assert all(told["running"]) and not any(told["ends"])
    assert all(row["running"] and row["whole"] for row in told["afterwards"])


def test_collectors_that_get_no_memory_leave_the_guest_alone(collectors):
    ends, told = collectors["limited"]["ends"], collectors["limited"]["told"]
    assert set(ends[:2]) <= {"m", "x"} and ends[-1] == "d"
    assert told == {"runs": len(ends), "whole": len(ends)}


def test_collectors_that_the_kernel_kills_leave_the_guest_alone(collectors):
    told = collectors["exhausted"]
    assert told["ends"] == [9] * 4 and told["kills"] >= 4
    assert told["told"] == {"runs": 4, "whole": 4}


def test_memory_is_back_after_all_collectors(collectors):
    assert collectors["memory"]["lost_bytes"] == 0


# ------------------------------------------------------------------------------
# The tools, on a Linux guest that is logged again and again meanwhile.


TOOLS = """\
xl unpause g
control=/local/domain/$domid/control
for try in $(seq 120); do xenstore-ls $control | grep -q feature-suspend && break; sleep 0.5; done
python3 hammer.py $domid >/out/hammer.jsonl & hammer=$!
sleep 2
xl mem-set g 96; echo "TOOLS less $?"; sleep 2; xl mem-set g 128; echo "TOOLS more $?"; sleep 1
for i in $(seq 5); do xl pause g; usleep 20000; xl unpause g; done; echo "TOOLS pause $?"
xl save -c g /dev/null; echo "TOOLS save $?"
for i in 1 2; do
    xl migrate -s '' g 'xl migrate-receive'; echo "TOOLS migrate $i $?"
    [ "$(xl domid g)" = $domid ] || break
done
sleep 1; kill $hammer 2>/dev/null; wait $hammer; echo "TOOLS hammer $?"
now=$(xl domid g)
for i in 1 2 3; do
    python3 hammer.py $now >/dev/null & hammer=$!
    sleep 2; usleep ${i}7000; kill $hammer; wait $hammer
    xl log-dirty-status $now
done
xl enable-log-dirty $now && xl log-dirty-status $now && xl disable-log-dirty $now
echo "TOOLS log $?"
xl save g /dev/null; echo "TOOLS last $?"
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    options = LabOptions(
        fast=True, script=TOOLS, xen_debug=True, xen_cmdline="altp2m=1", memory_mib=128
    )
    collect(lab_guests.load("idle", {"phase_ms": "600000"}), folder, options)
    text = (folder / "console.txt").read_text(errors="replace")
    return {"text": text, "hammer": json.loads((folder / "hammer.jsonl").read_text())}


def test_tools_do_their_work_or_say_why_not(tools):
    told = dict(re.findall(r"TOOLS (\w+) (\d+)\s*$", tools["text"], re.M))
    for name in ("less", "more", "pause", "save"):
        assert told[name] == "0", tools["text"]


def test_a_migration_succeeds_or_is_refused_in_words(tools):
    text = tools["text"]
    statuses = re.findall(r"TOOLS migrate \d (\d+)", text)
    refusals = text.count("it is being logged, and cannot be migrated live")
    assert statuses and len(statuses) - statuses.count("0") <= refusals + text.count("EBUSY")


def test_logs_end_with_clear_errors_meanwhile(tools):
    counts = tools["hammer"]
    assert counts["close 0"] > 20
    assert {name.split()[1] for name in counts} <= {"0", "EBUSY", "ESRCH"}


def test_a_hammer_that_is_killed_leaves_no_log_on(tools):
    states = re.findall(r"^logging +: (\w+)", tools["text"], re.M)
    assert states == ["off"] * 3 + ["on"], tools["text"]


def test_the_guest_is_alive_and_can_be_logged_after_the_tools(tools):
    told = dict(re.findall(r"TOOLS (\w+) (\d+)\s*$", tools["text"], re.M))
    assert told["log"] == "0" and told["last"] == "0", tools["text"]
