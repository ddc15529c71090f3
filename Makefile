# make demo: relay sample telemetry to a local sandbox of all five vendors.  make test: all tests.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 4
# Hundreds of short processes would each compile what they import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test soak lint bench bench-stream clean

$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "playrelay needs Python 3.10 to 3.13; name one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/python -m sandbox.demo

test: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

soak: install
	$(BIN)/python -m tests.soak

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.audit $(if $(ADVISORIES),--advisories '$(ADVISORIES)')

bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.table

bench-stream: install
	$(BIN)/python -m benchmarks.stream

clean:
	rm -rf $(VENV) build dist *.egg-info demo
