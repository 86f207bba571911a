# SPDX-License-Identifier: Apache-2.0
"""`pmlkit lab`: build the lab, run a guest in it, or open a shell in its dom0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import IntRange

from pmlkit.cli.log_options import log_fields, log_options
from pmlkit.cli.options import as_json, example, names, option, output, overwrite, say
from pmlkit.cli.parameters import DURATION, MEMORY, SETTING, TRACE
from pmlkit.cli.show import show, show_trace
from pmlkit.errors import UsageError
from pmlkit.xen.job import BEST_HARVEST, PAGE_TABLES

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.cli.options import Command
    from pmlkit.sources.lab.kvm.session import KvmLabOptions
    from pmlkit.sources.lab.session import LabOptions
    from pmlkit.types import Json


_EXAMPLES = example(
    "pmlkit lab build",
    "pmlkit lab run known -o known.trace",
    "pmlkit lab run hotcold --stock --fast -o linux.trace",
    "pmlkit lab run known --kvm --kernel 6.12 -o kvm.trace",
    "pmlkit lab run known --kvm --vmm qemu --kvm-log bitmap -o qemu.trace",
    "pmlkit lab run sqlite --page-tables snapshot --harvest both -o sqlite.trace",
)

# `lab run`: options that Xen and KVM share, and the flags of KVM's own.
_SHARED = frozenset([
    "fast", "memory_mib", "vcpus", "rounds", "period", "free_run", "settings", "boot",
    "time_limit", "keep", "overwrite", "page_tables",
])  # fmt: skip
_FLAGS = {
    "kernel": "kernel",
    "vmm": "vmm",
    "log": "kvm-log",
    "capture": "capture",
    "no_pml": "no-pml",
    "huge": "transparent-hugepages",
}


@click.group(epilog=_EXAMPLES)
def lab() -> None:
    """Run guests under a real Xen or KVM, on an emulated processor.

    Bochs boots Xen (ours, or Debian's with --stock) and Debian's kernel as dom0, which starts the
    guest and logs it. With --kvm, it boots Debian's kernel with KVM instead. The lab needs no VT-x,
    no KVM of this machine, and no root.
    """


def _machine(command: Command) -> Command:
    """Declare the options that all of the lab's commands have."""
    for declared in reversed(
        [
            option(
                "--stock", is_flag=True, help="Use Debian's unpatched Xen, and stock log-dirty."
            ),
            option(
                "--xen",
                type=click.Choice(["4.17", "4.20"]),
                default="4.17",
                help="Use Debian 12's Xen (4.17) or Debian 13's (4.20), with --stock.",
            ),
            option(
                "--xen-debug",
                is_flag=True,
                help=(
                    "Use a debug build, in which assertions, warnings and undefined behaviour are "
                    "errors."
                ),
            ),
            option(
                "--xen-preempt",
                is_flag=True,
                help=(
                    "Use a debug build that interrupts its operations on the log at each possible "
                    "point."
                ),
            ),
            option(
                "--xen-source",
                type=click.Path(exists=True, file_okay=False),
                help="Build this source tree of Xen instead of Debian's 4.17, with or without the "
                "series.",
            ),
            option(
                "--xen-cmdline",
                default="",
                help="Append this to Xen's command line, such as ept=no-pml.",
            ),
            option(
                "--fast",
                is_flag=True,
                help="With --stock, use our build of Bochs, which is 4x faster. The patched "
                "Xen always uses it.",
            ),
            option(
                "--guest-memory",
                "memory_mib",
                type=MEMORY,
                help="The guest's memory, such as 256 or 1G.",
            ),
        ]
    ):
        command = declared(command)
    return command


@lab.command(epilog=example("pmlkit lab build", "pmlkit lab build --stock --fast"))
@_machine
@as_json
def build(as_json: bool, **how: Any) -> None:
    """Download and build what `pmlkit lab run` needs."""
    from pmlkit.cli import console
    from pmlkit.sources import lab as lab_source

    with console.busy("lab build", quiet=as_json) as task:
        report = _quiet if as_json else task.stage
        made = lab_source.build(lab_source.LabOptions(**how), report)
    lines = [f"{name:14} {version}" for name, version in made.versions.items()]
    show(as_json, made.versions, click.echo, "\n".join(lines))


_guest = click.argument(
    "guest", required=False, shell_complete=names("pmlkit.sources.lab.guests:shipped")
)


@lab.command(epilog=_EXAMPLES)
@_guest
@output("NAME.trace", "The trace to write.")
@option("--list", "list_them", is_flag=True, help="List the guests.")
@_machine
@option("--vcpus", type=IntRange(1, 8), help="Number of virtual processors of the guest.")
@option(
    "--hvm",
    is_flag=True,
    help="Start a kit guest as an HVM domain, with a device model without devices.",
)
@option(
    "--qemu", is_flag=True, help="With --hvm, use Debian's QEMU as the device model, with a VGA."
)
@option(
    "--rounds", type=IntRange(1), help="Number of rounds to log. [8; Linux: until its work is done]"
)
@option("--period", default="200ms", type=DURATION, help="Length of a round, in emulated time.")
@option("--free-run", is_flag=True, help="Run a kit guest's rounds by time, not in lock step.")
@option("--set", "settings", type=SETTING, multiple=True, help="Set an option of the guest.")
@option("--ring", "slots", type=IntRange(2, 4096),
        help="Number of records in a ring. [64; snapshot: 1024]")  # fmt: skip
@option("--kvm", is_flag=True, help="Use Debian's own KVM, without patches, instead of Xen.")
@option("--kernel", type=click.Choice(["6.1", "6.12"]), help="The host's Linux (KVM only). [6.1]")
@option("--vmm", type=click.Choice(["own", "qemu"]),
        help="The VMM, a small monitor of ours or Debian's QEMU (KVM only). [own]")  # fmt: skip
@option("--kvm-log", "log", type=click.Choice(["ring", "bitmap"]),
        help="A ring for each vCPU, or a bitmap (KVM only). [ring]")  # fmt: skip
@option("--capture", type=click.Choice(["ftrace", "bpf", "auto"]),
        help="How entries are captured (KVM only). [ftrace]")  # fmt: skip
@option("--no-pml", is_flag=True, help="Load kvm_intel with pml=0 (KVM only).")
@option(
    "--transparent-hugepages",
    "huge",
    is_flag=True,
    help="Transparent huge pages for the guest (KVM only).",
)
@log_options
@option("--accessed", is_flag=True, help="The same as --harvest.")
@option("--boot", is_flag=True, help="Also log a Linux guest's boot.")
@option(
    "--time-limit",
    default="25min",
    type=DURATION,
    help="Stop the guest if it runs longer than this.",
)
@option("--keep", is_flag=True, help="Keep the spool and the consoles next to the trace.")
@overwrite
@as_json
def run(guest: str | None, output: str, list_them: bool, as_json: bool, **how: Any) -> None:
    """Boot the lab with GUEST and write a trace of its PML log.

    GUEST is a name from --list, a C file for the bare-metal kit, a PVH ELF file, or a workload of
    `pmlkit record --list`, which runs under Linux.
    """
    if list_them:
        return _list_guests(as_json)
    if guest is None or output is None:
        raise UsageError("name a GUEST (`pmlkit lab run --list` lists them) and -o NAME.trace")

    from pmlkit.cli import console

    of_kvm = {name: how.pop(name) for name in _FLAGS}
    if how.pop("kvm"):
        from pmlkit.sources.lab.kvm import session

        kvm_options = _kvm_options(how, of_kvm)
        with console.busy("lab run", quiet=as_json) as task:
            report = _quiet if as_json else task.stage
            trace = session.run(guest, output, kvm_options, report)
        show_trace(as_json, trace)
        return
    for name, value in of_kvm.items():
        if value:
            raise UsageError(f"--{_FLAGS[name]} is for KVM", "add --kvm")

    from pmlkit.sources import lab as lab_source

    options = _options(how)
    with console.busy("lab run", quiet=as_json) as task:
        report = _quiet if as_json else task.stage
        trace = lab_source.run(guest, output, options, report)
    show_trace(as_json, trace)


@lab.command(epilog=example("pmlkit lab shell", "pmlkit lab shell reads --stock --fast"))
@_guest
@_machine
def shell(guest: str, **how: Any) -> None:
    """Open a shell in the lab's dom0; Ctrl-] leaves it.

    GUEST and its guest.cfg are in /job; the guest is not started.
    """
    from pmlkit.sources import lab as lab_source
    from pmlkit.sources.lab.shell import shell as open_shell

    open_shell(guest, lab_source.LabOptions(**how, time_limit_s=86400), say)


@lab.command(epilog=example("pmlkit lab guest known -o selftest", "xl create selftest/known.cfg"))
@click.argument("guest", shell_complete=names("pmlkit.sources.lab.guests:shipped"))
@output("FOLDER", "Folder for the guest and its configuration.", folder=True, default="selftest")
def guest(guest: str, output: str) -> None:
    """Write GUEST as files for `xl create` on a real host.

    There, `pmlkit collect` logs it like any other domain, and `pmlkit lab check` checks the trace.
    """
    from pmlkit.sources.lab.selftest import write

    config = write(guest, output)
    say(f"xl create {config}")
    say(f"pmlkit collect {guest} --rounds 8 -o {guest}.trace")
    say(f"pmlkit lab check {guest}.trace {guest}")


@lab.command(epilog=example("pmlkit lab check known.trace known"))
@click.argument("trace", type=TRACE)
@click.argument("guest", shell_complete=names("pmlkit.sources.lab.guests:shipped"))
@as_json
def check(trace: str, guest: str, as_json: bool) -> None:
    """Check that each round of TRACE has exactly the pages of GUEST."""
    import dataclasses

    from pmlkit.sources.lab import selftest
    from pmlkit.trace.reader import Trace

    result = selftest.check(Trace.open(trace), guest)
    show(as_json, dataclasses.asdict(result), click.echo, str(result))
    if not result.met:
        raise click.exceptions.Exit(1)


def _options(values: Json) -> LabOptions:
    from pmlkit.sources.lab.session import LabOptions

    fields = log_fields(values)
    if fields.pop("accessed"):
        fields["harvest"] = fields["harvest"] or BEST_HARVEST
    snapshots = "snapshots" in PAGE_TABLES[fields["page_tables"]]
    fields["slots"] = fields["slots"] or (1024 if snapshots else 64)
    fields["rounds"] = fields["rounds"] or 0
    fields["settings"] = dict(fields["settings"])
    fields["lockstep"] = not fields.pop("free_run")
    fields["time_limit_s"] = fields.pop("time_limit") / 1e9
    return LabOptions(**fields)


def _kvm_options(values: Json, of_kvm: Json) -> KvmLabOptions:
    """Return the KVM lab's options; refuse those of Xen that were given."""
    from pmlkit.sources.lab.kvm.session import KvmLabOptions

    context = click.get_current_context()
    given = [
        name
        for name in values
        if name not in _SHARED
        and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if given:
        option = next(p for p in context.command.params if p.name == given[0])
        raise UsageError(f"{option.opts[0]} is for Xen", "leave out this option, or --kvm")
    vmm = of_kvm["vmm"] or "own"
    unasked = {
        name: context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT
        for name in ("page_tables", "period")
    }
    return KvmLabOptions(
        kernel=of_kvm["kernel"] or "6.1",
        vmm=vmm,
        log=of_kvm["log"] or "ring",
        capture=of_kvm["capture"] or "ftrace",
        pml=not of_kvm["no_pml"],
        huge=of_kvm["huge"],
        rounds=values["rounds"] or 0,
        period_s=1.0 if vmm == "qemu" and unasked["period"] else values["period"] / 1e9,
        page_tables="off" if unasked["page_tables"] else values["page_tables"],
        lockstep=not values["free_run"],
        memory_mib=values["memory_mib"],
        vcpus=values["vcpus"],
        settings=dict(values["settings"]),
        boot=values["boot"],
        time_limit_s=values["time_limit"] / 1e9,
        overwrite=values["overwrite"],
        keep=values["keep"],
    )


def _list_guests(as_json: bool) -> None:
    from pmlkit.recordings import need_clone
    from pmlkit.sources.lab.guests import shipped

    need_clone("the lab")
    show(as_json, shipped, _print_guests, shipped())


def _print_guests(guests: Json) -> None:
    from pmlkit.cli import console
    from pmlkit.cli.sheets import make_table, put

    page = make_table("guest", "option", "")
    for name, guest in guests.items():
        page.add_row(name, "", guest["summary"])
        for option_name, facts in guest.get("options", {}).items():
            page.add_row("", f"--set {option_name}={facts['default']}", facts["help"])
    put(console.console(), page)
    console.answer(["and the workloads of `pmlkit record --list`, under Linux"])


def _quiet(line: str) -> None:
    """Print nothing: a program reads the output."""
