# SPDX-License-Identifier: Apache-2.0
"""Experiments in batch: notebooks x parameters x traces, from a YAML file to a page and a table.

>>> from pmlkit.batch import runner                                       # doctest: +SKIP
>>> report = runner.run("experiments/windows.yaml", jobs=2)               # doctest: +SKIP
>>> report.page, len(report.failed)                                       # doctest: +SKIP

runner      what is not done yet is run, what came out is kept: `plan`, `run`
schema      the YAML file, checked; which line is wrong
expand      an experiment's runs, each a `Job` with its id
job         one run: the notebook in a process of its own, and its folder
local       a backend: this machine
dask        a backend: a Dask cluster
snakemake   the experiment as a Snakefile
results     the tables of all runs as one
gather      the figures and tables for an article
page        index.html
show        what `pmlkit run` shows on a terminal
"""
