PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt
CODE   := recmerge tests
# Two test processes, each with one thread, so that torch's threads do not fight for the cores.
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest

.PHONY: help setup demo test lint format bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(STAMP)  ## make .venv with recmerge and its tools, at the tested versions

$(STAMP): pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	touch $@

demo: setup  ## the whole WeaveRec job on the bundled sample, offline, into demo/
	$(BIN)/recmerge demo --out demo

test: setup lint  ## set-up, lint and all tests
	$(PYTEST) -n 2 --dist loadscope

lint: setup  ## style, layers, types and docstrings
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet recmerge

format: setup  ## put the code in its format
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

bench: setup  ## print the measured figures of tests/bench
	@for f in tests/bench/bench_*.py; do echo "# $$f"; $(BIN)/python $$f || exit 1; done

clean:  ## remove what tools and tests left; data/, runs/ and .venv stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find recmerge tests -name __pycache__ -type d -prune -exec rm -rf {} +
