# SPDX-License-Identifier: Apache-2.0
"""The options of `collect` and `lab run` for logging a domain.

It is separate from `options`, because each option is a field of `pmlkit.xen.job.LogOptions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import option
from pmlkit.cli.parameters import SIZE_OR_0
from pmlkit.xen.job import BEST_HARVEST, DRAWS, HARVESTS, PAGE_TABLES, REARM

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Json


class _Harvest(Choice):  # type: ignore[type-arg]
    """A kind of harvest. click takes the next word for the value of an option without a value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            known = ", ".join(map(str, self.choices))
            self.fail(f"{value!r} is not a harvest: put one of {known} after --harvest, or "
                      "nothing, at the end of the line", param, ctx)  # fmt: skip
        return value


_OPTIONS = (
    option("--most", "most_bytes", default="0", type=SIZE_OR_0,
           help="End after the round in which the spool exceeds this size, such as 2G; 0 means no "
                "limit."),
    option("--rearm", default="round", type=Choice(REARM), help="When a logged page is re-armed."),
    option("--rearm-every", default=1, type=IntRange(1, 64),
           help="With --rearm flush, re-arm after this number of buffers."),
    option("--buffers", default=2, type=IntRange(1, 8), help="Number of buffers per vCPU."),
    option("--page-tables", default="mark", type=Choice(list(PAGE_TABLES)),
           help="Page tables are marked in the log (mark), left out (drop), or not distinguished "
                "(off). With snapshot, their entries are kept, too. With clear, the guest's "
                "accessed flags in them are also cleared."),
    option("--harvest", is_flag=False, flag_value=BEST_HARVEST, type=_Harvest(HARVESTS[1:]),
           help="Read and clear accessed flags at each round's end. With pruned, the default "
                "without a value, those of the regions that the EPT's upper levels show as used. "
                "With sampled, a sample of these. With accessed, those of all memory. With guided, "
                "those of the frames that the logged page tables map. With both, these and then "
                "all."),
    option("--harvest-every", default=1, type=IntRange(1),
           help="Harvest once in this number of rounds."),
    option("--one-in", default=16, type=IntRange(2, 512),
           help="Examine one frame in this number (sampled)."),
    option("--draw", default=DRAWS[0], type=Choice(DRAWS),
           help="Draw new frames in each round, or use a fixed sample, which suits windows of "
                "several rounds (sampled)."),
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
