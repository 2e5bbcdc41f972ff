# One command per task; each works from a fresh clone with nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# tests run side by side in so many processes: one more than processors, as many of them wait
WORKERS ?= $(shell $(PYTHON) -c "import os; print(1 + (os.cpu_count() or 1))")
STAMP := $(VENV)/.installed

.PHONY: help demo test check bench bench-state bench-store bench-exploring bench-loops bench-warm bench-ticks bench-year bench-panels corpus-test crash-test soak schemathesis screenshots clean

help:  ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

# with INSTALLED=1 the package is already in $(VENV) (CI tests the built wheel)
$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(if $(INSTALLED),,--editable .) --group dev
	touch $@

demo: $(STAMP)  ## run the daily flights pipeline, break it, mend it, restart it
	$(BIN)/python docs/demo/run_demo.py

test: $(STAMP)  ## all tests, and the notebooks under nbval
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m "alone and not browser"
	$(BIN)/python -m pytest -n 2 --dist worksteal -m browser tests/browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --nbval notebooks/

screenshots: $(STAMP)  ## the pictures of the panels in the documentation; needs chromium
	SCREENSHOTS=docs/pictures $(BIN)/python -m pytest -m browser tests/browser

check: $(STAMP)  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## compare with papermill, nbclient and nbconvert
	$(BIN)/python benchmarks/bench.py

bench-state: $(STAMP)  ## what checkpoints cost on a namespace of 1 GB
	$(BIN)/python benchmarks/state.py

bench-store: $(STAMP)  ## eight writers at once, and a store of 100,000 runs
	$(BIN)/python benchmarks/store.py

bench-exploring: $(STAMP)  ## what checkpoints cost on notebooks as people write them
	$(BIN)/python -m pip install --quiet "seaborn>=0.13"
	$(BIN)/python benchmarks/exploring.py

bench-loops: $(STAMP)  ## what loops, restarts in their midst and parallel items cost
	$(BIN)/python benchmarks/loops.py

bench-warm: $(STAMP)  ## what kernels that are forked save, against papermill
	$(BIN)/python benchmarks/warm.py

bench-panels: $(STAMP)  ## what panels cost on a store of 100,000 runs
	$(BIN)/python benchmarks/panels.py

bench-ticks: $(STAMP)  ## what a backfill itself costs, and how soon it answers
	$(BIN)/python benchmarks/ticks.py

bench-year: $(STAMP)  ## a backfill of a year, killed on the way, then made anew where a step has changed
	$(BIN)/python benchmarks/year.py

soak: $(STAMP)  ## the server under 20 requests a second for an hour; SECONDS=n
	SOAK_SECONDS=$(or $(SECONDS),3600) $(BIN)/python -m pytest -s -p no:logging tests/server/test_soak.py

schemathesis: $(STAMP)  ## thousands of requests from the OpenAPI document; EXAMPLES=n
	SCHEMA_EXAMPLES=$(or $(EXAMPLES),300) $(BIN)/python -m pytest --timeout 7200 \
		tests/server/test_schema.py

corpus-test: $(STAMP)  ## every cut of every notebook of the corpus, lazily and at once
	CELLRAIL_TEST_EVERY_CUT=1 $(BIN)/python -m pytest -n $(WORKERS) tests/integration/test_corpus.py

crash-test: $(STAMP)  ## kill -9 in hundreds of stores and flows, full disks; ROUNDS=n, CRASH_SEED=n repeats
	CRASH_ROUNDS=$(or $(ROUNDS),300) $(BIN)/python -m pytest -s --timeout 3600 \
		tests/integration/test_crash_points.py tests/integration/test_full_disk.py
	$(BIN)/python tests/campaigns/flows.py --rounds $(or $(ROUNDS),300) \
		$(if $(CRASH_SEED),--seed $(CRASH_SEED))
	$(BIN)/python tests/campaigns/flows.py --rounds $(or $(ROUNDS),300) --prefixes \
		$(if $(CRASH_SEED),--seed $(CRASH_SEED))

clean:  ## remove what the tasks made
	rm -rf $(VENV) dist build out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
