# Needs Python 3.11+ and make, nothing else. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint crash stories history history-doors bank load drill-restore damage clients bench bench-archive bench-serving lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.ready ## .venv with the locked dependencies

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . \
		--config-settings editable_mode=compat
	@touch $@

demo: setup ## flights of 2013 into a real Kafka, out as SQL, with a crash in between
	$(BIN)/merganser demo --once

test: setup ## the tests, in minutes
	$(BIN)/pytest

test-long: setup ## the tests with their long forms
	$(BIN)/pytest -m "slow or not slow" --hypothesis-profile varied

lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

crash: setup ## 200 cycles of SIGKILL at random points and at every step of an apply
	$(BIN)/python -m tests.crash --cycles 200

stories: setup ## thousands of seeded recovery stories on the scripted log
	MERGANSER_STORIES=2000 $(BIN)/pytest --dist load tests/stories/test_recovery.py
	MERGANSER_STORIES=2000 $(BIN)/pytest --dist load tests/stories/test_atomicity.py -k agree
	MERGANSER_STORIES=200 $(BIN)/pytest --dist load tests/stories/test_atomicity.py -k oracles

history: setup ## 200,000 operations of clients of killed writers and replicas, held against the log
	$(BIN)/python -m tests.history --operations 200000 --kills 60

history-doors: setup ## 100,000 such operations, read over HTTP and Flight SQL too, by clients that go from node to node
	$(BIN)/python -m tests.history --doors --operations 100000 --kills 60

bank: setup ## money moved by killed writers, and every query finds all of it
	$(BIN)/python -m tests.history --bank --operations 20000 --kills 40

load: setup ## 64 clients for 60 s at both doors of a node that is written; some hang up, no answer is wrong
	$(BIN)/python -m bench.load

drill-restore: setup ## 300 random positions and times of a busy log, each restored and compared with a fold
	$(BIN)/python -m tests.drill --points 300 --rows 20000

damage: setup ## every bit of a backup flipped, and 20,000 cuts, swaps, deletions and renames
	MERGANSER_DAMAGES=20000 $(BIN)/pytest tests/backup/test_damage.py tests/erase/test_erase_damage.py -n 4 --dist worksteal --timeout 0

clients: setup ## curl, ADBC, pandas, Polars, Java and Spark read their own writes while 50,000 rows/s are written
	$(BIN)/python -m tests.clients

bench: setup ## rows/s as ratios of a raw consumer, freshness, memory
	$(BIN)/python -m bench

bench-serving: setup ## answers over Flight SQL, as ratios of the same queries in the process
	$(BIN)/python -m bench.serving

bench-archive: setup ## archiving, reading back and checking 1 M rows, as ratios of a raw consumer
	$(BIN)/python -m bench.archive

lock: setup ## pin the newest allowed dependencies: names, versions, hashes
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o requirements.lock

clean: ## remove .venv and caches; data of the local broker stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
