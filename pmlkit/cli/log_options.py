# SPDX-License-Identifier: Apache-2.0
"""The options of `collect` and `lab run` that say how a domain is logged.

Apart from `options`, as each is a field of `pmlkit.xen.job.LogOptions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import SIZE, option
from pmlkit.xen.job import BEST_HARVEST, DRAWS, HARVESTS, PAGE_TABLES, REARM

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Json


class _Harvest(Choice):  # type: ignore[type-arg]
    """A kind of harvest. What follows an option without its value is taken for the value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            known = ", ".join(map(str, self.choices))
            self.fail(f"{value!r} is no harvest: put one of {known} after --harvest, or nothing, "
                      "at the end of the line", param, ctx)  # fmt: skip
        return value


_OPTIONS = (
    option("--most", "most_bytes", default="0", type=SIZE, help="End after the round in which the "
           "spool has grown to this size, such as 2G; 0: no limit."),
    option("--rearm", default="round", type=Choice(REARM), help="When a logged page is "
           "armed again."),
    option("--rearm-every", default=1, type=IntRange(1, 64), help="With flush: every so "
           "many buffers."),
    option("--buffers", default=2, type=IntRange(1, 8), help="Hardware buffers per vCPU."),
    option("--page-tables", default="mark", type=Choice(list(PAGE_TABLES)), help="Mark them in the "
           "log, drop them, no distinction; snapshot: and keep the entries of those logged; clear: "
           "and clear the guest's accessed flags in them."),
    option("--harvest", is_flag=False, flag_value=BEST_HARVEST, type=_Harvest(HARVESTS[1:]),
           help="Read and clear accessed flags at each round's end. Without a value, pruned: of "
           "all that the EPT's upper levels say was used. accessed: of all memory; guided: of what "
           "the logged page tables lead to; both; sampled: of a sample of the pruned."),
    option("--harvest-every", default=1, type=IntRange(1), help="In every so many rounds."),
    option("--one-in", default=16, type=IntRange(2, 512), help="sampled: look at one frame of so "
           "many."),
    option("--draw", default=DRAWS[0], type=Choice(DRAWS), help="sampled: draw other frames in "
           "each round; or fixed, for windows of several rounds."),
)  # fmt: skip


def log_options(command: Callable[..., object]) -> Callable[..., object]:
    """Declare the options that `collect` and `lab run` share."""
    for declare in reversed(_OPTIONS):
        command = declare(command)
    return command


def log_fields(values: Json) -> Json:
    """Return the values of a command line as fields of `pmlkit.xen.job.LogOptions`."""
    fields = {**values, "harvest": values["harvest"] or "", "period_s": values["period"] / 1e9}
    del fields["period"]
    return fields
