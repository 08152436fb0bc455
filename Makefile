# `make demo` and `make test` each set up all they need, in .venv, and then run.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS))
# For the versions at either end. A name on PATH need not run (pyenv's shims), so the newest is the first that does.
PYTHON_LOWEST ?= python3.11
PYTHONS := python3.14 python3.13 python3.12
PYTHON_NEWEST ?= $(firstword $(shell for p in $(PYTHONS); do $$p -c '' 2>/dev/null && echo $$p; done) $(PYTHONS))
# On CPU, one thread a process: two processes with two threads each get in each other's way badly.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow test-lowest test-newest lint type all clean
all: lint type test

demo: $(VENV)/.ready
	$(BIN)/nas-demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 -m slow

# The oldest versions that setup.cfg allows.
test-lowest:
	$(MAKE) test VENV=.venv-lowest PYTHON=$(PYTHON_LOWEST) CONSTRAINTS=constraints-lowest.txt

# The newest that pip finds when it makes the environment: `make clean` first to look again.
test-newest:
	$(MAKE) test VENV=.venv-newest PYTHON=$(PYTHON_NEWEST) CONSTRAINTS=

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.ready-dev
	$(BIN)/mypy

$(VENV)/.ready: setup.cfg $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
