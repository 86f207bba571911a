# SPDX-License-Identifier: Apache-2.0
"""What every test may use."""

import gc
import math
import os
import signal
import sys

import pytest
from factories import make_trace as write_trace
from fake_xen_fixtures import here, xen, xen_libraries  # noqa: F401 (fixtures)
from hypothesis import HealthCheck, settings
from needs import REQUIRED

from pmlkit.lazy import without
from pmlkit.trace.reader import Trace

with without("rfc3987_syntax"):  # nbformat's checks do not need its grammar of addresses: a second
    import jsonschema  # noqa: F401 (imported before any test file imports nbformat)

# The machines that run this are slow and busy: what takes long here is no defect. In CI each run
# has the same examples: a change fails for what it changes.
settings.register_profile(
    "pmlkit",
    deadline=None,
    derandomize=REQUIRED,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("pmlkit")

# Commands that tests start compile pmlkit once, and not at each start; pytest rewrites the asserts
# of a test file once, and not in each run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A figure has tens of thousands of objects. Python's garbage collector passes over the newest at
# each 700 more, and finds them all in use.
gc.set_threshold(20_000, 10, 10)

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What takes longest begins first: else a worker of `pytest -n` is left alone with it at the end.
LONGEST = (
    "test_recorder.py",
    "test_notebooks.py",
    "test_figures.py",
    "test_recorder_disk.py",
    "test_notebook.py",
    "test_explorer_browser.py",
    "test_parquet_pages.py",
    "test_interop_requests.py",
    "test_wheel.py",
    "test_agent.py",
    "test_overlaps.py",
    "test_hostile_dom0.py",
    "test_xen_stream.py",
    "test_advise.py",
    "test_kvm_order.py",
    "test_batch.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Order the files for workers, which take them one after the other; alone, keep their order."""
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Let the garbage collector pass over what stays: modules and the collected tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def make_trace(tmp_path):
    """A function that writes a small trace into the test's folder and opens it.

    Parameters as of `factories.make_trace`; `path` is a name in the folder.
    """

    def make(path="x.trace", *args, **options):
        return Trace.open(write_trace(tmp_path / path, *args, **options))

    return make


@pytest.fixture(scope="module")
def make_shared_trace(tmp_path_factory):
    """As `make_trace`, for a trace that the tests of a file only read."""

    def make(path="x.trace", *args, **options):
        return Trace.open(write_trace(tmp_path_factory.mktemp("shared") / path, *args, **options))

    return make


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Traces of tests need not survive a power cut, and fsync is what writing them costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress():
    """A command that takes long on a busy machine would say so between the expected lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmlkit.progress.Log.first_s", math.inf)
        yield
