# SPDX-License-Identifier: Apache-2.0
"""The command that holds the law against runs: what it keeps if it is interrupted."""

import pandas as pd
import pytest

from experiments import law


def row(recording, window):
    numbers = {"looks": 4, "predicted": 0.123456, "measured": 0.2}
    return {"recording": recording, "window": window, "technique": "prl", **numbers}


def test_an_interrupted_run_keeps_the_recordings_that_are_done(tmp_path, monkeypatch):
    def rows(name, windows):
        if name == law.EMULATED[2]:
            raise KeyboardInterrupt
        yield from (row(name, window) for window in windows)

    monkeypatch.setattr(law, "rows", rows)
    with pytest.raises(KeyboardInterrupt):
        law.main(str(tmp_path))
    for window in (law.WINDOW, *law.OTHERS):
        table = pd.read_csv(tmp_path / law.file_of(window))
        assert table["recording"].tolist() == list(law.EMULATED[:2])
        assert table["predicted"].tolist() == [0.1235] * 2
    assert not (tmp_path / "made.json").exists()  # which says what made the whole
