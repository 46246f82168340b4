# `make` alone prints what can be made. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin
# A module's processes and database serve its tests one after another: modules, not tests, are shared out.
# In the order of the folders: what a folder shares (a browser, a service with people) is started once for each of them.
# Four at a time keep two cores busy: many tests wait for something to be noticed, or for a process to die.
SHARED_OUT := -n 4 --dist loadscope --no-loadscope-reorder
# Tests start hundreds of processes; without bytecode each of them would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What browsers load; installing dwctl fills it.
DASHBOARD := dwctl/dashboard
BROUGHT := $(DASHBOARD)/vendor/brought.json

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run dev tools test lint fix types layers audit check migration migrate pin need-python

help:  ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A fresh start needs these two and nothing else.

run: setup  ## start everything with a demo model, on a database of its own
	$(BIN)/dwctl up --demo

test: .venv/.ready-dev  ## run the tests, four modules at a time; args="-k name" passes options to pytest
	$(BIN)/python -m pytest $(SHARED_OUT) $(args)

# The environment: .venv/.ready and .venv/.ready-dev are as new as what they were made from.

setup: .venv/.ready $(BROUGHT)  ## make .venv and install dwctl in it

.venv/.ready: requirements.txt setup.cfg pyproject.toml
	@$(MAKE) --no-print-directory need-python
	@echo "Installing dwctl in .venv (a minute, the first time)"
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PIP) install --quiet -r requirements.txt && $(PIP) install --quiet --no-deps -e . \
		|| { echo "pip could not install requirements.txt (see above): is the package index within reach?" >&2; exit 1; }
	@touch $@

# Where npm's registry is out of reach, everything but the pages works: `dwctl assets check` says what is missing.
$(BROUGHT): $(DASHBOARD)/package.json $(DASHBOARD)/package-lock.json | .venv/.ready
	@echo "Bringing the dashboard's browser libraries"
	@$(PIP) install --quiet --no-deps -e . && $(BIN)/python -m dwctl assets check >/dev/null && touch $@ || true

.venv/.ready-dev: requirements-dev.txt .venv/.ready | $(BROUGHT)
	@echo "Installing the tools for tests and checks in .venv"
	@$(PIP) install --quiet -r requirements-dev.txt \
		|| { echo "pip could not install requirements-dev.txt (see above): is the package index within reach?" >&2; exit 1; }
	@touch $@

need-python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is `$(PYTHON) --version 2>&1`, but dwctl needs 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) comes without its venv module: install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

# Work on the code

tools: .venv/.ready-dev  ## the tools for tests and checks, without running any

dev: .venv/.ready-dev  ## start web, worker and database, without the demo
	$(BIN)/dwctl up

lint: .venv/.ready-dev  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fix: .venv/.ready-dev  ## mend style and format where that can be done alone
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.ready-dev  ## check types
	$(BIN)/mypy

layers: .venv/.ready-dev  ## check that imports point down
	$(BIN)/lint-imports

# It ends with 1 for a vulnerability and for a network that is away; only the former has a report.
audit: .venv/.ready-dev  ## look for known vulnerabilities in requirements.txt (skipped where the data cannot be had)
	@mkdir -p build
	@if $(BIN)/pip-audit --disable-pip --no-deps --progress-spinner off --timeout 5 -r requirements.txt $(args) >build/audit 2>build/audit.log; \
	then tail -n 1 build/audit.log; \
	elif [ -s build/audit ]; then cat build/audit.log build/audit; exit 1; \
	else echo "audit skipped: $$(tail -n 1 build/audit.log | cut -c 1-160)"; fi

check: lint types layers audit test  ## all checks and the tests

# Database and dependencies

migration: .venv/.ready-dev  ## write a migration from the tables: make migration m="Add ..." (needs DATABASE_URL)
	@test -n "$(m)" || { echo 'Say what it does: make migration m="Add a note to users"' >&2; exit 1; }
	$(BIN)/flask --app wsgi db migrate -m "$(m)"

migrate: setup  ## bring the database at DATABASE_URL up to date
	$(BIN)/flask --app wsgi db upgrade

pin: need-python  ## write requirements.txt anew from the ranges in setup.cfg
	rm -rf build/pin
	$(PYTHON) -m venv build/pin
	build/pin/bin/python -m pip --disable-pip-version-check install --quiet -e .
	@echo '# Exact pins of what runs (ranges are in setup.cfg); `make pin` writes this file.' > build/pin/pins
	build/pin/bin/python -m pip freeze --exclude-editable >> build/pin/pins
	mv build/pin/pins requirements.txt
	rm -rf build/pin
