# SPDX-License-Identifier: Apache-2.0
"""What ends a program from outside ends every command alike: in order, in a line, with its code."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import weakref

import pytest
from said import said
from waiting import HANG_S, until

from pmlkit import cli, signals
from pmlkit.signals import ENDING, Ended, caught, noted, raising
from pmlkit.trace.writer import TraceWriter

LINE = {
    signal.SIGINT: "pmlkit: interrupted\n",
    signal.SIGTERM: "pmlkit: ended by SIGTERM\n",
    signal.SIGHUP: "pmlkit: ended by SIGHUP\n",
}


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """Let SIGHUP end this process, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_each_signal_is_a_kind_of_ctrl_c(number):
    before = signal.getsignal(number)
    with raising(), pytest.raises(KeyboardInterrupt) as error:
        send(number)
    assert error.value.number == number
    assert signal.getsignal(number) is before


def test_what_nohup_has_made_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_is_noted_and_ctrl_c_after_it_meant(number):
    with noted() as note:
        for each in (number, signal.SIGTERM, signal.SIGHUP):
            send(each)
        assert note.number == number
        with pytest.raises(Ended):
            send(signal.SIGINT)


def test_another_thread_leaves_the_signals_to_the_main_one():
    before, handlers = signal.getsignal(signal.SIGTERM), []

    def look():
        with caught(lambda *_: None):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [before]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize(
    "words",
    ["simulate x.trace -o new.trace", "import csv log.csv -o new.trace"],
)
def test_a_writer_that_is_ended_leaves_nothing(
    words, number, make_trace, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    make_trace()
    cli.main(["export", "x.trace", "csv", "-o", "log.csv"])
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    write = TraceWriter._set

    def interrupted(self, *args):
        assert list(tmp_path.glob("new.trace.partial")), "the work has not begun"
        send(number)
        write(self, *args)

    monkeypatch.setattr(TraceWriter, "_set", interrupted)
    assert cli.main(words.split()) == 128 + number
    assert capfd.readouterr().err == LINE[number]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("format", ["csv", "oracle-general", "damo"])
def test_an_export_that_is_ended_leaves_nothing(
    format, number, make_trace, tmp_path, monkeypatch, capfd
):
    from pmlkit.trace.reader import Trace

    path = make_trace(rounds=50).path
    before = sorted(tmp_path.rglob("*"))
    read = Trace.iter_entries

    def interrupted(self, *args, **more):
        for batch in read(self, *args, **more):
            send(number)
            yield batch

    monkeypatch.setattr(Trace, "iter_entries", interrupted)
    assert cli.main(["export", str(path), format, "-o", str(tmp_path / "x")]) == 128 + number
    assert capfd.readouterr().err == LINE[number]
    assert sorted(tmp_path.rglob("*")) == before


def pretend(folder, name, *lines):
    """Put a module of a name before all others; return the environment."""
    (folder / f"{name}.py").write_text("\n".join(["import os, signal", *lines]) + "\n")
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path}


@pytest.mark.parametrize("words", [["--help"], ["info"], ["wss", "--json"]])
@pytest.mark.parametrize("how", ["<&- >&- 2>&-", ">&-", "2>/dev/full"])
def test_closed_and_full_streams_are_no_failure(words, how, make_trace):
    path = [] if words == ["--help"] else [str(make_trace().path)]
    command = shlex.join([sys.executable, "-m", "pmlkit", *words[:1], *path, *words[1:]])
    done = subprocess.run(["bash", "-c", f"{command} {how}"], capture_output=True, text=True)
    assert (done.returncode, said(done.stderr)) == (0, "")


@pytest.mark.parametrize("words", [["--help"], ["wss"], ["record", "--list", "--json"]])
def test_a_full_standard_output_is_one_line(words, make_trace):
    path = [str(make_trace().path)] if words[0] == "wss" else []
    command = [sys.executable, "-m", "pmlkit", *words[:1], *path, *words[1:]]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, said(done.stderr)) == (
        1,
        "pmlkit: cannot write the standard output (no space left): free some space there or "
        "choose another place\n",
    )


@pytest.mark.parametrize("words", [["info"], ["wss", "--window", "1r", "--json"], ["wss"]])
def test_nobody_who_reads_is_silence_and_exit_code_0(words, make_trace):
    path = make_trace(rounds=300, pages=1, pml=False).path
    command = shlex.join([sys.executable, "-m", "pmlkit", words[0], str(path), *words[1:]])
    script = f"{command} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, said(done.stderr)) == (0, "", "")


INTERRUPTED = "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(30)"


def test_ctrl_c_while_the_first_modules_are_imported_is_silent(tmp_path):
    env = pretend(tmp_path, "click", INTERRUPTED)
    command = [sys.executable, "-m", "pmlkit", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANG_S)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_an_import_turns_into_another_error_is_one_all_the_same(tmp_path, number):
    # numpy's C modules raise an ImportError of their own for whatever they meet.
    lines = ["try:", f"    os.kill(os.getpid(), {number:d})", "    import time; time.sleep(30)",
             "except KeyboardInterrupt:", "    raise ImportError('numpy.core failed')"]  # fmt: skip
    env = pretend(tmp_path, "pyarrow", *lines)
    command = [sys.executable, "-m", "pmlkit", "wss", "hotcold"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANG_S)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert said(done.stderr) == LINE[number]


def test_the_workers_of_a_comparison_end_with_it(make_trace, monkeypatch, tmp_path):
    import multiprocessing

    from pmlkit import compare

    paths = [make_trace(f"{name}.trace", rounds=300).path for name in ("a", "b")]
    monkeypatch.setattr(compare, "as_completed", lambda _: send(signal.SIGTERM))
    before = set(multiprocessing.active_children())
    with raising(), pytest.raises(Ended):
        compare.compare(paths, compare.plan(window="100ms"), jobs=2)
    assert set(multiprocessing.active_children()) <= before


def test_how_it_reads():
    assert str(Ended(signal.SIGTERM, "what came is in x")) == "ended by SIGTERM: what came is in x"
    assert str(Ended(signal.SIGINT)) == "interrupted"
    signals.forget()
    assert signals.received() is None


def test_a_signal_that_comes_in_a_callback_is_not_lost(capfd):
    """Python drops what a weak reference's callback raises: it is raised again, without a word."""

    class Thing:
        pass

    referent = Thing()
    reference = weakref.ref(referent, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(signals.Ended) as caught, signals.raising():
        del referent
        until(lambda: False)  # a thread raises it again, as soon as it gets a processor
    assert caught.value.number == signal.SIGTERM and reference() is None
    assert capfd.readouterr().err == ""


def test_other_errors_of_callbacks_are_shown(monkeypatch):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    with signals.raising():
        referent = type("Thing", (), {})()
        reference = weakref.ref(referent, lambda _: 1 / 0)
        del referent
    assert reference() is None and dropped[0].exc_type is ZeroDivisionError
    assert sys.unraisablehook == dropped.append
