# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print. Errors become exit codes in `main`, and nowhere else.

Nothing heavy is imported at the top (numpy, pandas, pyarrow and matplotlib take a second): each
command imports what it calls, so that ``--help`` and shell completion answer at once.
"""

import json
import os
import sys
import traceback

import click
from click import Choice, IntRange

from pmlkit.cli_collect import collect
from pmlkit.cli_compare import compare
from pmlkit.cli_forecast import forecast
from pmlkit.cli_interop import export, import_
from pmlkit.cli_lab import lab
from pmlkit.cli_mrc import mrc
from pmlkit.cli_options import (
    DURATION,
    MEMORY,
    SETTING,
    WINDOW,
    as_json,
    example,
    option,
    output,
    overwrite,
    span,
    trace_argument,
)
from pmlkit.cli_period import calibrate, period
from pmlkit.cli_reads import reads
from pmlkit.cli_run import run
from pmlkit.errors import PmlkitError, UsageError, one_line

REPORT_IT = "this is a defect of pmlkit, please report it with what PMLKIT_DEBUG=1 prints"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
REARM = Choice(["round", "flush", "never"])
RECORD_EXAMPLES = example(
    "pmlkit record --list",
    "pmlkit record hotcold --memory 256 -o h.trace",
    "pmlkit record ./mine.c --window 10Minsn --deterministic -o mine.trace",
)
WSS_EXAMPLES = example(
    "pmlkit wss data/hotcold.trace --window 1s",
    "pmlkit wss h.trace --window 100ms --min-count 2 --kinds w --sliding --json",
)


@click.group(invoke_without_command=True, context_settings=CONTEXT, epilog=RECORD_EXAMPLES)
@click.version_option(package_name="pmlkit", message="pmlkit %(version)s")
@click.pass_context
def cli(ctx):
    """Working sets of virtual machines: record, store, measure, show.

    Every command has --help with an example, and --json for programs. Exit codes: 0 done,
    1 could not (one line says what and what to do), 2 wrong use.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(2)


@cli.command(epilog=example("pmlkit doctor", "pmlkit doctor demo recorder --json"))
@click.argument("capabilities", nargs=-1, metavar="[CAPABILITY]...")
@as_json
@click.pass_context
def doctor(ctx, capabilities, as_json):
    """Say what this machine can do, and what mends the rest.

    Exit code 1 if anything asked for by name (demo, recorder, lab, xen) is missing.
    """
    from pmlkit import doctor, report

    with report.busy("looking at this machine", quiet=as_json):
        found = doctor.examine(capabilities)
    _print(as_json, [c.as_dict() for c in found] if as_json else None, report.doctor, found)
    ctx.exit(1 if capabilities and not all(capability.ready for capability in found) else 0)


@cli.command(epilog=RECORD_EXAMPLES)
@click.argument("workload", required=False)
@output("NAME.trace", "The trace to write.")
@option("--list", "list_them", is_flag=True, help="List the workloads, or WORKLOAD's parameters.")
@option("--memory", "memory_mib", type=MEMORY, help="The guest's memory: 256, 1G.")
@option("--window", default="10ms", help="Length of a round: guest time, or 10Minsn.")
@option("--deterministic", is_flag=True, help="The clock counts instructions: two runs are equal.")
@option("--cmdline", default="", help="Add to the guest kernel's command line.")
@option("--set", "settings", type=SETTING, multiple=True, help="Set a workload's parameter.")
@option("--rounds", type=IntRange(1, 999), help="Kit guests: how many rounds they run. [8]")
@option("--boot", is_flag=True, help="Record the guest's boot, too.")
@option("--swap", "swap_mib", type=MEMORY, default=0, help="Give it a swap disk, and record that.")
@option("--time-limit", type=DURATION, default="30min", help="A guest hangs that takes longer.")
@overwrite
@as_json
def record(workload, output, list_them, settings, rounds, time_limit, as_json, **how):
    """Record the frames that a real Linux guest uses.

    For each round: which it reads, writes and executes, in order of first use.

    WORKLOAD is a name of --list, a static executable, a C file, or a folder with a workload.yaml;
    or a bare-metal guest of the lab (`pmlkit lab run --list`), whose own rounds are recorded.
    Ctrl-C ends the recording early and leaves a valid, shorter trace.
    """
    if list_them:
        return _list_workloads(workload, as_json)
    if workload is None or output is None:
        raise UsageError("name a WORKLOAD (`pmlkit record --list` has them) and -o NAME.trace")
    from pmlkit import report
    from pmlkit.sources import recorder, recorder_kit
    from pmlkit.sources.workload import load

    options = recorder.RecordOptions(time_limit_s=time_limit / 1e9, **how)
    with report.recording(quiet=as_json) as progress:
        if recorder_kit.is_kit_guest(workload):
            told = (options, dict(settings), rounds or recorder_kit.ROUNDS, progress)
            trace = recorder_kit.record_kit(workload, output, *told)
        elif rounds:
            raise UsageError(f"--rounds is for the lab's bare-metal guests, and {workload} is none")
        else:
            loaded = load(workload).with_parameters(dict(settings))
            trace = recorder.record(loaded, output, options, progress)
    _print_trace(as_json, trace)


def _list_workloads(workload, as_json):
    from pmlkit import report
    from pmlkit.sources.workload import list_workloads, load

    found = [load(workload)] if workload else list_workloads()
    render = report.parameters if workload else report.workloads
    _print(as_json, [report.workload_dict(w) for w in found], render, found)


cli.add_command(calibrate)
cli.add_command(collect)
cli.add_command(compare)
cli.add_command(forecast)
cli.add_command(export)
cli.add_command(import_)
cli.add_command(lab)
cli.add_command(mrc)
cli.add_command(period)
cli.add_command(reads)
cli.add_command(run)


@cli.command(epilog=example("pmlkit simulate data/hotcold.trace -o pml.trace --buffers 2"))
@trace_argument
@output("PML.trace", "The PML trace to write.", required=True)
@option("--buffer", default=512, type=IntRange(1, 2**20), help="Entries of a buffer.")
@option("--buffers", default=1, type=IntRange(1, 2), help="With 2, one drains as the other fills.")
@option("--rearm", default="round", type=REARM, help="When a logged page may be logged again.")
@option("--rounds", default=1, type=IntRange(1), help="Rounds of TRACE that make one of PML.trace.")
@overwrite
@as_json
def simulate(trace, output, buffer, buffers, rearm, rounds, overwrite, as_json):
    """Run a software PML over the access trace TRACE."""
    from pmlkit import report
    from pmlkit.sources import simulator

    model = simulator.PmlModel(buffer, buffers, rearm, rounds)
    with report.busy("simulating", quiet=as_json):
        made = simulator.simulate(trace, output, model, overwrite=overwrite)
    _print_trace(as_json, made)


@cli.command(epilog=example("pmlkit ingest x.trace.spool -o x.trace"))
@click.argument("spool", type=click.Path())
@output("NAME.trace", "The trace to write.", required=True)
@overwrite
@as_json
def ingest(spool, output, overwrite, as_json):
    """Make a trace of the spool that an interrupted collection left.

    What is missing is a note in the trace.
    """
    from pmlkit import ingest, report

    with report.busy("reading the spool", quiet=as_json):
        trace = ingest.ingest(spool, output, overwrite=overwrite)
    _print_trace(as_json, trace)


@cli.command(epilog=example("pmlkit info data/hotcold.trace", "pmlkit info h.trace --json"))
@trace_argument
@as_json
@click.pass_context
def info(ctx, trace, as_json):
    """Check TRACE, and say what it is.

    Every file and count is checked, and what the workload knows of itself is measured. Exit code 1
    if the trace is damaged or a known answer is not met.
    """
    from pmlkit import report
    from pmlkit.trace import Trace

    with report.busy("checking every file", quiet=as_json):
        opened = Trace.open(trace)
        opened.check()
    ctx.exit(0 if _print_trace(as_json, opened) else 1)


@cli.command(epilog=WSS_EXAMPLES)
@trace_argument
@option("--window", type=WINDOW, default="1s", help="T: a time (250ms), or rounds (5r).")
@option("--min-count", default=1, type=IntRange(1), help="Count a page used M times in T.")
@option("--sliding", is_flag=True, help="A window at the end of every round.")
@option("--kinds", default="rwx", help="What counts: read, written, executed.")
@option("--page-tables", default="drop", type=Choice(["drop", "keep", "expand"]), help="Of a "
        "PML log; expand: the pages that they lead to.")  # fmt: skip
@option("--region", help="Count the frames of this region only.")
@span
@as_json
def wss(trace, sliding, as_json, **how):
    """Print the working set of TRACE, window by window.

    A row holds the distinct pages used in a window of length T: the time of its end, pages, bytes,
    the period asked for and the effective one, the phase, and the pages within each region that
    the workload named.
    """
    from pmlkit import report, workingset
    from pmlkit.trace import Trace

    with report.busy("counting pages", quiet=as_json):
        step = "sliding" if sliding else None
        table = workingset.estimate(Trace.open(trace), step=step, **how)
    _print(as_json, table.to_dict("records") if as_json else None, report.windows, table)


@cli.command(epilog=example("pmlkit plot --list", "pmlkit plot data/hotcold.trace wss -o f/hot"))
@click.argument("trace", type=click.Path(), required=False)
@click.argument("figure", required=False)
@output("STEM", "Write STEM.pdf, .svg and .png, and its data as .csv and .parquet.")
@option("--list", "list_them", is_flag=True, help="List the figures, a line each.")
@option("--window", type=WINDOW, help="T, where the figure has one.")
@option("--columns", default=1, type=IntRange(1, 2), help="Of the paper, that it spans.")
@span
@as_json
def plot(trace, figure, output, list_them, as_json, **how):
    """Draw FIGURE of TRACE, fit for a paper."""
    from pmlkit import figures, report
    from pmlkit.trace import Trace

    if list_them:
        found = {name: figures.about(name) for name in figures.FIGURES}
        return _print(as_json, found, report.named, "figure", found)
    if trace is None or figure is None or output is None:
        raise UsageError("name a TRACE, a FIGURE (`pmlkit plot --list` has them) and -o STEM")
    with report.busy("drawing", quiet=as_json):
        written = figures.save(figures.draw(Trace.open(trace), figure, **how), output)
    paths = [str(path) for path in written]
    _print(as_json, paths, click.echo, "\n".join(paths))


@cli.command(epilog=example("pmlkit demo", "pmlkit demo h.trace -o results/mine"))
@click.argument("traces", nargs=-1, type=click.Path(), metavar="[TRACE]...")
@output("FOLDER", "Where to; replaces an earlier demo there.", default="results/demo")
@option("--jobs", default=2, type=IntRange(1), help="Notebooks that run at the same time.")
@as_json
def demo(traces, output, jobs, as_json):
    """Run the notebooks, and make a page of their figures.

    They run on the bundled recordings, or on each TRACE.
    """
    from pmlkit import demo

    page = demo.run(output, traces, jobs)
    _print(as_json, {"page": str(page)}, click.echo, f"look at {page}")


def _print_trace(as_json, trace):
    """Print what a trace is; return whether its known answers came out."""
    from pmlkit import known, report

    answers = known.measure(trace)
    value = report.trace_dict(trace, answers) if as_json else None
    _print(as_json, value, report.trace, trace, answers)
    return all(answer.met for answer in answers)


def _print(as_json, value, render, *found):
    """Print a value as JSON (numpy's numbers as Python's), or `found` as people read it."""
    if as_json:
        click.echo(json.dumps(value, indent=2, default=lambda number: number.item()))
    else:
        render(*found)


def main(args=None):
    """Run the command line.

    Parameters
    ----------
    args : list of str, optional
        Default: those of the process.

    Returns
    -------
    int
        The exit code: 0 done, 1 could not, 2 wrong use.
    """
    try:
        code = cli.main(args, prog_name="pmlkit", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit:  # shell completion has answered, or nobody reads what is printed
        raise
    except BaseException as error:
        if os.environ.get("PMLKIT_DEBUG"):
            traceback.print_exc()
        return _fail(error)
    return code if isinstance(code, int) else 0


def _fail(error):
    """Say an error in one line; return its exit code."""
    if isinstance(error, BrokenPipeError):
        # Nobody reads any more (`pmlkit wss ... | head`): no complaint, now or at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    code, text = _verdict(error)
    click.echo(f"pmlkit: {one_line(text)}", err=True)
    return code


def _verdict(error):
    """Return the exit code and the line for an error."""
    if isinstance(error, PmlkitError):
        return (2 if isinstance(error, UsageError) else 1), str(error)
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if getattr(error, "ctx", None) else "pmlkit"
        return error.exit_code, f"{error.format_message()} (see `{path} --help`)"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 130, "interrupted"
    if isinstance(error, MemoryError):
        return 1, "not enough memory: use a shorter --start/--end, or a machine with more"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{error.strerror or error}"
    return 1, f"{type(error).__name__}: {error}: {REPORT_IT}"
