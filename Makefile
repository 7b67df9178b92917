# make demo | test | test-fast | lint | docs | notebooks | calibration | bench | clean. Every target makes .venv first; a second call does not.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
OUT ?= demo-results
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile
# Of `make calibration`: where records and tables go, processes side by side, and "full" (many hours) or "small".
CALIBRATION ?= calibration-results
JOBS ?= 2
SIZE ?= full

# Data sets that are not bundled; tests that need them are skipped where there are none.
export BAYESINV_DATA ?=
# Threads that wait give the core back. Alone this costs up to a third (the demo leaves it out); beside
# another busy process the default, spinning, is four times slower and more.
test test-fast calibration bench: export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-fast lint docs notebooks format calibration bench clean

help:
	@echo "make demo       install, fit three sets of digits, print tables, write figures to $(OUT)"
	@echo "make test       install, then ruff, mypy and every test"
	@echo "make test-fast  the same without the slow tests"
	@echo "make lint       ruff and mypy alone"
	@echo "make docs       build the documentation site, docs/_build/html; needs no network once installed"
	@echo "make notebooks  run those whose code has changed, and store their tables and pictures"
	@echo "make calibration  simulate and fit some hundred times a case; tables to $(CALIBRATION); goes on where it stopped"
	@echo "make bench      ratios to other libraries and to simpler ways, docs/bench.md; compared with the last table"
	@echo "make clean      remove .venv, caches and build products"

demo: $(STAMP)
	$(BIN)/bayesinv demo --out $(OUT) --overwrite

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: lint
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every finished simulation and fit is a file, which a second call does not repeat.
SIMULATIONS_small := --seed 1
EVIDENCE_small := --seeds 0 --num-train 20 --max-steps 15 --num-draws 40
HARDENING_small := --num 10
calibration: $(TEST_STAMP)
	$(BIN)/python tests/benchmarks/calibration.py --size $(SIZE) $(SIMULATIONS_$(SIZE)) --jobs $(JOBS) --out $(CALIBRATION)
	$(BIN)/python tests/benchmarks/evidence_agreement.py $(EVIDENCE_$(SIZE)) --jobs $(JOBS) --out $(CALIBRATION)
	test -s $(CALIBRATION)/hardening.md || { \
	  $(BIN)/python tests/benchmarks/random_configurations.py $(HARDENING_$(SIZE)) --jobs $(JOBS) \
	    > $(CALIBRATION)/hardening.part && mv $(CALIBRATION)/hardening.part $(CALIBRATION)/hardening.md; }
	cat $(CALIBRATION)/hardening.md

bench: $(TEST_STAMP)
	$(BIN)/python tests/benchmarks/ratios.py

docs: $(TEST_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

notebooks: $(TEST_STAMP)
	$(BIN)/python notebooks/store_outputs.py

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The newest of these that is at least 3.11 and can make environments. PYTHON=... overrides.
$(BIN)/python:
	@found=""; \
	for candidate in $(PYTHON) python3 python3.12 python3.11 python3.13 python; do \
	  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "bayesinv needs Python 3.11 or later with the venv module; python3 here is:" \
	    "$$(python3 --version 2>&1). Install one, or say where it is: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$found ($$($$found --version))"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Editable, so that the environment follows the sources; the stamps follow what there is to install.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[test,docs]"
	@touch $@ $(STAMP)

clean:
	rm -rf docs/_build docs/api docs/notebooks
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bayesinv tests -name __pycache__ -type d -prune -exec rm -rf {} +
