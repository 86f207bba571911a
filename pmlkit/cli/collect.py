# SPDX-License-Identifier: Apache-2.0
"""`pmlkit collect`: the log of a Xen host's domain, or of a VM on a KVM host, becomes a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange
from click.core import ParameterSource

from pmlkit.cli.log_options import log_fields, log_options
from pmlkit.cli.options import as_json, example, option, output, overwrite, say
from pmlkit.cli.parameters import DURATION, NAME
from pmlkit.cli.show import show
from pmlkit.errors import UsageError
from pmlkit.kvm import job as kvm
from pmlkit.xen.job import MODES

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.sources.host.collection import HowToCollect
    from pmlkit.types import Json


_EXAMPLES = example(
    "pmlkit collect web1 -o web1.trace --rounds 60",
    "pmlkit collect web1 -o web1.trace --host root@dom0 --period 500ms --harvest",
    "pmlkit collect 7 -o free.trace --free --period 1s --ring 1024",
    "pmlkit collect --kvm web1 -o web1.trace --host root@kvmhost --rounds 60",
)
_SHARED = ("domain", "vm", "output", "host", "as_json", "keep", "overwrite", "rounds", "period",
           "most_bytes", "mode", "page_tables", "harvest", "one_in", "draw")  # fmt: skip
_KVM = ("seconds", "switch", "capture", "buffer_kib", "marks")


@click.command(epilog=_EXAMPLES)
@click.argument("domain", required=False, type=NAME)
@option("--kvm", "vm", type=NAME,
        help="A VM of KVM instead of DOMAIN, by libvirt's name, a QMP socket, or the id of the "
             "VMM's process.")  # fmt: skip
@output("NAME.trace", "The trace to write (with lru-gen, a table NAME.csv).", required=True)
@option(
    "--host",
    type=NAME,
    metavar="USER@HOST",
    help="Run the agent on this host, over SSH. [default: this machine]",
)
@option(
    "--rounds", default=0, type=IntRange(0), help="Number of rounds to log; 0 means until Ctrl-C."
)
@option("--period", default="1s", type=DURATION, help="Length of a round.")
@option(
    "--free", is_flag=True, help="Never pause the guest; separate the rounds in the log afterwards."
)
@option("--mode", default="auto", type=Choice([*MODES, *kvm.MODES]),
        help="Interface: the patched Xen (pml), Xen's log-dirty (stock), KVM's log (log), or "
             "soft-dirty bits without tracing (soft-dirty). With lru-gen, only sizes, from the "
             "aging of MGLRU (a table, NAME.csv).")  # fmt: skip
@option(
    "--ring",
    "slots",
    default=64,
    type=IntRange(2, 4096),
    help="Number of buffers in each vCPU's ring.",
)
@log_options
@option("--bitmaps", is_flag=True, help="Keep the log-dirty bitmaps in the spool.")
@option("--for", "seconds", type=DURATION, help="Stop after this time (KVM only).")
@option("--switch", default="auto", type=Choice(kvm.SWITCHES),
        help="What switches KVM's logging on. listen: the VMM itself.")  # fmt: skip
@option("--capture", default="auto", type=Choice(kvm.CAPTURES),
        help="How KVM's entries are captured. auto: by BPF if kernel and rights allow it, "
             "otherwise by ftrace.")  # fmt: skip
@option("--buffer", "buffer_kib", default=4096, type=IntRange(64, 1 << 20),
        help="Ring buffer of each CPU, KiB (KVM only).")  # fmt: skip
@option("--marks/--no-marks", default=True,
        help="Also capture VM entries, which separate the drains (KVM only).")  # fmt: skip
@option(
    "--state", default="/run/pmlkit", help="Folder in dom0 with a mark for each running collection."
)
@option("--keep", is_flag=True, help="Keep the spool next to the trace.")
@overwrite
@as_json
@click.pass_context
def collect(
    context: click.Context,
    /,
    domain: str | None,
    vm: str | None,
    output: str,
    host: str | None,
    as_json: bool,
    keep: bool,
    overwrite: bool,
    **how: Any,
) -> None:
    """Log a domain of Xen, or a VM of KVM, and write a trace.

    DOMAIN is a name or an id. Ctrl-C stops the collection, and so does the end of the domain.
    Log-dirty mode is then off. On an unpatched Xen, the trace contains the distinct pages of each
    round. A KVM host needs no patches. There, a round ends when the VMM re-arms the pages.

    On KVM, page tables are identified by the content of the logged frames, which are read from the
    VMM's memory (--page-tables mark, snapshot or off). --harvest sampled needs a kernel with idle
    page tracking.
    """
    from pmlkit.cli import console, live
    from pmlkit.sources.host.collection import Collection
    from pmlkit.sources.kvm.sizes import Sizes

    name = vm or domain
    if name is None or (vm and domain):
        raise UsageError("nothing to log", "give a DOMAIN of Xen, or --kvm VM")
    _refuse_others(context, how, vm is not None)
    options = _kvm_options(how) if vm else _xen_options(how)
    way = Sizes if how["mode"] == "lru-gen" else Collection
    run = way(name, output, options, host, overwrite=overwrite, keep=keep, heard=say)
    with live.watching(name, quiet=as_json) as watch:
        trace = run.run(watch)
    if isinstance(run, Sizes):
        line = f"{output}: {len(run.seen)} rounds"
        show(as_json, [seen.as_dict() for seen in run.seen], click.echo, line)
    else:
        show(as_json, lambda: live.summary(run), console.trace, trace, [])


def _refuse_others(context: click.Context, how: Json, of_kvm: bool) -> None:
    """Refuse options of the other hypervisor."""
    for name in how:
        other = (name in _KVM) != of_kvm and name not in _SHARED
        if other and context.get_parameter_source(name) != ParameterSource.DEFAULT:
            flag = next(p.opts[0] for p in context.command.params if p.name == name)
            whose = "Xen" if of_kvm else "KVM"
            raise UsageError(f"{flag} is an option for {whose}", "leave it out")


def _xen_options(how: Json) -> HowToCollect:
    from pmlkit.sources.host.collection import CollectOptions

    if how["mode"] not in MODES:
        raise UsageError(f"--mode {how['mode']} is for KVM", f"Xen has {', '.join(MODES)}")
    return CollectOptions(**log_fields({k: v for k, v in how.items() if k not in _KVM}))


def _kvm_options(how: Json) -> HowToCollect:
    from pmlkit.sources.kvm.collection import KvmCollectOptions

    mode = "log" if how["mode"] == "auto" else how["mode"]
    if mode not in kvm.MODES:
        raise UsageError(f"--mode {mode} is for Xen", f"KVM has {', '.join(kvm.MODES)}")
    if how["page_tables"] not in kvm.PAGE_TABLES:
        raise UsageError(f"--page-tables {how['page_tables']} is for Xen",
                         f"KVM has {', '.join(kvm.PAGE_TABLES)}")  # fmt: skip
    if (harvest := how["harvest"] or "") not in kvm.HARVESTS:
        raise UsageError(f"--harvest {harvest} is for Xen", "KVM supports --harvest sampled")
    names = ("rounds", "most_bytes", "page_tables", "one_in", "draw", *_KVM)
    mine = {name: how[name] for name in names if name != "seconds"} | {"harvest": harvest}
    times = {"period_s": how["period"] / 1e9, "seconds": (how["seconds"] or 0) / 1e9}
    return KvmCollectOptions(**mine, **times, mode=mode)
