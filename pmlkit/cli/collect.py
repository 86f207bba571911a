# SPDX-License-Identifier: Apache-2.0
"""`pmlkit collect`: the log of a Xen host's domain, or of a VM on a KVM host, becomes a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import Choice, IntRange
from click.core import ParameterSource

from pmlkit.cli.log_options import log_fields, log_options
from pmlkit.cli.options import DURATION, as_json, example, option, output, overwrite, say
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
@click.argument("domain", required=False)
@option("--kvm", "vm", help="Instead of DOMAIN a VM of KVM: libvirt's name, a QMP socket, or the "
        "VMM's process.")  # fmt: skip
@output("NAME.trace", "The trace to write (lru-gen: a table, NAME.csv).", required=True)
@option("--host", metavar="USER@HOST", help="Run the agent there, by SSH; default: here.")
@option("--rounds", default=0, type=IntRange(0), help="Rounds to log; 0: until Ctrl-C.")
@option("--period", default="1s", type=DURATION, help="Length of a round.")
@option("--free", is_flag=True, help="Never pause the guest: rounds are cut from the log later.")
@option("--mode", default="auto", type=Choice([*MODES, *kvm.MODES]), help="Xen: the patched "
        "interface (pml), or stock log-dirty. KVM: the log; or without tracing soft-dirty bits, or "
        "sizes by the aging of MGLRU (a table, NAME.csv).")  # fmt: skip
@option("--ring", "slots", default=64, type=IntRange(2, 4096), help="Buffers that a ring holds.")
@log_options
@option("--bitmaps", is_flag=True, help="Keep the log-dirty bitmaps in the spool.")
@option("--for", "seconds", type=DURATION, help="KVM: end after so long.")
@option("--switch", default="auto", type=Choice(kvm.SWITCHES), help="KVM: who switches logging on; "
        "listen: the VMM does it by itself.")  # fmt: skip
@option("--capture", default="auto", type=Choice(kvm.CAPTURES), help="KVM: how entries are "
        "captured; auto: by BPF where kernel and rights allow it, else by ftrace.")  # fmt: skip
@option("--buffer", "buffer_kib", default=4096, type=IntRange(64, 1 << 20), help="KVM: KiB of the "
        "ring buffer of each CPU.")  # fmt: skip
@option("--marks/--no-marks", default=True, help="KVM: capture VM entries too, which tell drains "
        "apart.")  # fmt: skip
@option("--state", default="/run/pmlkit", help="Folder in dom0 that says what runs.")
@option("--keep", is_flag=True, help="Keep the spool beside the trace.")
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
    """Log a domain of Xen, or a VM of KVM, and make a trace of it.

    DOMAIN is a name or an id. Ctrl-C ends it, and so does the end of the domain; log-dirty mode is
    off afterwards. On an unpatched Xen the trace holds the distinct pages of each round. On a KVM
    host nothing has to be patched: a round ends where the VMM arms the pages again.

    There, page tables are told apart by what stands in the logged frames, which are read out of the
    VMM's memory: --page-tables mark, snapshot or off. --harvest sampled needs a kernel with idle
    page tracking.
    """
    from pmlkit.cli import console, live
    from pmlkit.sources.host.collection import Collection
    from pmlkit.sources.kvm.sizes import Sizes

    name = vm or domain
    if name is None or (vm and domain):
        raise UsageError("say what to log", "give a DOMAIN of Xen, or --kvm VM")
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
        raise UsageError(f"--mode {how['mode']} is of KVM", f"Xen has {', '.join(MODES)}")
    return CollectOptions(**log_fields({k: v for k, v in how.items() if k not in _KVM}))


def _kvm_options(how: Json) -> HowToCollect:
    from pmlkit.sources.kvm.collection import KvmCollectOptions

    mode = "log" if how["mode"] == "auto" else how["mode"]
    if mode not in kvm.MODES:
        raise UsageError(f"--mode {mode} is of Xen", f"KVM has {', '.join(kvm.MODES)}")
    if how["page_tables"] not in kvm.PAGE_TABLES:
        raise UsageError(f"--page-tables {how['page_tables']} is of Xen",
                         f"KVM has {', '.join(kvm.PAGE_TABLES)}")  # fmt: skip
    if (harvest := how["harvest"] or "") not in kvm.HARVESTS:
        raise UsageError(f"--harvest {harvest} is of Xen", "KVM has --harvest sampled")
    names = ("rounds", "most_bytes", "page_tables", "one_in", "draw", *_KVM)
    mine = {name: how[name] for name in names if name != "seconds"} | {"harvest": harvest}
    times = {"period_s": how["period"] / 1e9, "seconds": (how["seconds"] or 0) / 1e9}
    return KvmCollectOptions(**mine, **times, mode=mode)
