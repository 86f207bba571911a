# SPDX-License-Identifier: Apache-2.0
"""Experiments in batch: notebooks x parameters x traces, from a YAML file to a page and a table.

>>> from pmlkit.batch import runner                                       # doctest: +SKIP
>>> report = runner.run("experiments/windows.yaml", jobs=2)               # doctest: +SKIP
>>> report.page, len(report.failed)                                       # doctest: +SKIP

runner      `plan`, `run`: run what is missing, keep the results; this machine as backend
schema      read and check the YAML file; errors name the line
expand      an experiment's runs, each a `Job` with its id
job         one run: the notebook in a separate process, and its folder
notebook    start papermill; find the reason why a notebook failed
papermill_process   papermill as a process that ends with its caller
plan        an experiment, its runs, and their folder
dask        the backend of a Dask cluster
snakemake   the experiment as a Snakefile
results     the tables of all runs as one
gather      the figures and tables for an article
page        index.html
"""
