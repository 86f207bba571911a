# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import asdict

import pytest

from pmlkit.errors import UsageError
from pmlkit.sources.host.collection import CollectOptions
from pmlkit.xen.job import Job, LogOptions


def test_a_job_is_the_same_after_json():
    job = Job(domain="web", slots=128, page_tables="snapshot", harvest="both", header={"a": 1})
    assert Job.of(json.loads(json.dumps(asdict(job)))) == job


def test_a_job_has_every_option_of_logging():
    options = CollectOptions(rounds=3, rearm="flush", rearm_every=2, one_in=8, bitmaps=True)
    assert Job.of(options.job("web")).log_options() == options.log_options()


def test_jobs_of_the_first_kind_are_still_read():
    pml = {"slots": 4, "rearm": "never", "flags": ["tables", "snapshots", "accessed"]}
    job = Job.of({"domain": "5", "accessed": True, "pml": pml, "unknown": 1})
    options = {"slots": 4, "rearm": "never", "page_tables": "snapshot", "harvest": "accessed"}
    assert job == Job(domain="5", **options)
    with pytest.raises(UsageError, match="page_tables is 'clear, nonsense'"):
        Job.of({"pml": {"flags": ["nonsense", "clear"]}})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"page_tables": "x"}, "page_tables is 'x'.*'snapshot'"),
        ({"rearm": "x"}, "rearm is 'x'"),
        ({"free": True, "harvest": "both"}, "which free collections do not do"),
        ({"period_s": float("nan")}, "period above 0"),
        ({"rounds": -1}, "below 0"),
        ({"most_bytes": -1}, "at most -1 bytes is not possible: give 0 for no limit"),
        ({"slots": 8192}, "2 to 4096"),
    ],
)
def test_options_that_cannot_be_had(options, words):
    with pytest.raises(UsageError, match=words):
        LogOptions(**options)
