# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C (the stop button) in a cell: the kernel goes on, nothing half-written is left."""

import time

import jupyter_client
import pytest
from waiting import HANG_S

from pmlkit.notebook import interrupted
from pmlkit.signals import Ended

# Waits for an interrupt in many short sleeps. If the signal comes while the process is stopped
# (SIGSTOP), Linux may give it to another thread: then it does not end the main thread's sleep.
WAITS = """
import time
def wait():
    print("begun", flush=True)
    while True:
        time.sleep(0.01)
"""
# Work that stops at its first reported step, until it is interrupted; a thread that reads ahead is
# waited for, and stops shortly.
STOPS = f"""{WAITS}
import threading
from pmlkit import progress
go_on = progress.Task.advance
def stop(task, steps=1):
    if threading.current_thread() is threading.main_thread():
        wait()
    print("begun", flush=True)
    time.sleep(2)
progress.Task.advance = stop
"""
STOPS_AT_READING = f"""{WAITS}
import pmlkit
from unittest import mock
from pmlkit.trace.reader import Trace
def stop(*_, **__):
    wait()
def Stopped():
    return mock.patch.object(Trace, "iter_entries", stop)
"""
GOES_ON = "progress.Task.advance = go_on"
CELLS = {
    "simulate": """
import pmlkit
from pmlkit.sources import simulator
simulator.simulate(pmlkit.open("hotcold"), OUT + "/out.trace", overwrite=True).check()
""",
    "export": """
import pmlkit
from pmlkit import interop
interop.export(pmlkit.open("hotcold"), "csv", OUT + "/out.csv")
""",
    "figure": """
import pmlkit
from pmlkit import figures
figures.save(figures.draw(pmlkit.open("hotcold"), "heat"), OUT + "/heat")
""",
    "frontier": """
from pmlkit import frontier
frontier.sweep(["hotcold"], frontier.plan(["1s"], techniques=["pml"]), OUT + "/points")
""",
}
LINE = (
    "Interrupted: files that were complete stay, and no file is half written. Run the cell again "
    "to start over."
)


class Kernel:
    """A kernel with a user, as a notebook has it."""

    def __init__(self):
        self.manager, self.client = jupyter_client.manager.start_new_kernel(HANG_S)

    def begin(self, code):
        """Run code until it prints that it has begun."""
        # Else the kernel aborts what is asked next, if that comes soon after the interrupt.
        asked = self.client.execute(code, stop_on_error=False)
        while True:
            message = self.client.get_iopub_msg(timeout=HANG_S)
            if message["parent_header"].get("msg_id") != asked:
                continue  # of an earlier cell
            if "begun" in message["content"].get("text", ""):
                return
            assert message["msg_type"] != "error", message["content"]["evalue"]

    def run(self, code):
        return self.client.execute_interactive(
            code, timeout=HANG_S, output_hook=lambda message: None
        )["content"]

    def interrupt(self):
        """Press the stop button; return how the cell ended."""
        self.manager.interrupt_kernel()
        return self.client.get_shell_msg(timeout=HANG_S)["content"]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel():
    made = Kernel()
    yield made
    made.close()


@pytest.mark.parametrize("name", CELLS)
def test_an_interrupted_cell_leaves_nothing_half_and_can_be_run_again(kernel, tmp_path, name):
    assert kernel.run(f"OUT = {str(tmp_path)!r}{STOPS}")["status"] == "ok"
    kernel.begin(CELLS[name])
    time.sleep(0.1)
    ended = kernel.interrupt()
    assert (ended["status"], ended["ename"]) == ("error", "KeyboardInterrupt")
    assert ended["traceback"] == [LINE]
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, f"left after an interrupt: {left}"
    idle = "assert not progress._NOTEBOOK.tasks and progress._NOTEBOOK._stop is None"
    assert kernel.run(f"{idle}\n{GOES_ON}")["status"] == "ok"
    again = kernel.run(CELLS[name])
    assert again["status"] == "ok", again
    assert any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "call",
    [
        "pmlkit.compare.compare(['hotcold'], pmlkit.compare.plan('1s', 'pml'))",
        "pmlkit.diff('pressure', 'pressure-roomy', '1s')",
        "pmlkit.explore('hotcold')",
    ],
)
def test_an_interrupt_within_any_call_is_one_line(kernel, call):
    assert kernel.run(STOPS_AT_READING)["status"] == "ok"
    kernel.begin(f"with Stopped():\n    {call}")
    time.sleep(0.1)
    assert kernel.interrupt()["traceback"] == [LINE]


def test_an_interrupt_of_other_code_keeps_its_traceback(kernel):
    kernel.begin(f"import pmlkit{WAITS}wait()")
    time.sleep(0.1)
    assert len(kernel.interrupt()["traceback"]) > 1


def test_what_is_kept_is_stated():
    assert interrupted.line(Ended(2, "3 rounds are kept")) == "Interrupted: 3 rounds are kept."
