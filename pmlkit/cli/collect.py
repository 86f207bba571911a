# SPDX-License-Identifier: Apache-2.0
"""`pmlkit collect`: the log of a Xen host's domain becomes a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.log_options import log_fields, log_options
from pmlkit.cli.options import DURATION, as_json, example, option, output, overwrite, say
from pmlkit.cli.show import show
from pmlkit.xen.job import MODES

if TYPE_CHECKING:
    from typing import Any


_EXAMPLES = example(
    "pmlkit collect web1 -o web1.trace --rounds 60",
    "pmlkit collect web1 -o web1.trace --host root@dom0 --period 500ms --harvest",
    "pmlkit collect 7 -o free.trace --free --period 1s --ring 1024",
)


@click.command(epilog=_EXAMPLES)
@click.argument("domain")
@output("NAME.trace", "The trace to write.", required=True)
@option("--host", metavar="USER@DOM0", help="Run the agent there, by SSH; default: here.")
@option("--rounds", default=0, type=IntRange(0), help="Rounds to log; 0: until Ctrl-C.")
@option("--period", default="1s", type=DURATION, help="Length of a round.")
@option("--free", is_flag=True, help="Never pause the guest: rounds are cut from the log later.")
@option("--mode", default="auto", type=Choice(MODES), help="The interface: "
        "the patched Xen's, or stock log-dirty.")  # fmt: skip
@option("--ring", "slots", default=64, type=IntRange(2, 4096), help="Buffers that a ring holds.")
@log_options
@option("--bitmaps", is_flag=True, help="Keep the log-dirty bitmaps in the spool.")
@option("--state", default="/run/pmlkit", help="Folder in dom0 that says what runs.")
@option("--keep", is_flag=True, help="Keep the spool beside the trace.")
@overwrite
@as_json
def collect(
    domain: str,
    output: str,
    host: str | None,
    as_json: bool,
    keep: bool,
    overwrite: bool,
    **how: Any,
) -> None:
    """Log DOMAIN (a name or an id) and make a trace of it.

    Ctrl-C ends it, and so does the end of the domain; log-dirty mode is off afterwards. On an
    unpatched Xen the trace holds the distinct pages of each round.
    """
    from pmlkit.cli import console, live
    from pmlkit.sources.host.collection import Collection, CollectOptions

    options = CollectOptions(**log_fields(how))
    run = Collection(domain, output, options, host, overwrite=overwrite, keep=keep, heard=say)
    with live.watching(domain, quiet=as_json) as watch:
        trace = run.run(watch)
    show(as_json, lambda: live.summary(run), console.trace, trace, [])
