# SPDX-License-Identifier: Apache-2.0
"""`pmlkit run`: an experiment in batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import IntRange

from pmlkit.cli.options import as_json, example, option, output
from pmlkit.cli.parameters import NAME, PATH, TRACE
from pmlkit.cli.show import show
from pmlkit.errors import PmlkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pmlkit.batch.plan import Plan
    from pmlkit.batch.runner import Backend
    from pmlkit.types import PathLike


_EXAMPLES = example(
    "pmlkit run experiments/windows.yaml",
    "pmlkit run experiments/windows.yaml --dry-run --only redis --only 'window=1*'",
    "pmlkit run experiments/demo.yaml --trace h.trace -o results/mine",
    "pmlkit run experiments/windows.yaml --cluster tcp://head:8786",
    "pmlkit run experiments/windows.yaml --snakefile Snakefile",
)


@click.command(epilog=_EXAMPLES)
@click.argument("experiment", type=PATH)
@output("FOLDER", "Folder of the results of all experiments.", folder=True, default="results")
@option("--jobs", type=IntRange(1), help="Number of parallel runs on this machine. [default: 2]")
@option("--trace", "traces", multiple=True, type=TRACE, metavar="TRACE",
        help="Use this trace instead of the experiment's own; can be repeated.")  # fmt: skip
@option("--only", multiple=True, metavar="WORD",
        help="Select runs with this word, a notebook, trace, name=value or id; * matches "
             "anything. Repeated, all words must match.")  # fmt: skip
@option("--dry-run", is_flag=True, help="List the runs, and which are finished.")
@option("--again", is_flag=True, help="Also repeat finished runs.")
@option(
    "--cluster", type=NAME, metavar="ADDRESS", help="Run on the Dask cluster with this scheduler."
)
@option("--snakefile", metavar="FILE", type=PATH, help="Write a Snakefile instead.")
@option("-v", "--verbose", is_flag=True, help="Print a line when a run has finished.")
@as_json
@click.pass_context
def run(
    ctx: click.Context,
    experiment: str,
    output: str,
    jobs: int,
    traces: tuple[str, ...],
    only: tuple[str, ...],
    dry_run: bool,
    again: bool,
    cluster: str | None,
    snakefile: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the notebooks of EXPERIMENT, a YAML file.

    EXPERIMENT may also be the name of a bundled one, such as demo.yaml.

    Each run is a notebook with its parameters on a trace, in a separate process. Its folder is
    results/NAME/RUN-ID; results/NAME/index.html shows all runs. A finished run is repeated only if
    the notebook, the parameters, the trace or pmlkit's version changes. Ctrl-C stops cleanly, and
    the same command continues. The exit code is 1 if a run failed.

    A notebook is a program and runs with your rights. Read a notebook from others before you run
    it.
    """
    if cluster and (snakefile or jobs):
        raise UsageError(
            "--cluster sets the number of runs: use neither --jobs nor --snakefile with it"
        )
    if snakefile and traces:
        raise UsageError("a Snakefile uses the experiment's own traces: change them in its file")
    from pmlkit.batch import runner
    from pmlkit.cli import plans

    plan = runner.plan(experiment, output, traces)
    if dry_run:
        return _dry_run(plan, only, as_json)
    if snakefile:
        return _snakefile(plan, experiment, snakefile, as_json)
    with _backend(cluster, jobs) as backend, plans.Bar(verbose, quiet=as_json) as bar:
        report = runner.run(plan, backend=backend, only=only, again=again, watcher=bar)
    show(as_json, lambda: plans.report_dict(report), plans.print_report, report)
    if report.interrupted:
        raise KeyboardInterrupt  # which signal it was, `main` knows
    if report.failed:
        ctx.exit(1)


def _dry_run(plan: Plan, only: Sequence[str], as_json: bool) -> None:
    from pmlkit.batch import expand
    from pmlkit.cli import plans

    chosen = expand.only(plan.jobs, only)
    show(as_json, lambda: plans.plan_dict(plan, chosen), plans.print_plan, plan, chosen)


def _snakefile(plan: Plan, experiment: str, path: PathLike, as_json: bool) -> None:
    from pmlkit.batch import snakemake

    written = snakemake.write(plan, experiment, path)
    line = f"wrote {written}: `snakemake -s {written} --cores 2`, or with a profile for Slurm"
    show(as_json, {"snakefile": str(written)}, click.echo, line, indent=None)


def _backend(cluster: str | None, jobs: int) -> AbstractContextManager[Backend]:
    from contextlib import nullcontext

    from pmlkit.batch.runner import Local

    if not cluster:
        return nullcontext(Local(jobs or 2))
    try:
        from pmlkit.batch.dask import Cluster
    except ImportError as error:
        hint = "pip install 'pmlkit[cluster]'"
        raise PmlkitError("--cluster needs distributed, which is not installed", hint) from error
    return Cluster(cluster)
