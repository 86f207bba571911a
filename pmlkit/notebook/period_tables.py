# SPDX-License-Identifier: Apache-2.0
"""Tables of the advice on periods, for the notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import described, format_ns

if TYPE_CHECKING:
    from pmlkit.period.advice import Advice

__all__ = ["advice_words", "constants", "costs"]

_SHOWN = 8  # number of periods, so that the table fits a column


def costs(advice: Advice) -> pd.DataFrame:
    """Return the costs of some periods, the chosen one among them.

    Returns
    -------
    pandas.DataFrame
        ``period``; the mean working set, ``mean W``, in MiB, and by how many percent it grows if
        the period doubles, ``growth``; ``exits`` per second; ``guest`` and ``host``, percent of a
        processor's time; ``chosen``.
    """
    table = advice.table
    step = max(len(table) // _SHOWN, 1)
    rows = table[(table.index % step == 0) | (table.period_ns == advice.period_ns)]
    rows = pd.DataFrame(
        {
            "period": [format_ns(int(period)) for period in rows.period_ns],
            "mean W": (rows.pages * PAGE_SIZE / (1 << 20)).round(2),
            "growth": (rows.sensitivity * 100).round(2),
            "exits": rows.exits_per_s.round(2),
            "guest": (rows.guest_overhead * 100).round(4),
            "host": (rows.host_overhead * 100).round(4),
            "chosen": rows.period_ns == advice.period_ns,
        }
    ).reset_index(drop=True)
    units = {"mean W": "MiB", "growth": "%", "exits": "1/s", "guest": "%", "host": "%"}
    return described(rows, units, {"growth": "the trace is too short for twice this period"})


def constants(advice: Advice) -> pd.DataFrame:
    """Return the constants behind the costs, one line each, with the source of the number."""
    return pd.DataFrame({"constant": list(advice.constants.lines())})


def advice_words(advice: Advice) -> pd.DataFrame:
    """Return the advice, a sentence in each row."""
    return pd.DataFrame({"advice": list(advice.words)})
