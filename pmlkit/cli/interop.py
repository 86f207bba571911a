# SPDX-License-Identifier: Apache-2.0
"""`pmlkit export` and `pmlkit import`: traces to and from the files of other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange

from pmlkit.cli.options import as_json, example, kinds, names, option, output, overwrite, span
from pmlkit.cli.parameters import DURATION, MEMORY, PAGES, PATH, SIZE, TRACE
from pmlkit.cli.show import show, show_trace
from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.trace.reader import Trace


@click.command(
    epilog=example(
        "pmlkit export --list",
        "pmlkit export redis damo -o damon.data --window 100ms",
        "pmlkit export redis oracle-general -o redis.oracleGeneral",
    )
)
@click.argument("trace", type=TRACE, required=False)
@click.argument("format", required=False, shell_complete=names("pmlkit.interop.formats:FORMATS"))
@output("FILE", "The file to write.")
@option("--list", "list_them", is_flag=True, help="List the formats, one per line.")
@option(
    "--window", type=DURATION, help="Length of a snapshot (damo), or of a tick (oracle-general)."
)
@kinds(default=None)
@span
@overwrite
@as_json
def export(
    trace: Trace | None,
    format: str | None,
    output: str | None,
    list_them: bool,
    start: str | int | None,
    end: str | int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write TRACE in another program's FORMAT.

    Formats that keep the order get each use once. In a recording, a page has one use per round, as
    in `pmlkit mrc`. CSV gets every entry.
    """
    if list_them:
        return _list("export", as_json)
    if trace is None or format is None or output is None:
        raise UsageError("name a TRACE, a FORMAT (`pmlkit export --list` lists them) and -o FILE")
    from pmlkit import interop
    from pmlkit.cli import console
    from pmlkit.selection import times_ns
    from pmlkit.trace.reader import Trace

    with console.busy("writing", quiet=as_json):
        opened = Trace.open(trace)
        start_ns, end_ns = times_ns(opened, start, end)
        count = interop.export(opened, format, output, start_ns=start_ns, end_ns=end_ns, **options)
    line = f"{output}: {count:,} {interop.FORMATS[format].unit}"
    show(as_json, {"path": output, "count": count}, click.echo, line, indent=None)


@click.command(
    "import",
    epilog=example(
        "pmlkit import --list",
        "pmlkit import oracle-general x.oracleGeneral.zst -o x.trace",
        "pmlkit import csv x.csv -o x.trace --columns time=ts,obj=lbn,size=len --unit 512",
        "pmlkit import lackey lackey.log -o ls.trace --instructions 100000",
        "pmlkit import kvm-dirty-ring trace.dat -o vm.trace --kernel 6.1",
        "pmlkit import query-dirty-rate answers.json -o rates.csv",
    ),
)
@click.argument("format", required=False, shell_complete=names("pmlkit.interop.formats:FORMATS"))
@click.argument("file", type=PATH, required=False)
@output("NAME.trace", "The trace to write (for query-dirty-rate, a table NAME.csv or .parquet).")
@option("--list", "list_them", is_flag=True, help="List the formats, one per line.")
@option("--window", type=DURATION,
        help="Length of a tick (oracle-general, lcs; 1s), an interval (vscsi, csv, parquet), or a "
             "round (kvm-dirty-ring; until the rings' reset).")  # fmt: skip
@option("--kernel", metavar="RELEASE",
        help="The host's Linux; it sets the order in a drain (kvm-dirty-ring).")  # fmt: skip
@option("--page-size", type=PAGES,
        help="Size of the pages of requests [4KiB]. none: each object is a page.")  # fmt: skip
@option("--unit", type=SIZE,
        help="Bytes in a unit of an object's number, such as 512 for sectors.")  # fmt: skip
@option("--columns", metavar="ROLE=NAME,...",
        help="Columns with time, obj, size, op and vcpu (csv, parquet).")  # fmt: skip
@option("--separator", help="One character, tab or space (csv with --columns).")
@option(
    "--header/--no-header",
    default=None,
    help="Whether the first line contains names (csv with --columns).",
)
@option("--time-unit", type=Choice(["s", "ms", "us", "ns"]),
        help="Unit of the times (csv, parquet). [default: s]")  # fmt: skip
@option(
    "--instructions",
    type=IntRange(1),
    help="Number of instructions in a round (lackey). [default: 1000000]",
)
@option(
    "--memory",
    "memory_mib",
    type=MEMORY,
    help="The machine's memory. [default: up to the highest page]",
)
@overwrite
@as_json
def import_(
    format: str | None,
    file: str | None,
    output: str | None,
    list_them: bool,
    memory_mib: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert a FILE of another program to a trace.

    The formats csv, lcs, oracle-general and vscsi may be compressed (.zst, .gz). If a file keeps
    the order, every request becomes a use, and a new round begins when a page returns within an
    interval. The notes count merged and omitted rows.
    """
    if list_them:
        return _list("load", as_json)
    if format is None or file is None or output is None:
        raise UsageError(
            "name a FORMAT (`pmlkit import --list` lists them), a FILE and -o NAME.trace"
        )
    from pmlkit import interop
    from pmlkit.cli import console
    from pmlkit.trace.reader import Trace

    memory_bytes = memory_mib << 20 if memory_mib else None
    with console.busy("reading", quiet=as_json):
        made = interop.load(format, file, output, memory_bytes=memory_bytes, **options)
    if not isinstance(made, Trace):
        line = f"{output}: {len(made)} rows"
        show(as_json, {"path": output, "rows": len(made)}, click.echo, line, indent=None)
    else:
        show_trace(as_json, made)


def _list(way: str, as_json: bool) -> None:
    from pmlkit import interop
    from pmlkit.cli import console

    formats = {name: f.about for name, f in interop.FORMATS.items() if way in f.ways}
    show(as_json, formats, console.named, "format", formats)
