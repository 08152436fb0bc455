# `make demo` and `make test` each set up all they need, in .venv, and then run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On CPU, one thread a process: two processes with two threads each get in each other's way badly.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint type all clean
all: lint type test

demo: $(VENV)/.ready
	$(BIN)/nas-demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.ready-dev
	$(BIN)/mypy

$(VENV)/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
