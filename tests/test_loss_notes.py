# SPDX-License-Identifier: Apache-2.0
"""A recording that lost entries: no answer and no figure leaves this out."""

import numpy as np
import pyarrow as pa
import pytest
from factories import make_trace, reseal

from pmlkit import cli, compare, techniques
from pmlkit.techniques.recorded import Recorded
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

LOST = 7


def losing(path, kind="pml", **how):
    """Write a trace that lost `LOST` entries in its third round."""
    rng = np.random.default_rng(1)
    events = [[(int(p), Kind.WRITE) for p in rng.permutation(64)[:20]] for _ in range(400)]
    make_trace(path, events=events, kind=kind, overwrite=True, **how)
    trace = Trace.open(path)
    tables = {}
    for name in ("rounds", "batches"):
        table = trace.table(name)
        lost = np.zeros(len(table), np.uint64)
        lost[2] = LOST
        at = table.schema.get_field_index("lost")
        tables[f"{name}.parquet"] = table.set_column(at, table.schema.field(at), pa.array(lost))
    reseal(path, tables, lost=LOST)
    return Trace.open(path)


NOTE = f"{LOST} of 8,007 entries were lost, so pages may be missing"


@pytest.mark.parametrize(
    "words",
    [
        "wss x.trace",
        "wss x.trace --summary --json",
        "wss x.trace other.trace",
        "mrc x.trace",
        "mrc x.trace other.trace",
        "mrc x.trace --window 1s",
        "info x.trace",
        "diff x.trace other.trace",
        "period x.trace",
        "period x.trace --json",
        "advise x.trace --window 100ms",
        "forecast x.trace --window 100ms",
        "plot x.trace wss -o figure",
    ],
)
def test_what_a_log_lost_is_said_beside_every_answer(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    losing(tmp_path / "x.trace")
    make_trace(tmp_path / "other.trace", rounds=400, kind="pml")
    assert cli.main(words.split()) == 0
    out = capsys.readouterr().out
    if words.startswith("plot"):
        out = (tmp_path / "figure.txt").read_text()
    assert NOTE in " ".join(out.split())


@pytest.mark.parametrize("of_log", [False, True])
def test_a_run_of_a_technique_notes_what_the_recording_or_its_log_lost(tmp_path, of_log):
    trace = losing(tmp_path / "x.trace", kind="access", pml=False)
    recorded = Recorded.of_log(losing(tmp_path / "log.trace")) if of_log else Recorded.of(trace)
    assert NOTE in techniques.run("pml", recorded, "100ms").notes
    assert recorded.losses == (NOTE,)


def test_a_comparison_says_what_the_recording_lost(tmp_path):
    trace = losing(tmp_path / "x.trace", kind="access", pml=False)
    comparison = compare.compare([trace.path], compare.plan("100ms", "pml"))
    assert comparison.caption.endswith(f". Note: x: {NOTE}")


def test_a_recording_without_losses_has_no_note(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "x.trace"))
    assert (trace.meta.loss_note, Recorded.of(trace).losses) == ("", ())
