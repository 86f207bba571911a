# SPDX-License-Identifier: Apache-2.0
"""The log's life in a program that uses it, over the real reader and a host that is a folder."""

import errno
import subprocess
import sys

import fake_xen
import pytest
from waiting import HANG_S

PROGRAM = """
import sys
from pmlkit import signals
from pmlkit.xen.binding import XenError
from pmlkit.xen.job import LogOptions
from pmlkit.xen.pml import ROUND_GUIDED, PmlLog

try:
    with signals.raising(), PmlLog(5, LogOptions(harvest="guided", page_tables="mark")) as log:
        print("enabled")
        log.close_round(ROUND_GUIDED)
        print("closed")
except signals.Ended:
    print("ended")
except XenError as error:
    print(error, error.hint)
"""


def told(environment):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment, cwd=fake_xen.ROOT, capture_output=True, text=True, timeout=HANG_S
    )
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_while_logging_is_enabled_leaves_no_log_on(xen, number):
    assert told(xen.environment(FAKE_SIGNAL=number)) == ["ended"]
    assert not xen.log_dirty()


def test_a_signal_while_it_is_refused_leaves_another_ones_log_on(xen):
    xen.set_log_dirty()
    assert told(xen.environment(FAKE_SIGNAL=15)) == ["ended"]
    assert xen.log_dirty()


def test_a_guided_round_without_memory_is_refused_in_words(xen):
    enabled, refused = told(xen.environment(FAKE_SHORT_CLOSING=15))
    assert enabled == "enabled"
    assert "set shadow_memory higher" in refused and "`xl info`" in refused
    assert not xen.log_dirty()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "another program has switched the log off): record the domain again"),
        (errno.ETIME, "broken off): run `xl disable-log-dirty`, then record the domain again"),
    ],
)
def test_a_log_that_others_have_ended_is_told_in_words(xen, number, words):
    enabled, refused = told(xen.environment(FAKE_CLOSING_FAILS=number))
    assert enabled == "enabled" and words in refused


def test_a_program_whose_log_has_no_trouble(xen):
    assert told(xen.environment()) == ["enabled", "closed"]
    assert not xen.log_dirty()
