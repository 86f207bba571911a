# SPDX-License-Identifier: Apache-2.0
"""``--harvest``, with a value and without one."""

import pytest
from click.exceptions import BadParameter

from pmlkit.cli.collect import collect
from pmlkit.cli.lab import run
from pmlkit.cli.log_options import log_fields
from pmlkit.xen.job import HARVESTS, Job


def parsed(command, *words):
    return command.make_context(command.name, [*words]).params


@pytest.mark.parametrize("command", [collect, run])
def test_flags_are_harvested_pruned_if_nothing_else_is_said(command):
    words = ["web1", "-o", "x.trace"]
    assert parsed(command, *words)["harvest"] is None
    assert parsed(command, *words, "--harvest")["harvest"] == "pruned"
    assert parsed(command, "--harvest", "-o", "x.trace", "web1")["harvest"] == "pruned"
    for name in HARVESTS[1:]:
        assert parsed(command, *words, "--harvest", name)["harvest"] == name


@pytest.mark.parametrize("command", [collect, run])
def test_what_is_no_harvest_is_told_where_the_option_goes(command):
    with pytest.raises(BadParameter) as error:
        parsed(command, "--harvest", "web1", "-o", "x.trace")
    assert "'web1' is not a harvest" in str(error.value)
    assert "at the end of the line" in str(error.value) and "\n" not in str(error.value)


def test_a_sample_is_drawn_anew_unless_it_is_to_be_fixed():
    words = ["web1", "-o", "x.trace", "--harvest", "sampled"]
    for more, draw in (((), "round"), (("--draw", "fixed"), "fixed")):
        assert Job.of(log_fields(parsed(collect, *words, *more))).draw == draw


def test_accessed_is_short_for_the_harvest_that_is_best():
    from pmlkit.cli.lab import _FLAGS, _options

    def options(*words):
        values = parsed(run, "known", "-o", "x.trace", *words)
        for name in ("guest", "output", "list_them", "as_json", "kvm", *_FLAGS):
            values.pop(name)
        return _options(values)

    assert options("--accessed").harvest == options("--harvest").harvest == "pruned"
    assert options("--accessed", "--harvest", "both").harvest == "both"
