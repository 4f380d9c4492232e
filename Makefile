PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt
CODE   := recmerge tests
# Two test processes, each with one thread, so that torch's threads do not fight for the cores.
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest

# What `experiment`, `floors` and `rankers` run, on what, and where their figures are kept. DATA is a folder of tables, DOMAIN/interactions.csv.gz and DOMAIN/items.csv.gz;
# without it the official files of DOMAINS are fetched. SMALL=1 tries it all out with few steps and users.
EXPERIMENTS := amazon_patience amazon_targets amazon_all_users amazon_seeds small_shop styles
DOMAINS     := sports,beauty,toys
DATA        ?=
JOBS        ?= 2
SMALL       ?=
TABLES      := --set data.config=table --set 'data.set.interactions=$(abspath $(DATA))/{domain}/interactions.csv.gz' \
               --set 'data.set.items=$(abspath $(DATA))/{domain}/items.csv.gz'
FEW         := --set infer.set.users=200 --set train.set.steps=20 --set train.set.eval_every=10 --set train.set.eval_buyers=50 --set rankers.minutes=0.05
KEEP        := $(if $(SMALL),experiment-small/published,runs/published)
PLACE       := $(if $(SMALL),experiment-small,.)

.PHONY: help setup demo test lint format bench experiment floors rankers experiment-data clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

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

experiment: setup $(EXPERIMENTS:%=experiment-%)  ## the tables on whole Amazon domains, in hours; goes on where it stopped: make experiment DATA=FOLDER

floors: DOMAINS := sports,beauty,toys,clothing,food
floors: experiment-floors  ## the table of what is free, on five whole Amazon domains: make floors DATA=FOLDER

rankers: experiment-tuning experiment-tuning_titles experiment-rankers experiment-rankers_seeds experiment-rankers_longer experiment-together experiment-rankers_lm  ## the tables of all trained rankers, and how they were set, in hours: make rankers DATA=FOLDER

experiment-data: setup
	$(if $(DATA),,$(BIN)/recmerge data fetch amazon2014 --domains $(DOMAINS) --workspace $(PLACE))

experiment-%: experiment-data
	OMP_NUM_THREADS=1 $(BIN)/recmerge ablate $* --jobs $(JOBS) --workspace $(PLACE) --publish $(KEEP) \
		$(if $(DATA),$(TABLES)) $(if $(SMALL),$(FEW))

clean:  ## remove what tools and tests left; data/, runs/ and .venv stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find recmerge tests -name __pycache__ -type d -prune -exec rm -rf {} +
