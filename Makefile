# make demo    simulate Llama-3.1-405B on 16,384 H100 and print the result
# make test    run the test suite
# make check   lint, format, types, import rules
# make bench   time the simulator
# Each makes .venv on first use and installs into it; later calls re-use it until pyproject.toml changes.

VENV := .venv
BIN := $(VENV)/bin
# pip does this for what it copies; the first command would wait for it, and each where Python keeps no bytecode.
COMPILE := $(VENV)/bin/python -m compileall -q simulator calibration reports
DEMO := workloads/runs/llama3.1-405b-16384-h100.yaml

# The first interpreter on the PATH that is new enough. Another one: make PYTHON=/path/to/python3 demo
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: demo test check wheel-check bench clean
.NOTPARALLEL:

demo: $(VENV)/.installed
	$(BIN)/stepcast run $(DEMO)

test: $(VENV)/.installed-for-tests
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A wheel must work without the checkout: installed in its own environment, run from another directory.
wheel-check: $(VENV)/.installed-for-tests
	.ci/wheel-check $(BIN)/python

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/cost.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml $(BIN)/python
	@echo "Installing stepcast and what it needs into $(VENV) (first time only) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-for-tests: pyproject.toml $(BIN)/python
	@echo "Installing stepcast, what it needs and the test tools into $(VENV) (first time only) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@

# The scripts of a virtual environment hold its path, so a checkout that was moved gets a new one.
ifneq ($(shell cat $(VENV)/.path 2>/dev/null),$(CURDIR))
.PHONY: $(BIN)/python
endif

# A virtual environment that cannot be completed is removed, so that the next call starts afresh.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "stepcast needs Python 3.11 or newer; found $$(python3 --version 2>/dev/null || echo no python3 on the PATH)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "stepcast needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) lacks the standard modules venv and ensurepip, which make the virtual environment." >&2; \
		echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "$(CURDIR)" >$(VENV)/.path
