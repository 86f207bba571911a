# SPDX-License-Identifier: Apache-2.0
# Thin: each target is one line of the real tool, in a virtual environment made from the lock.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.made-from-lock
# A terminal sees what pip does; a log does not need it.
PIP := $(PY) -m pip --disable-pip-version-check --no-input $(if $(CI),--quiet)

.DEFAULT_GOAL := help
.PHONY: help demo jupyter test lint docs paper bench lock manifest

help: ## show these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY) ## run the notebooks on the bundled recordings -> results/demo/index.html
	$(VENV)/bin/pmlkit run experiments/demo.yaml --verbose $(ARGS)

# Its root is the repository: from there the links to results/ and data/ open.
jupyter: $(READY) ## open JupyterLab at notebooks/00_start.ipynb
	$(VENV)/bin/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb $(ARGS)

test: $(READY) ## install what the tests need (QEMU: as root) and run them; ARGS="-k name" for some
	@bash .ci/apt
	$(PY) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## check the code: style, types, licences, notebooks, links, manifest
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pre_commit run --all-files

docs: $(READY) ## build the documentation -> results/docs/index.html
	$(PY) -m sphinx -q -W --keep-going -b html docs results/docs $(ARGS)

LATEX := pdflatex -interaction=nonstopmode -halt-on-error
paper: $(READY) ## make the figures and tables of an article -> results/paper/paper.pdf (needs LaTeX)
	$(VENV)/bin/pmlkit run experiments/paper.yaml $(ARGS)
	cd results/paper && $(LATEX) paper >latex.txt && $(LATEX) paper >latex.txt || { tail -20 latex.txt; exit 1; }
	@! grep -E "^Overfull|undefined" results/paper/paper.log

bench: $(READY) ## measure speed against peers -> results/bench (10 min; ARGS=--quick: 2)
	$(PY) -m tests.bench $(ARGS)

# For every Python from Debian 12's on: a marker says what only some of them need.
lock: $(READY) ## pin the dependencies of pyproject.toml, with hashes
	$(PY) -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11.2 \
		--no-python-downloads --custom-compile-command "make lock" \
		--extra bench --extra cluster --extra dev --extra docs \
		--output-file requirements.lock pyproject.toml

manifest: $(READY) ## update data/MANIFEST after a recording in data/ was replaced
	$(PY) -m pmlkit.recordings data

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is missing or older than 3.11: name one, as in make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv (as root)"; exit 1; }
	@echo "Making $(VENV) from requirements.lock (a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
