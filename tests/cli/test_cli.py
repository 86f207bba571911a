# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, its exit codes, and that every error is one line."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from factories import write_irregular

from pmlkit import cli, recordings, workingset
from pmlkit.cli.app import MEANT
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.units import format_ns

READ, WRITE = Kind.READ, Kind.WRITE
COMMAND = [sys.executable, "-c", "import sys; from pmlkit.cli.app import main; sys.exit(main())"]
COMMANDS = [
    "advise",
    "annotate",
    "calibrate",
    "collect",
    "compare",
    "corpus",
    "diff",
    "doctor",
    "export",
    "forecast",
    "frontier",
    "import",
    "info",
    "ingest",
    "lab",
    "mrc",
    "period",
    "plot",
    "reads",
    "record",
    "run",
    "simulate",
    "wss",
]
GROUPS = {"corpus": ["check", "compare", "list", "record", "score"], "lab": ["build", "run"]}
LEAVES = [name for name in COMMANDS if name not in GROUPS]
LEAVES += [f"{group} {name}" for group, names in GROUPS.items() for name in names]
# Two rounds of 10 ms each: phase "a" writes 10 and 11 and reads 20, phase "b" writes 10 again.
EVENTS = [[(10, WRITE), (20, READ), (11, WRITE)], [(10, WRITE)]]
KNOWN = [{"phase": "a", "region": "hot", "kind": "written", "pages": 2}]


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch):
    monkeypatch.delenv("PMLKIT_DEBUG", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(capsys):
    """Call the command line in this process; returns exit code, standard output and error."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def trace(make_trace):
    made = make_trace(
        "h.trace",
        events=EVENTS,
        phases=[("a", 0), ("b", 1)],
        regions=[("hot", 10, 2), ("cold", 20, 1)],
        known=KNOWN,
    )
    return made.path


def spawn(*words, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([*COMMAND, *map(str, words)], **options)


def check_one_line(err, says):
    assert re.fullmatch(r"pmlkit: [^\n]+\n", err), err
    assert "Traceback" not in err
    assert re.search(says, err), err


def test_a_recording_without_rounds_is_no_defect_of_pmlkit(run, make_trace):
    path = make_trace("none.trace", events=[]).path
    assert run("mrc", path, "--window", "1s")[0] == 0
    code, _, err = run("compare", path, "--window", "1s", "--techniques", "pml")
    assert code == 1
    check_one_line(err, "has no rounds: record it for longer")
    code, _, err = run("plot", path, "window", "-o", path.parent / "f")
    assert code == 1
    check_one_line(err, "has no rounds: record it for longer")


# What it offers


def test_the_commands_are_those_that_work():
    assert cli.cli.list_commands(None) == COMMANDS


def test_nothing_heavy_is_imported_before_a_command_runs():
    heavy = {"numpy", "pandas", "pyarrow", "matplotlib", "sklearn", "papermill", "rich", "yaml"}
    code = f"import sys, pmlkit.cli.app as c; c.main(['--help']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("info", {"pandas", "numba", "scipy", "matplotlib"}),
        ("wss", {"numba", "scipy", "matplotlib"}),
        ("mrc", {"pandas", "numba", "scipy", "matplotlib"}),
    ],
)
def test_a_first_answer_imports_only_what_it_needs(command, heavy):
    """Each of these takes as long as the answer itself."""
    trace = str(recordings.bundled("hotcold"))
    code = f"import sys, pmlkit.cli.app as c; c.main([{command!r}, {trace!r}])"
    ask = f"{code}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_without_a_command_it_helps_and_is_wrong_use(run):
    code, out, _ = run()
    assert code == 2
    assert "Commands:" in out
    assert run("--help")[:2] == (0, out)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_help_with_an_example_and_json(run, name):
    code, out, err = run(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert f"\n    pmlkit {name} " in out or f"\n    pmlkit {name}\n" in out


@pytest.mark.parametrize("name", LEAVES)
def test_help_states_each_default_once(name):
    command = leaf(name)
    options = (param for param in command.params if isinstance(param, click.Option))
    for option in options:
        record = option.get_help_record(click.Context(command))
        assert record is None or record[1].count("[default:") <= 1, option.opts


@pytest.mark.parametrize("name", LEAVES)
def test_no_path_is_empty(name):
    for param in leaf(name).params:
        if isinstance(param.type, click.Path):
            with pytest.raises(click.BadParameter):
                param.type.convert("", param, None)


def test_an_empty_path_is_wrong_usage_and_not_the_lack_of_one(run):
    code, _, err = run("period", "hotcold", "--calibration", "")
    assert code == 2
    check_one_line(err, "--calibration.*the path is empty")


# Commands that take a trace, and all of it: they check it, or hand it on.
WHOLE_TRACES = {"advise", "annotate", "frontier", "info"}


def leaf(name):
    """Return the command of a leaf's name, such as "lab run"."""
    command = cli.cli
    for word in name.split():
        command = command.get_command(None, word)
    return command


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_that_reads_a_trace_takes_a_part_of_it(name):
    options = {o for p in leaf(name).params for o in p.opts}
    arguments = {param.name for param in leaf(name).params if isinstance(param, click.Argument)}
    reads = bool(arguments & {"trace", "traces"}) and name not in WHOLE_TRACES
    assert ({"--start", "--end", "--phase", "--between"} <= options) == reads


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_is_completed_with_all_of_its_options(name):
    from click.shell_completion import get_completion_class

    *groups, last = name.split()
    options = (param for param in leaf(name).params if isinstance(param, click.Option))
    long = {word for option in options for word in option.opts if word.startswith("--")}
    for shell in ("bash", "zsh", "fish"):
        complete = get_completion_class(shell)(cli.cli, {}, "pmlkit", "_PMLKIT_COMPLETE")
        assert last in {item.value for item in complete.get_completions(groups, last[:-1])}
        found = {item.value for item in complete.get_completions([*groups, last], "--")}
        assert found >= long | {"--json", "--help"}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_puts_no_colour_into_a_pipe(run, name):
    assert "\x1b" not in "".join(run(*name.split(), "--help")[1:])
    code, out, err = run(*name.split(), "--no-such-option")
    assert (code, out) == (2, "")
    check_one_line(err, "no-such-option")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_valid_calls(name):
    command = cli.cli.get_command(None, name)
    lines = [line.strip() for line in command.epilog.splitlines() if line.startswith("  pmlkit")]
    assert lines
    for line in lines:
        _, called, *words = shlex.split(line)
        assert called == name
        command.make_context(name, words)


def test_each_line_of_the_overview_is_whole(run):
    _, out, _ = run("--help")
    overview = out.split("Commands:\n")[1].split("\n\n")[0]
    assert "..." not in overview


NAMED = [
    ("compare h.trace --techniques", "pml,vmw", ["pml,vmware"]),
    ("plot h.trace", "mrc", ["mrc", "mrc-time"]),
    ("export h.trace", "ora", ["oracle-general"]),
    ("import", "lac", ["lackey"]),
    ("record", "hotc", ["hotcold"]),
    ("lab run", "kno", ["known"]),
    ("doctor", "x", ["xen"]),
    ("info", "hot", ["hotcold"]),
    ("plot", "data/redis-", ["data/redis-tides.trace"]),
    ("forecast", "redis-t", ["redis-tides"]),
    ("compare", "redis-t", ["redis-tides"]),
    ("wss hotcold --region", "h", ["hot"]),
    ("wss hotcold --kinds", "w", ["written"]),
    ("export hotcold csv --kinds", "written,r", ["written,read"]),
    ("mrc nothing --region", "", []),
]


@pytest.mark.parametrize(("words", "begun", "names"), NAMED)
def test_names_are_completed(words, begun, names, monkeypatch):
    from click.shell_completion import ShellComplete

    monkeypatch.chdir(Path(__file__).parents[2])
    complete = ShellComplete(cli.cli, {}, "pmlkit", "_PMLKIT_COMPLETE")
    assert [item.value for item in complete.get_completions(words.split(), begun)] == names


def test_a_bundled_trace_goes_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("wss", "hotcold", "--json")
    assert code == 0 and json.loads(out)[0]["pages"] > 300
    code, _, err = run("wss", "hotcodl")
    assert code == 1
    check_one_line(err, "no trace at hotcodl: do you mean the bundled 'hotcold'")
    (tmp_path / "hotcold").mkdir()  # what is there comes first
    assert run("wss", "hotcold")[0] == 1


@pytest.mark.parametrize("name", LEAVES)
def test_each_name_of_a_trace_is_of_one_type(name):
    from pmlkit.cli.parameters import TracePath

    named = [p for p in leaf(name).params if {p.name, p.metavar} & {"trace", "traces", "TRACE"}]
    assert all(isinstance(param.type, TracePath) for param in named)


def test_kinds_are_words_or_letters(run, trace):
    words = run("wss", trace, "--window", "10ms", "--kinds", "read,written", "--json")
    assert words == run("wss", trace, "--window", "10ms", "--kinds", "rw", "--json")
    code, _, err = run("wss", trace, "--kinds", "read,wrote")
    assert code == 2
    check_one_line(err, "use read, written, executed, page-tables, with commas between")


def test_shell_completion_works():
    words = {"COMP_WORDS": "pmlkit w", "COMP_CWORD": "1", "_PMLKIT_COMPLETE": "bash_complete"}
    assert spawn(env=os.environ | words).stdout == "plain,wss\n"
    source = spawn(env=os.environ | {"_PMLKIT_COMPLETE": "bash_source"})
    assert "_PMLKIT_COMPLETE=bash_complete" in source.stdout


# wss


def rows(out):
    return [(row["t_ns"], row["pages"]) for row in json.loads(out)]


def test_wss_prints_a_json_object_per_window(run, trace):
    code, out, err = run("wss", trace, "--window", "10ms", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found[0] == {
        "t_ns": 10_000_000,
        "pages": 3,
        "bytes": 3 * 4096,
        "asked_ns": 10_000_000,
        "effective_ns": 10_000_000,
        "phase": "a",
        "region:hot": 2,
        "region:cold": 1,
        "full": True,
    }
    assert rows(out) == [(10_000_000, 3), (20_000_000, 1)]


def test_the_rows_say_the_effective_t_as_the_note_does(run, tmp_path):
    lengths = [12_000_000, 14_000_000] * 5
    trace = write_irregular(tmp_path / "x.trace", [[(1, Kind.WRITE)]] * 10, lengths)
    words = ("wss", trace.path, "--window", "20ms")
    full = [row["effective_ns"] for row in json.loads(run(*words, "--json")[1]) if row["full"]]
    far = sum(abs(ns - 20_000_000) > 2_000_000 for ns in full)
    assert far and len(full) == 6
    note = f"in {far} of 6 windows the effective T differs by more than 10 %; its median is "
    assert note + format_ns(int(np.median(full))) in run(*words)[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--window 20ms", [(20_000_000, 3)]),
        ("--window 2r", [(20_000_000, 3)]),
        ("--window 2r --sliding", [(10_000_000, 3), (20_000_000, 3)]),
        ("--window 20ms --min-count 2", [(20_000_000, 1)]),
        ("--window 10ms --kinds w", [(10_000_000, 2), (20_000_000, 1)]),
        ("--window 10ms --kinds r", [(10_000_000, 1), (20_000_000, 0)]),
        ("--window 10ms --region cold", [(10_000_000, 1), (20_000_000, 0)]),
        ("--window 10ms --start 10ms", [(20_000_000, 1)]),
        ("--window 10ms --end 10ms", [(10_000_000, 3)]),
    ],
)
def test_wss_options(run, trace, options, expected):
    code, out, _ = run("wss", trace, "--json", *options.split())
    assert code == 0
    assert rows(out) == expected


def test_wss_reads_the_nested_pml_log(run, trace):
    code, out, _ = run("wss", trace / "pml.trace", "--window", "10ms", "--json")
    assert (code, rows(out)) == (0, [(10_000_000, 2), (20_000_000, 1)])


def test_wss_prints_the_same_table_that_python_gives(run, make_trace):
    made = make_trace(rounds=20, seed=3)
    _, out, _ = run("wss", made.path, "--window", "30ms", "--sliding", "--json")
    table = workingset.estimate(made, "30ms", step="sliding")
    assert json.loads(out) == json.loads(table.to_json(orient="records"))


def test_wss_for_people_has_a_line_per_window_that_is_never_folded(run, make_trace):
    regions = [(f"a region with a long name [{i}]", i, 1) for i in range(12)]
    code, out, err = run("wss", make_trace(regions=regions).path, "--window", "1r")
    lines = out.partition("\n\n")[2].splitlines()
    assert (code, err) == (0, "")
    assert len(lines) == 2 + 5 + 1  # the last one says what T is
    assert all(name in lines[0] for name, _, _ in regions)


# info


def test_info_without_a_trace_lists_the_recordings(run, monkeypatch, tmp_path):
    code, out, err = run("info", "--json")
    told = {one["name"]: one for one in json.loads(out)}
    assert (code, err) == (0, "")
    assert sorted(told) == recordings.bundled()
    for name, one in told.items():
        trace = recordings.open_trace(name)
        assert one["seconds"] == trace.duration_ns / 1e9
        assert (one["kind"], one["workload"]) == (trace.meta.kind, trace.meta.domain["name"])
        assert one["good_for"] and one["good_for"] in run("info")[1]
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    assert json.loads(run("info", "--json")[1]) == []


@pytest.mark.parametrize("word", sorted(MEANT))
def test_words_that_people_try_lead_to_a_command(run, word):
    code, _, err = run(word)
    assert code == 2
    check_one_line(err, f"No such command '{word}'")
    named = re.findall(r"`(?:pmlkit )?(\w+)|mean '(\w+)'", err.partition("(see")[0])
    assert named and all(set(pair) & set(COMMANDS) for pair in named)


def test_info_says_what_a_trace_is_and_measures_its_known_answers(run, trace):
    code, out, err = run("info", trace, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["kind"], told["rounds"], told["entries"]) == ("access", 2, 4)
    assert told["duration_ns"] == 20_000_000
    assert [phase["name"] for phase in told["phases"]] == ["a", "b"]
    assert told["regions"] == {"hot": 2, "cold": 1}
    answer = {"phase": "a", "region": "hot", "kind": "written", "expected": 2, "measured": 2}
    assert told["known"] == [{**answer, "met": True}]
    assert told["all_known_met"] is True
    code, out, _ = run("info", trace)
    assert code == 0
    assert re.search(r"a +hot +written +2 +2 +met", out)


def test_info_fails_if_a_known_answer_is_not_met(run, make_trace):
    wrong = [{**KNOWN[0], "pages": 3}]
    layout = {"phases": [("a", 0)], "regions": [("hot", 10, 2)]}
    path = make_trace(events=EVENTS, known=wrong, **layout).path
    code, out, err = run("info", path)
    assert (code, err) == (1, "")
    assert re.search(r"hot +written +3 +2 +NOT MET", out)
    code, out, _ = run("info", path, "--json")
    assert (code, json.loads(out)["all_known_met"]) == (1, False)


# simulate, plot, doctor


def test_simulate_makes_the_log_of_the_emulated_pml(run, trace, tmp_path):
    out = tmp_path / "pml.trace"
    code, said, err = run("simulate", trace, "-o", out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(said)["kind"] == "pml"
    for column in ("round", "gfn"):
        np.testing.assert_array_equal(
            Trace.open(out).to_pandas()[column], Trace.open(trace).pml.to_pandas()[column]
        )


def test_simulate_passes_its_options_on(run, trace, tmp_path):
    out = tmp_path / "pml.trace"
    options = ["--buffer", "2", "--buffers", "2", "--rearm", "never", "--rounds", "2"]
    assert run("simulate", trace, "-o", out, *options)[0] == 0
    made = Trace.open(out)
    asked = {"buffer_entries": 2, "buffers": 2, "rearm": "never", "rounds_per_round": 2}
    assert asked.items() <= made.meta.options.items()
    assert made.to_pandas()["gfn"].tolist() == [10, 11]


def test_plot_writes_the_figure_and_the_data_behind_it(run, make_trace, tmp_path):
    path = make_trace(rounds=20, guest=True).path
    stem = tmp_path / "figures" / "heat"
    code, out, _ = run("plot", path, "heat", "-o", stem, "--columns", "2", "--json")
    assert code == 0
    written = json.loads(out)
    assert all(os.path.getsize(name) for name in written)
    assert {os.path.splitext(name)[1] for name in written} >= {".pdf", ".svg", ".png", ".csv"}


@pytest.mark.parametrize("kind", ["pdf", "svg", "png", "PDF"])
def test_a_suffix_chooses_the_file(run, make_trace, tmp_path, kind):
    trace = make_trace(rounds=20).path
    for words in (("plot", trace, "wss"), ("mrc", trace)):
        assert run(*words, "-o", tmp_path / f"{words[0]}.v2.{kind}")[0] == 0
        pictures = {path.suffix for path in tmp_path.glob(f"{words[0]}*")} - {
            ".csv",
            ".parquet",
            ".txt",
        }
        assert pictures == {f".{kind.lower()}"}
        assert list(tmp_path.glob(f"{words[0]}.v2*.csv"))
    code, _, err = run("plot", trace, "wss", "-o", tmp_path / "x.eps")
    assert code == 2
    check_one_line(err, "cannot be written as .eps: use .pdf, .svg or .png")


def test_plot_lists_the_figures(run):
    code, out, _ = run("plot", "--list", "--json")
    assert code == 0
    assert {"wss", "heat", "surface"} <= json.loads(out).keys()


def test_doctor_fails_only_for_what_was_asked_for_by_name(run):
    assert run("doctor")[0] == 0
    code, out, err = run("doctor", "xen", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)[0]["ready"] is False


# record, as far as it goes without a guest


def test_record_lists_its_workloads(run):
    code, out, _ = run("record", "--list", "--json")
    told = {workload["name"]: workload for workload in json.loads(out)}
    assert code == 0
    assert told["hotcold"]["parameters"]["hot"]["default"] > 0
    code, out, _ = run("record", "--list")
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert (code, names) == (0, sorted(told))


def test_record_lists_a_workloads_parameters(run):
    code, out, _ = run("record", "--list", "hotcold")
    assert code == 0
    assert re.search(r"^hot +\d+ +\S", out, re.MULTILINE)


def test_record_passes_its_options_on(run, monkeypatch, trace, tmp_path):
    from pmlkit.sources.recorder import record as recorder
    from pmlkit.sources.recorder import recording

    calls = []

    def pretend(workload, out, options, progress):
        progress(recording.Progress(10**9, 5000, "a phase"))
        calls.append((workload, out, options))
        return Trace.open(trace)

    monkeypatch.setattr(recorder, "record", pretend)
    words = "--memory 1G --window 5Minsn --deterministic --cmdline quiet --set hot=7 --boot"
    code, out, err = run(
        "record", "hotcold", "-o", "x.trace", *words.split(), "--time-limit", "90s", "--overwrite"
    )
    ((workload, out_path, options),) = calls
    assert (code, err, out_path) == (0, "", "x.trace")
    assert workload.parameters["hot"].default == 7
    assert options == recorder.RecordOptions(
        memory_mib=1024,
        window="5Minsn",
        clock="guest",
        cmdline="quiet",
        boot=True,
        time_limit_s=90,
        overwrite=True,
    )
    assert "known answers" in out


@pytest.mark.parametrize(
    "given, clock",
    [({}, "guest"), ({"clock": "host"}, "host"), ({"deterministic": True}, "guest"),
     ({"deterministic": False}, "host"), ({"clock": "guest", "deterministic": True}, "guest")],
)  # fmt: skip
def test_a_recording_goes_by_the_guests_clock_unless_told_otherwise(given, clock):
    from dataclasses import replace

    from pmlkit.sources.recorder.recording import RecordOptions

    options = RecordOptions(**given)
    assert (options.clock, options.icount) == (clock, clock == "guest")
    assert replace(options, boot=True).clock == clock


@pytest.mark.parametrize(
    "words, says",
    [("--clock host --deterministic", "contradict"), ("--clock sundial", "sundial")],
)
def test_clocks_that_cannot_be_are_wrong_use(run, words, says):
    code, _, err = run("record", "hotcold", "-o", "x.trace", *words.split())
    assert code == 2 and says in err


def test_info_says_by_which_clock(make_trace, run):
    for kind, says in (("icount", "guest instructions (icount)"), ("host", "T is wall time")):
        made = make_trace(
            f"{kind}.trace", clock={"kind": kind, "ns_per_insn": 8.0 if kind == "icount" else None}
        )
        assert says in run("info", str(made.path))[1]


@pytest.mark.parametrize("missing", ["qemu-system-x86_64", "gcc"])
def test_record_without_a_tool_names_its_package_and_leaves_nothing(missing, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    if missing == "gcc":
        fake = tools / "qemu-system-x86_64"
        fake.write_text("#!/bin/sh\necho QEMU emulator version 7.2.22\n")
        fake.chmod(0o755)
    env = os.environ | {"PATH": str(tools), "PMLKIT_CACHE": str(tmp_path / "cache")}
    done = spawn("record", "hotcold", "-o", "x.trace", env=env, cwd=tmp_path)
    assert done.returncode == 1
    check_one_line(done.stderr, f"{missing} is not installed: apt-get install")
    assert not list(tmp_path.glob("x.trace*"))


# Bad input


def flip(path, at=200):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def set_version(path):
    path.write_text(path.read_text().replace('"version": 1', '"version": 7', 1))


DAMAGE = {
    "a flipped bit of the entries": ("entries/part-00000.parquet", flip, "part-00000.parquet"),
    "truncated entries": ("entries/part-00000.parquet", cut, "part-00000.parquet"),
    "a flipped bit of a table": ("rounds.parquet", flip, "rounds.parquet"),
    "a lost table": ("batches.parquet", lambda path: path.unlink(), "batches.parquet"),
    "another version": ("trace.json", set_version, "format version 7.*reads version 1"),
    "an edited description": (
        "trace.json",
        lambda path: path.write_text(path.read_text().replace("synthetic", "authentic")),
        "trace.json",
    ),
    "a truncated description": ("trace.json", cut, "trace.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("command", ["info", "wss"])
def test_damage_is_refused_by_name(run, trace, command, what):
    file, damage, says = DAMAGE[what]
    damage(trace / file)
    code, out, err = run(command, trace, "--json", *(["--window", "1r"] * (command == "wss")))
    assert (code, out) == (1, "")
    check_one_line(err, says)
    assert ": " in err.removeprefix("pmlkit: "), "what to do is missing"


def test_info_finds_damage_that_wss_does_not_read(run, trace):
    flip(trace / "pml.trace" / "entries" / "part-00000.parquet")
    code, _, err = run("info", trace)
    assert code == 1
    check_one_line(err, "part-00000.parquet")


@pytest.fixture
def strays(tmp_path, monkeypatch, trace):
    """A folder with a text file, a foreign folder and a trace; it is the working directory."""
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "trace.json").write_text('{"format": "another"}')
    (tmp_path / "x.spool").write_bytes(b"not a spool at all, but long enough to be one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COULD_NOT = [
    ("info nowhere.trace", "no trace at nowhere.trace: "),
    ("info file.txt", "file.txt is not a pmlkit trace"),
    ("info folder", "folder is not a pmlkit trace"),
    ("wss nowhere.trace", "no trace at nowhere.trace: "),
    ("wss h.trace --window 5ms", "5 ms is not possible.* 10 ms"),
    ("wss h.trace --window 15ms", "15 ms is not possible.* 10 ms"),
    ("wss h.trace/pml.trace --window 10ms --kinds r", "writes only"),
    ("simulate h.trace -o h.trace", "h.trace exists already"),
    ("simulate h.trace/pml.trace -o new.trace", "no accesses"),
    ("simulate h.trace -o file.txt/new.trace", "cannot write .*new.trace"),
    ("simulate nowhere.trace -o new.trace", "no trace at nowhere.trace"),
    ("ingest nowhere.spool -o new.trace", "nowhere.spool"),
    ("ingest x.spool -o new.trace", "x.spool"),
    ("ingest folder -o new.trace", "folder"),
    ("plot nowhere.trace wss -o f", "no trace at nowhere.trace"),
    ("plot h.trace heat -o file.txt/f", "cannot write"),
    ("record nosuchworkload -o new.trace", "no such workload"),
    ("record hotcold --set hot=many -o new.trace", "hot cannot be 'many'"),
    ("record hotcold --set nosuch=1 -o new.trace", "no parameter nosuch"),
    ("record file.txt -o new.trace", "file.txt"),
    ("record folder -o new.trace", "folder"),
    ("record hotcold -o h.trace", "h.trace exists already"),
    ("record hotcold -o file.txt/new.trace", "cannot write .*new.trace"),
]
WRONG_USE = [
    ("bogus", "No such command 'bogus'"),
    ("wss", "Missing argument 'TRACE...'.*pmlkit wss --help"),
    ("wss h.trace --nonsense", "--nonsense"),
    ("wss h.trace --window soon", "'soon' is not a window"),
    ("wss h.trace --window 0ms", "window"),
    ("wss h.trace --window -1s", "'-1s' is not a window"),
    ("wss h.trace --window 10ms --region attic", "'attic'.* hot, cold"),
    ("wss h.trace --window 10ms --min-count 0", "0"),
    ("wss h.trace --window 10ms --kinds rq", "'rq'"),
    ("wss h.trace --window 10ms --page-tables both", "'both'"),
    ("wss h.trace --window 10ms --start yesterday", "'yesterday' is not a duration"),
    ("wss h.trace --window 10ms --start 20ms --end 10ms", "ends before it starts"),
    ("wss h.trace --window 10ms --start 1h", "h.trace lasts .* a round between them"),
    ("mrc h.trace --start 1h", "h.trace lasts .* a round between them"),
    ("mrc h.trace --method lru", "'lru'"),
    ("mrc h.trace --rate 2", "2"),
    ("simulate h.trace", "Missing option '-o'"),
    ("simulate h.trace -o new.trace --start 20ms --end 10ms", "ends before it starts"),
    ("simulate h.trace -o new.trace --start 1h", "no round between --start and --end"),
    ("compare h.trace --window 10ms --start 20ms --end 10ms", "ends before it starts"),
    ("compare h.trace --window 10ms --start 1h", "h lasts .* a window T of 10 ms in it"),
    ("compare h.trace --published --start 10ms", "leave out --start and --end"),
    ("simulate h.trace -o new.trace --buffers 3", "3 is not in the range"),
    ("simulate h.trace -o new.trace --buffer 0", "0 is not in the range"),
    ("simulate h.trace -o new.trace --rearm later", "'later'"),
    ("plot h.trace", "name a TRACE, then a FIGURE"),
    ("plot h.trace heat", "give one: -o STEM for files, or --terminal"),
    ("plot h.trace portrait", "no figure 'portrait': choose from wss"),
    ("plot h.trace portrait -o f", "no figure 'portrait': choose from wss"),
    ("plot h.trace mcr -o f", "do you mean 'mrc'"),
    ("export h.trace damoo -o f", "do you mean 'damo'"),
    ("compare h.trace --techniques pml-treshold", "do you mean 'pml-threshold'"),
    ("doctor xenn", "no capability 'xenn': do you mean 'xen'?"),
    ("record", "name a WORKLOAD"),
    ("record hotcold", "-o NAME.trace"),
    ("record hotcold -o new.txt", "NAME.trace"),
    ("record hotcold -o new.trace --memory lots", "'lots' is not a size"),
    ("record hotcold -o new.trace --memory 1", "a guest with 1 MiB of memory"),
    (
        "record hotcold -o new.trace --memory 64G",
        "a guest with 64 GiB of memory: give it 64 MiB to 3 GiB",
    ),
    ("record hotcold -o new.trace --memory 100K", "whole number of MiB"),
    ("record hotcold -o new.trace --window 1ns", "too short"),
    ("record hotcold -o new.trace --window fast", "'fast'"),
    ("record hotcold -o new.trace --set hot", "name=value"),
    ("record hotcold -o new.trace --time-limit never", "'never' is not a duration"),
]


@pytest.mark.parametrize(("words", "says"), COULD_NOT)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(run, strays, words, says):
    check_refusal(run, strays, words, says, 1)


@pytest.mark.parametrize(("words", "says"), WRONG_USE)
def test_wrong_use_is_one_line_and_exit_code_2(run, strays, words, says):
    check_refusal(run, strays, words, says, 2)


def check_refusal(run, folder, words, says, expected):
    before = sorted(folder.rglob("*"))
    code, out, err = run(*words.split())
    check_one_line(err, says)
    assert (code, out) == (expected, "")
    assert sorted(folder.rglob("*")) == before, "something was left behind"


# Errors of other kinds


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(28, "No space left on device", "x.trace"), 1, "x.trace: No space left on device"),
        (PermissionError(13, "Permission denied"), 1, "Permission denied"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "a/b: Permission denied: check its"),
        (click.ClickException("as click says it"), 1, "as click says it"),
        (ValueError("two\nlines"), 1, "ValueError: two lines: this is a defect.*PMLKIT_DEBUG=1"),
    ],
)
def test_any_exception_becomes_one_line(run, monkeypatch, error, code, says):
    from pmlkit import doctor

    def fail(names):
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    found, out, err = run("doctor")
    assert (found, out) == (code, "")
    # The newline before "interrupted" ends the line on which the terminal shows ^C.
    check_one_line(err.removeprefix("\n"), says)


def test_debugging_shows_the_traceback(run, monkeypatch):
    monkeypatch.setenv("PMLKIT_DEBUG", "1")
    code, _, err = run("info", "nowhere.trace")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("pmlkit: there is no trace at nowhere.trace")


def test_a_reader_that_goes_away_is_no_error(make_trace):
    # More than a pipe holds, so that the writer is stopped in the middle.
    path = make_trace(rounds=2000, pages=1, pml=False).path
    command = shlex.join([*COMMAND, "wss", str(path), "--window", "1r", "--json"])
    done = subprocess.run(["bash", "-c", f"{command} | head -n 1"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_standard_output_on_a_full_disk_is_one_line(trace):
    with open("/dev/full", "w") as full:
        done = spawn("info", trace, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    check_one_line(done.stderr, "cannot write the standard output .no space left.: free some space")


# Terminals


def on_a_terminal(*words, **env):
    """Run a command on a terminal of its own; return all that it shows."""
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "100"} | env,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # the terminal is closed once the process has gone
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_colours_are_for_terminals_and_obey_no_color(run, trace):
    coloured = r"\x1b\[[0-9;]*3[0-9]m"
    assert re.search(coloured, on_a_terminal("info", trace))
    assert not re.search(coloured, on_a_terminal("info", trace, NO_COLOR="1"))
    assert "\x1b" not in run("info", trace)[1]


def test_json_on_a_terminal_is_json_alone(trace):
    assert json.loads(on_a_terminal("info", trace, "--json"))["kind"] == "access"


# mrc


def test_mrc_prints_each_method_as_json(run, trace, tmp_path):
    words = ["--method", "exact", "--method", "shards", "--rate", "1", "--target", "0.8", "--json"]
    code, out, err = run("mrc", trace, *words, "-o", tmp_path / "f" / "mrc")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert sorted(found) == ["exact", "shards"]
    # 10, 20, 11, then 10 again: its distance is 2.
    for curve in found.values():
        assert curve["sizes_pages"] == [0, 1, 2, 3] and curve["pages_for"] == {"0.8": 3}
        assert curve["miss_ratio"] == [1, 1, 1, 0.75]
        assert (curve["uses"], curve["pages"], curve["cold"]) == (4, 3, 0.75)
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        f"mrc.{kind}" for kind in ("csv", "parquet", "pdf", "png", "svg", "txt")
    ]


def test_the_figure_of_mrc_over_time_shows_what_the_table_has(run, tmp_path):
    words = ["--window", "1s", "--kinds", "written", "--region", "hot", "-o", tmp_path / "hot.png"]
    code, out, err = run("mrc", "hotcold", *words, "--json")
    assert (code, err) == (0, "")
    table, drawn = pd.DataFrame(json.loads(out)), pd.read_csv(tmp_path / "hot.csv")
    assert drawn["uses"].sum() > 0
    for name in ("t_ns", "pages", "uses", "miss_ratio"):
        np.testing.assert_allclose(drawn[name], table[name].astype(float))
    assert "the region hot" in (tmp_path / "hot.txt").read_text()


def test_mrc_over_time_and_as_people_read_it(run, trace):
    code, out, _ = run("mrc", trace, "--window", "10ms", "--json")
    rows = json.loads(out)
    assert code == 0 and {row["t_ns"] for row in rows} == {10_000_000, 20_000_000}
    assert {row["miss_ratio"] for row in rows if row["pages"] >= 3} == {0.0, 1.0}
    for words in (["--window", "10ms"], ["--method", "aet"], ["--method", "shards", "--rate", "1"]):
        code, out, err = run("mrc", trace, *words)
        assert (code, err) == (0, "") and "1.0000" in out


def test_mrc_looks_at_the_time_that_is_asked_for(run, trace):
    _, out, _ = run("mrc", trace, "--start", "10ms", "--kinds", "w", "--json")
    assert json.loads(out)["exact"]["uses"] == 1


def test_that_a_file_cannot_be_read_is_not_taken_for_wrong_use(make_trace, monkeypatch):
    made = make_trace(rounds=1)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert cli.main(["info", str(made.path)]) == 0  # opening it decides


def test_a_missing_package_is_no_defect_of_pmlkit(run, trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("pmlkit.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("pmlkit.figures", raising=False)
    code, _, err = run("plot", trace, "wss", "-o", trace.parent / "f")
    assert code == 1
    check_one_line(err, r"the Python package matplotlib\S* is missing: `pmlkit doctor`")
