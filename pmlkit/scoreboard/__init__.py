# SPDX-License-Identifier: Apache-2.0
"""The score of one technique or forecaster over many recordings, as tables and a page.

Modules
-------
technique   a technique's error and cost at each setting; the settings that stand for it; two scores
forecaster  a quantile regressor's cost, next to that of the simple rules
folders     folders of results: tables, and a page in Markdown
"""

from pmlkit.scoreboard.folders import (
    details,
    forecast_details,
    forecast_page,
    page,
    read,
    save,
    save_forecasts,
)
from pmlkit.scoreboard.forecaster import forecast_lines, score_forecaster
from pmlkit.scoreboard.technique import BUDGETS, Score, best, compare, score, standing

__all__ = [
    "BUDGETS",
    "Score",
    "best",
    "compare",
    "details",
    "forecast_details",
    "forecast_lines",
    "forecast_page",
    "page",
    "read",
    "save",
    "save_forecasts",
    "score",
    "score_forecaster",
    "standing",
]
